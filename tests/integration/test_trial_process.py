"""A trial in a process of its own, and its memory of earlier ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.engines.protocol import DEFAULT_ONNX_OPTIONS
from backend.trial.launch import remember, remembered_name, try_file
from backend.trial.messages import Question, Trial
from tests.server.harness import mlp


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Question:
    monkeypatch.setenv("ISOCHRONE_RUNTIME_DIR", str(tmp_path / "run"))
    file = tmp_path / "model.onnx"
    file.write_bytes(mlp().SerializeToString())
    return Question("", str(file), "onnxruntime", "", None, DEFAULT_ONNX_OPTIONS, {}, (), 8)


def test_a_trial_in_a_process_of_its_own_is_remembered(asked: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    assert try_file(asked, batch=False).batches is None
    found = try_file(asked, batch=True)  # what is remembered says nothing of batching
    assert found.batches is True
    monkeypatch.setattr("backend.trial.launch.answer_of", None)
    assert try_file(asked, batch=True) == try_file(asked, batch=False) == found


def test_a_trial_that_fails_says_why(asked: Question) -> None:
    Path(asked.file).write_bytes(b"no model")
    found = try_file(asked, batch=True)
    assert (found.as_batch, found.batches, found.lasting) == (None, None, False)
    assert "INVALID_PROTOBUF" in found.why


def test_what_may_come_out_otherwise_is_remembered_for_a_while(
    asked: Question, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "trials" / remembered_name(asked)
    remember(path, asked, Trial(batch=True, why="no time", lasting=False))
    assert try_file(asked, batch=True).why == "no time"
    monkeypatch.setattr("backend.trial.launch._NOT_LASTING_S", -1.0)
    assert try_file(asked, batch=True).batches is True
