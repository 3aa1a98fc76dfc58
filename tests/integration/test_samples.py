"""Samples that the scheduler's process writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.engines.protocol import BatchResult
from backend.scheduler_process.sample_log import VARIABLE
from predictor.samples import Sample, read_samples
from tests.fakes.builders import MS
from tests.fakes.fake_model import FakeModel, eventually, pending


@pytest.mark.usefixtures("runtime_dir")
def test_a_scheduler_writes_a_sample_per_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    with FakeModel("a") as model:
        model.took = BatchResult([np.zeros(250, np.float32)], MS, 3_000, 2_000)
        for _ in range(10):
            model.wait_for(*model.submit(pending(5_000.0)))

        def written() -> tuple[Sample, ...]:
            return read_samples(path).samples if path.exists() and path.stat().st_size else ()

        eventually(lambda: len(written()) == 10)
        assert {(s.model, s.batch_size, s.device, s.exec_ns) for s in written()} == {("a", 1, "cpu", MS)}
        assert {(s.transfer_in_ns, s.transfer_out_ns, s.bytes_in, s.bytes_out) for s in written()} == {
            (3_000, 2_000, 0, 1_000)
        }
        assert len({s.batch for s in written() if s.batch is not None}) == 10
        assert written()[0].predicted_out_ns == 0
        assert written()[-1].predicted_out_ns == pytest.approx(2_000, rel=0.1)
        model.took = BatchResult([], MS)
        for _ in range(10):
            model.wait_for(*model.submit(pending(5_000.0)))
        eventually(lambda: len(written()) == 20)
        still = written()[10:]
        assert {(s.transfer_in_ns, s.transfer_out_ns, s.bytes_in, s.bytes_out) for s in still} == {(0, 0, 0, 0)}
