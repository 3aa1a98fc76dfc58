"""ONNX's own backend tests on a real server: each model with `backend: "isochrone"` alone answers as ONNX Runtime does.

What ONNX Runtime cannot load, and what Triton has no types for, is refused as it loads, in a sentence that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.server.embedded import EmbeddedServer
from tests.onnx_nodes.cases import Case, cases
from tests.onnx_nodes.sample import sample
from tests.onnx_nodes.serving import Verdict, judge, write
from tests.server.control import EXPLICIT

AT_ONCE = 4
"""Of more, on busy cores, tritonserver may take a model's process for dead (docs/reference/limits.md)."""
SAMPLE = 60
OF_EACH_KIND = 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    for case in cases():
        write(tmp_path, case)
    with EmbeddedServer(tmp_path, extra=EXPLICIT) as server:
        yield server


@pytest.mark.alone
def test_a_sample_answers_as_onnx_runtime(server: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = sample(cases(), SAMPLE, OF_EACH_KIND)
    assert len(chosen) == SAMPLE
    check(judged(server, chosen), capsys)


@pytest.mark.slow
def test_all_answer_as_onnx_runtime(server: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    check(judged(server, cases()), capsys)


def judged(server: EmbeddedServer, chosen: Sequence[Case]) -> list[Verdict]:
    """Several at a time, each unloaded at its end, so that there are never many processes."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda case: judge(server, case), chosen))


def check(verdicts: Sequence[Verdict], capsys: pytest.CaptureFixture[str]) -> None:
    """None is wrong; the counts are for the documentation."""
    with capsys.disabled():
        print(f"\n{summary(verdicts)}")
    wrong = [f"{verdict.case.name}: {verdict.why}" for verdict in verdicts if verdict.kind == "wrong"]
    if wrong:
        raise AssertionError("\n".join(wrong))


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many are of each kind, and why."""
    lines = []
    for kind, count in Counter(verdict.kind for verdict in verdicts).most_common():
        reasons = Counter(verdict.why for verdict in verdicts if verdict.kind == kind and verdict.why)
        told = "" if kind == "wrong" else "; ".join(f"{reason}: {number}" for reason, number in reasons.most_common())
        lines.append(f"{kind} {count}" + (f" ({told})" if told else ""))
    return ", ".join(lines)
