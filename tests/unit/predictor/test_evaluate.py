"""`isochrone evaluate`: labels revealed in time, the contract's JSON, and errors of one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from backend.commands import main as cli
from predictor.evaluate import LEARNERS, evaluate
from predictor.samples import Sample, encode_sample
from predictor.workload import FEATURES
from tests.fakes.contended_samples import Contention, generate


def write(path: Path, samples: list[Sample]) -> Path:
    path.write_bytes(b"".join(map(encode_sample, samples)))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["isochrone", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def at(start_ns: int, exec_ns: int) -> Sample:
    return Sample(1, "a", 1, start_ns, exec_ns, 100)


THROTTLED = msgspec.structs.replace(at(0, 1), throttled=True)


def test_a_label_is_revealed_when_the_batch_has_ended() -> None:
    """The second starts while the first runs, the third as it ends."""
    scores = evaluate([at(0, 300), at(200, 400), at(300, 300)], (), learners=["mean"]).learners["mean"]
    # Predicted 1, 1, 3 where 3, 4, 3 came.
    assert scores.mse == pytest.approx((4 + 9 + 0) / 3)
    assert scores.mape == pytest.approx((2 / 3 + 3 / 4 + 0) / 3)


def test_training_samples_come_first_and_are_not_scored() -> None:
    result = evaluate([at(900, 300)], (), training=[at(0, 300)], learners=["mean"])
    assert result.samples == 1
    assert result.learners["mean"].mse == 0.0


def test_the_papers_three_start_alike_with_a_training_set() -> None:
    samples = generate(Contention("mixed", count=400))
    scores = evaluate(samples[300:301], FEATURES, samples[:300], ["offline", "sgd", "rls"]).learners
    assert scores["offline"].mse == scores["sgd"].mse == scores["rls"].mse


def test_the_contracts_json_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = write(tmp_path / "s.jsonl", generate(Contention("mixed", lanes=4, count=700)))
    assert run(monkeypatch, samples, "--json", tmp_path / "out.json", "--train-fraction", "0.1") == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["samples"], written["features"]) == (630, ["compute", "l2", "dram"])
    assert list(written["learners"]) == list(LEARNERS)
    for score in written["learners"].values():
        assert set(score) >= {
            "mse", "mape", "mape_after_500", "relative_error_p50", "relative_error_p75", "relative_error_p95",
            "coverage", "inflation", "predict_us_p50", "learn_us_p50", "learn_us_mean",
        }  # fmt: skip
        assert all(isinstance(value, float) for value in score.values())
    shown = capsys.readouterr().out
    assert "630 batches tested, after 70 to train on" in shown
    assert all(name in shown for name in written["learners"])


def test_a_feature_that_some_sample_lacks_is_named_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [msgspec.structs.replace(s, features={"compute": 0.5}) for s in generate(Contention("mixed", count=50))]
    assert run(monkeypatch, write(tmp_path / "s.jsonl", samples)) == 0
    assert "not in every sample, so not used: l2, dram" in capsys.readouterr().out


def test_batches_of_a_throttled_device_are_counted_and_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 60 every third was throttled, and every second of the 30 to train on."""
    made = generate(Contention("mixed", count=90))
    tested, training = (
        [msgspec.structs.replace(s, throttled=i % every == 0) for i, s in enumerate(part)]
        for part, every in ((made[:60], 3), (made[60:], 2))
    )
    log, train, out = write(tmp_path / "s", tested), write(tmp_path / "train", training), tmp_path / "out"
    assert run(monkeypatch, log, "--train-file", train, "--json", out) == 0
    written = json.loads(out.read_text())
    assert (written["samples"], written["throttled"]) == (60, 20)
    shown = capsys.readouterr().out
    assert "60 batches tested, after 30 to train on" in shown
    assert "while the device's clocks were throttled: 20 of them" in shown
    assert run(monkeypatch, log, "--train-file", train, "--json", out, "--without-throttled") == 0
    written = json.loads(out.read_text())
    assert (written["samples"], written["throttled"]) == (40, 0)
    shown = capsys.readouterr().out
    assert "40 batches tested, after 15 to train on" in shown
    assert "clocks were throttled" not in shown


def test_the_json_does_not_replace_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "s.jsonl"
    log.write_bytes(encode_sample(at(0, 1)))
    assert run(monkeypatch, log, "--json", log) == 2
    assert "s.jsonl holds samples; name another file for the numbers" in capsys.readouterr().err
    assert log.read_bytes() == encode_sample(at(0, 1))


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (b"", [], "has no samples: it is empty"),
        (b"{\n", [], "line 1 is not a sample"),
        (b'{"schema":7}\n', [], "line 1: schema 7 is not known"),
        (encode_sample(THROTTLED), ["--without-throttled"], "leaves nothing of"),
        (encode_sample(at(0, 1)), ["--train-fraction", "1.5"], "--train-fraction must lie in 0..1, got 1.5"),
        (encode_sample(at(0, 1)), ["--train-fraction", "0.1", "--train-file", "x"], "exclude each other"),
        (encode_sample(at(0, 1)), ["--train-file", "/none.jsonl"], "/none.jsonl cannot be read"),
        (encode_sample(at(0, 1)), ["--json", "/none/out.json"], "/none/out.json cannot be written"),
    ],
)
def test_an_error_is_one_sentence(
    content: bytes,
    options: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(content)
    assert run(monkeypatch, path, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("isochrone: ")
    assert sentence in error
    assert error.count("\n") == 1
