"""The sentence at the end of the demo, and the repository that a benchmark serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.load.outcomes import MeasuredLoad, Outcome, Status
from benchmarks.demo_report import Mode, verdict
from benchmarks.harness.errors import BenchmarkError
from benchmarks.models.model_repository import link_models, write_configs


def outcome(latency_ms: float, status: Status = "ok", *, priority: int = 1, sent_s: float = 0.0) -> Outcome:
    return Outcome("a", 0.0, sent_s, latency_ms / 1e3, 50.0, priority, status)


def segment(mode: Mode, half: int, met: int, missed: int, priority: int = 1) -> MeasuredLoad:
    outcomes = [outcome(10, priority=priority)] * met + [outcome(99, priority=priority)] * missed
    return MeasuredLoad(mode, 1.0, half, 10.0, outcomes)


@pytest.mark.parametrize(("met", "words"), [(90, "more than"), (50, "about as many as"), (20, "fewer than")])
def test_the_sentence_follows_the_numbers(met: int, words: str) -> None:
    sentence = verdict([segment("off", 0, 50, 50), segment("on", 0, met, 100 - met)])
    assert f"{met} % of requests met their deadline ({met / 10:.1f}/s), {words} the 50 %" in sentence


def test_the_sentence_tells_classes_and_halves() -> None:
    sentence = verdict(
        [
            segment("off", 0, 5, 5),
            segment("on", 0, 9, 1),
            segment("on", 1, 8, 2, priority=2),
            segment("off", 1, 4, 6, priority=2),
        ]
    )
    assert "class 1 50 % → 90 %, class 2 40 % → 80 %" in sentence
    assert "in each half of the load, 50 % → 90 % and 40 % → 80 %" in sentence


def test_the_sentence_says_when_there_is_nothing_to_compare() -> None:
    assert "only one mode" in verdict([segment("off", 0, 5, 5)])


def test_links_models_and_writes_their_configs(tmp_path: Path) -> None:
    file = tmp_path / "source" / "a" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"onnx")
    repository = tmp_path / "models"
    assert link_models(tmp_path / "source", repository, ["a"]) == {"a": file}
    write_configs(repository, {"interference_aware": "false"})
    assert (repository / "a" / "1" / "model.onnx").read_bytes() == b"onnx"
    assert (
        'key: "interference_aware" value { string_value: "false" }' in (repository / "a" / "config.pbtxt").read_text()
    )


def test_missing_models_are_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"no model file for a, b in .*; run `make models`"):
        link_models(tmp_path, tmp_path / "models", ["a", "b"])
