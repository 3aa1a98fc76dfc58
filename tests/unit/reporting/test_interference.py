"""Excess of batches over their solo latency, split over co-runners, against a law of which the truth is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from backend.reporting.attribution import Attribution
from backend.reporting.interference import interference_of
from backend.reporting.recording import ExecutedBatch
from backend.reporting.report import read_recording
from predictor.features import CoRunner, Own
from tests.fakes.builders import MS, load
from tests.fakes.simulated_log import SimulatedLog

SOLO_MS = 10.0


def executed(exec_ms: float, *co_runners: CoRunner) -> ExecutedBatch:
    own = Own("own", 1, load(SOLO_MS, 0.3))
    return ExecutedBatch("gpu-0", own, 0, round(exec_ms * MS), round(exec_ms * MS), 0, co_runners, None)


def co_runner(model: str, begin: float = 0.0, end: float = 1.0) -> CoRunner:
    return CoRunner(model, 1, load(SOLO_MS, 0.3), begin, end)


def batches(seed: int = 1) -> list[ExecutedBatch]:
    """Of a law: beside `strong` all the time +60 %, beside `weak` +10 %, ± 3 %."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(600):
        co_runners, excess = [], 0.0
        for model, adds in (("strong", 0.6), ("weak", 0.1)):
            if random.uniform() < 0.6:
                begin, end = sorted(random.uniform(0.0, 1.0, 2).tolist())
                co_runners.append(co_runner(model, begin, end))
                excess += adds * (end - begin)
        found.append(executed(SOLO_MS * (1.0 + excess) * float(random.normal(1.0, 0.03)), *co_runners))
    return found


def test_the_parts_of_each_batch_add_up_to_what_it_took_beyond_its_solo_latency() -> None:
    found = batches()
    for batch, parts in zip(found, interference_of(found), strict=True):
        assert sum(parts.values()) == batch.exec_ns - batch.own.load.solo_ns
        assert set(parts) <= {None, *(c.model for c in batch.co_runners)}


def test_each_co_runner_is_charged_what_the_law_has_it_cost() -> None:
    found = batches()
    total: Counter[str | None] = Counter()
    for parts in interference_of(found):
        total.update(parts)
    overlap = {
        model: sum(c.end - c.begin for batch in found for c in batch.co_runners if c.model == model)
        for model in ("strong", "weak")
    }
    assert total["strong"] == pytest.approx(0.6 * overlap["strong"] * SOLO_MS * MS, rel=0.1)
    assert total["weak"] == pytest.approx(0.1 * overlap["weak"] * SOLO_MS * MS, rel=0.25)


def test_noise_alone_adds_up_to_nothing() -> None:
    random = np.random.default_rng(2)
    found = [executed(SOLO_MS * float(random.normal(1.0, 0.05)), co_runner("harmless")) for _ in range(1_000)]
    charged_ns = sum(parts.get("harmless", 0) for parts in interference_of(found))
    assert abs(charged_ns) < 0.01 * sum(batch.exec_ns for batch in found)


def test_nobody_is_charged_for_a_batch_that_was_alone_or_was_stopped() -> None:
    found = [*batches(), executed(2 * SOLO_MS), executed(80 * SOLO_MS, co_runner("weak", 0.0, 0.1))]
    *_, alone, stopped = interference_of(found)
    assert alone == {None: SOLO_MS * MS}
    assert stopped["weak"] < SOLO_MS * MS
    assert sum(stopped.values()) == 79 * SOLO_MS * MS


def test_a_simulated_device_is_charged_as_its_law_has_it(disturbed: SimulatedLog) -> None:
    """Each batch is slowed down by 1 + 1.5 × the shares beside it, of which the heavy model's is 0.9."""
    for log in (disturbed.events, disturbed.samples):
        total, truth = Counter[str](), Counter[str]()
        for batch, parts in Attribution(read_recording(log)).batches:
            if batch.own.model == "heavy":
                continue
            charged = {by: span_ns for by, span_ns in parts.items() if by is not None}
            total.update(charged)
            for c in batch.co_runners:
                # exec = solo · residual / (1 − …) is no closed form; of its own time the co-runner takes this share
                beside = 1.5 * sum(d.load.compute for d in batch.co_runners if d.begin < c.end and c.begin < d.end)
                truth[c.model] += round(batch.exec_ns * (c.end - c.begin) * 1.5 * c.load.compute / (1.0 + beside))
        assert total["heavy"] == pytest.approx(truth["heavy"], rel=0.1)
        assert total["heavy"] > 5 * sum(span_ns for by, span_ns in total.items() if by != "heavy")
