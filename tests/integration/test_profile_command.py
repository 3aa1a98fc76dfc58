"""`isochrone profile` on a tiny real model: files, resuming, interrupts, errors, and what serving makes of it."""

from __future__ import annotations

import json
import logging
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import backend.model_process.load_profile as load_module
import backend.profiling.campaign as campaign_module
from backend.commands.main import app
from backend.commands.profile import ProfileOptions, profile, read_batch_sizes
from backend.errors import ConfigError, EngineError
from backend.model_process.batch import group_of
from backend.model_process.load_profile import profile_at_load
from backend.model_process.placement import open_engine
from backend.profiling import one_batch
from backend.profiling.repository import find_versions, served_model
from backend.runtime_dir import VARIABLE
from backend.trial.messages import Trial
from predictor.workload import Load
from profiler.feature_source import NeutralFeatures
from profiler.rounds import Rounds

QUICK = 0.001


def add_model(repository: Path, name: str) -> Path:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text('backend: "isochrone"\nmax_batch_size: 2\n')
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 4]) for n in "xy"]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], name, values[:1], values[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), version / "model.onnx"
    )
    return version / "profile.json"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models; rounds and features that cost nothing."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    defaults = Rounds.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "round_ns", 1)
    monkeypatch.setattr(campaign_module, "_PAUSE_S", 0.0)
    monkeypatch.setattr(campaign_module, "counted_features", lambda *_: NeutralFeatures("it is a test"))
    for name in "ab":
        add_model(tmp_path / "models", name)
    return tmp_path / "models"


def run(repository: Path, **options: Any) -> int:
    return profile(ProfileOptions(repository, seconds=QUICK, **options))


def entries(repository: Path, model: str) -> dict[int, Any]:
    file = json.loads((repository / model / "1" / "profile.json").read_bytes())
    return {entry["batch_size"]: entry for entry in file["entries"]}


def test_the_command_measures_every_model_and_size(repository: Path, tmp_path: Path) -> None:
    arguments = ["profile", f"--model-repository={repository}", f"--json={tmp_path / 'out.json'}", "--seconds=0.001"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "4 of 4 entries measured" in result.output
    assert list(entries(repository, "a")) == list(entries(repository, "b")) == [1, 2]
    assert {m["model"]: m["error"] for m in json.loads((tmp_path / "out.json").read_bytes())["models"]} == {
        "a": None,
        "b": None,
    }


def test_a_rerun_measures_only_what_is_missing(repository: Path) -> None:
    assert run(repository, batch_sizes="1", models=("a",)) == 0
    first = entries(repository, "a")
    assert run(repository) == 0
    assert entries(repository, "a")[1] == first[1]
    assert list(entries(repository, "a")) == [1, 2]


def test_an_interrupt_keeps_what_is_done(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = load_module.timed_run

    def interrupted(config: Any, engine: Any, inputs: Any, size: int) -> int:
        if config.name == "b":
            raise KeyboardInterrupt
        return real(config, engine, inputs, size)

    monkeypatch.setattr(campaign_module, "_OPEN_BYTES_MAX", 1)  # a, then b
    monkeypatch.setattr(campaign_module, "timed_run", interrupted)
    assert run(repository) == 130
    kept = entries(repository, "a")
    assert list(kept) == [1, 2]
    monkeypatch.setattr(campaign_module, "timed_run", real)
    assert run(repository) == 0
    assert entries(repository, "a") == kept
    assert list(entries(repository, "b")) == [1, 2]


def test_a_failing_model_does_not_stop_the_others(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = load_module.timed_run

    def failing(config: Any, engine: Any, inputs: Any, size: int) -> int:
        if config.name == "a":
            raise EngineError("the model's run failed: no reason")
        return real(config, engine, inputs, size)

    monkeypatch.setattr(campaign_module, "timed_run", failing)
    assert run(repository) == 1
    assert not (repository / "a" / "1" / "profile.json").exists()
    assert list(entries(repository, "b")) == [1, 2]


def test_a_model_without_a_file_is_told(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "a" / "1" / "model.onnx").unlink()
    assert run(repository) == 1
    assert "model 'a' is not profiled: there is no model file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"models": ("c",)}, "--model c is not in .*, which has a, b"),
        ({"batch_sizes": "1,4"}, "--batch-sizes 4 is above the max_batch_size of model 'a', which is 2"),
        ({"batch_sizes": "1,x"}, "must be whole numbers"),
        ({"json": Path("/nowhere/out.json")}, "--json /nowhere/out.json cannot be written"),
    ],
)
def test_wrong_options_end_it_before_anything_is_measured(
    repository: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(repository, **options)
    assert not list(repository.glob("*/1/profile.json"))


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        run(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "0", "-1", "1,,2", "1.5", "²"])
def test_batch_sizes_that_are_no_numbers(text: str) -> None:
    with pytest.raises(ConfigError):
        read_batch_sizes(text)


def test_nsight_has_nothing_to_count_on_a_cpu(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one_batch.main([str(repository / "a" / "1"), "1"]) == 1
    assert capsys.readouterr().err == "model 'a' runs on the CPU, where there is nothing for Nsight Compute to count\n"


def test_times_stay_when_features_come_from_elsewhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(repository, models=("a",)) == 0
    before = entries(repository, "a")
    monkeypatch.setattr(campaign_module, "counted_features", lambda *_: Halves())
    assert run(repository, models=("a",)) == 0
    file = json.loads((repository / "a" / "1" / "profile.json").read_bytes())
    assert (file["features_from"], file["note"]) == ("half", None)
    after = entries(repository, "a")
    assert {size: entry["p50_ns"] for size, entry in after.items()} == {n: e["p50_ns"] for n, e in before.items()}
    assert {entry["features"]["l2"] for entry in after.values()} == {0.5}


class Halves:
    """Half of everything."""

    name, note, lasting = "half", None, True

    def load(self, batch_size: int, solo_ns: int) -> Load:  # noqa: ARG002
        return Load(solo_ns, 0.5, 0.5, 0.5)


def test_serving_uses_the_file_of_this_device_only(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(repository, models=("a",))
    config, trial = served_model(find_versions(repository, ["a"])[0][0])
    engine = open_engine(config)
    path = repository / "a" / "1" / "profile.json"
    own = json.loads(path.read_bytes())
    own["entries"][0].update(p50_ns=123_456_789, p95_ns=123_456_789)
    path.write_bytes(msgspec.json.encode(own))
    assert profile_at_load(config, engine, trial).profile.at(1).solo_ns == 123_456_789
    path.write_bytes(msgspec.json.encode({**own, "device": "another"}))
    with caplog.at_level(logging.WARNING):
        assert profile_at_load(config, engine, trial).profile.at(1).solo_ns < 100_000_000
    assert "measured on another device ('another'" in caplog.text


@pytest.mark.parametrize("patient", [True, False])
def test_a_profile_of_runs_that_lost_patience_is_measured_again_at_the_next_load(
    repository: Path, patient: bool
) -> None:
    config, trial = served_model(find_versions(repository, ["a"])[0][0])
    asked: list[int] = []

    def measured(batch_size: int) -> int:
        asked.append(batch_size)
        return 1_000_000

    runs = load_module._Direct(measured, lambda: 1_000_000 * len(asked), patient)
    with closing(open_engine(config)) as engine:
        for _ in range(2):
            measured_before = len(asked)
            profile_at_load(config, engine, trial, lambda *_: nullcontext(runs))
    assert (len(asked) > measured_before) is not patient


def test_a_profile_is_of_the_shape_that_it_was_measured_with(repository: Path) -> None:
    config, trial = served_model(find_versions(repository, ["a"])[0][0])
    with closing(open_engine(config)) as engine:
        assert profile_at_load(config, engine, trial).group == group_of({"x": (4,)})
        unknown = profile_at_load(config, engine, Trial(why="it does not run on synthetic inputs (no reason)"))
    assert unknown == (load_module._GUESS, None)
