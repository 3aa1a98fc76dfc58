"""The brief profile at load, by a real engine, and what is remembered of it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import onnxruntime
import pytest

import profiler.brief as brief_module
import profiler.feature_source as source_module
import profiler.lock as lock_module
from predictor.workload import ModelProfile
from profiler.brief import BriefFile, BriefProfile, Budget, batch_sizes, brief_profile
from profiler.child import CODE_ROOT, ChildError
from profiler.feature_source import NEUTRAL_COMPUTE, feature_source
from profiler.graph import graph_work
from profiler.lock import exclusive
from profiler.peaks import load_or_measure
from profiler.work import GraphWork
from tests.fakes.graphs import MS, PEAKS, ones, write_mlp


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    return write_mlp(tmp_path)


class Engine:
    """A real session on one thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.calls = 0

    def run(self, size: int) -> int:
        self.calls += 1
        start_ns = time.perf_counter_ns()
        self.session.run(None, {"x": ones(size, 16)})
        return time.perf_counter_ns() - start_ns


class Profiling:
    """`brief_profile` over one folder, with peaks that cost nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(
        self,
        path: Path,
        run: Callable[[int], int],
        max_batch_size: int = 4,
        engine: str = "an engine",
        *,
        whole: bool = True,
    ) -> BriefProfile:
        return brief_profile(
            path,
            run,
            max_batch_size,
            directory=self.directory,
            budget=Budget(20 * MS, was_whole=lambda: whole),
            device="a device",
            engine=engine,
            features=lambda sizes: feature_source(path, sizes, lambda: PEAKS),
        )

    def files(self) -> list[Path]:
        return sorted((self.directory / "profiles").glob("*"))


@pytest.fixture
def profiling(tmp_path: Path) -> Profiling:
    return Profiling(tmp_path / "runtime")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work without a child process, where the child is not the question."""
    monkeypatch.setattr(source_module, "work_in_child", lambda path, sizes, _: {n: graph_work(path, n) for n in sizes})


@pytest.mark.parametrize(("max_batch_size", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_batch_sizes_are_powers_of_two_and_the_largest(max_batch_size: int, sizes: list[int]) -> None:
    assert batch_sizes(max_batch_size) == sizes


def test_brief_profile_end_to_end(mlp: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    brief = brief_profile(
        mlp,
        Engine(mlp).run,
        4,
        directory=runtime,
        budget=Budget(20 * MS),
        device="a device",
        engine="an engine",
        features=lambda sizes: feature_source(mlp, sizes, partial(load_or_measure, runtime)),
    )
    assert brief.note is None
    assert brief.profile.batch_sizes == (1, 2, 4)
    for load in brief.profile.loads:
        assert load.solo_ns > 0
        assert all(0 < share <= 1 for share in load.features)


@pytest.mark.usefixtures("counted")
def test_a_model_without_batching_has_one_size(mlp: Path, profiling: Profiling) -> None:
    assert profiling(mlp, Engine(mlp).run, max_batch_size=0).profile.batch_sizes == (1,)


@pytest.mark.usefixtures("counted")
def test_a_profile_is_remembered_for_the_same_model_only(mlp: Path, profiling: Profiling) -> None:
    first, again = Engine(mlp), Engine(mlp)
    assert profiling(mlp, first.run) == profiling(mlp, again.run)
    assert (first.calls > 0, again.calls) == (True, 0)
    profiling(mlp, again.run, max_batch_size=2)
    profiling(mlp, again.run, engine="another")
    assert len(profiling.files()) == 3
    mlp.write_bytes(mlp.read_bytes() + b"\x72\x00")  # an empty field at the end: the same graph, other bytes
    profiling(mlp, again.run)
    assert len(profiling.files()) == 4


@pytest.mark.usefixtures("counted")
def test_a_profile_that_was_cut_short_is_not_remembered(mlp: Path, profiling: Profiling) -> None:
    engine = Engine(mlp)
    profiling(mlp, engine.run, whole=False)
    assert profiling.files() == []
    calls = engine.calls
    profiling(mlp, engine.run)
    assert engine.calls > calls
    assert len(profiling.files()) == 1


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("broken", [b"", b"{}", b'{"schema": 2}'])
def test_a_broken_file_is_replaced(mlp: Path, profiling: Profiling, broken: bytes) -> None:
    engine = Engine(mlp)
    profiling(mlp, engine.run)
    stored = profiling.files()[0]
    stored.write_bytes(broken)
    calls = engine.calls
    profiling(mlp, engine.run)
    assert engine.calls > calls
    assert msgspec.json.decode(stored.read_bytes(), type=BriefFile).schema == 2


@pytest.mark.usefixtures("counted")
def test_a_file_of_another_model_is_not_believed(mlp: Path, profiling: Profiling) -> None:
    engine = Engine(mlp)
    profiling(mlp, engine.run, engine="one")
    foreign = profiling.files()[0].read_bytes()
    profiling(mlp, engine.run, engine="two")
    for path in profiling.files():
        path.write_bytes(foreign)
    calls = engine.calls
    profiling(mlp, engine.run, engine="two")
    assert engine.calls > calls


def test_a_model_that_is_no_onnx_graph_has_neutral_features(tmp_path: Path, profiling: Profiling) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    brief = profiling(plan, lambda size: size * MS)
    assert brief.note == "features are neutral values, since model.plan is not an ONNX graph"
    assert {load.compute for load in brief.profile.loads} == {NEUTRAL_COMPUTE}
    assert len(profiling.files()) == 1


def test_a_failure_is_noted_and_tried_again(mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict[int, GraphWork]:
        raise ChildError("profiler.graph did not finish within 60 s")

    monkeypatch.setattr(source_module, "work_in_child", fail)
    brief = profiling(mlp, Engine(mlp).run)
    assert brief.note == "features are neutral values, since profiler.graph did not finish within 60 s"
    assert not profiling.files()


def test_an_incomplete_count_is_noted(mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        source_module, "work_in_child", lambda _, sizes, __: {n: GraphWork(1, 1, 1, complete=False) for n in sizes}
    )
    assert (
        profiling(mlp, Engine(mlp).run).note == "features are lower bounds, since some operators' shapes are not known"
    )


@pytest.mark.usefixtures("counted")
def test_the_lock_of_another_model_is_waited_for_only_so_long(
    mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brief_module, "LOCK_WAIT_S", 0.0)
    with exclusive(profiling.directory / "profiling.lock", 0.0):
        brief = profiling(mlp, Engine(mlp).run)
    assert isinstance(brief.profile, ModelProfile)
    assert brief.note == "latency may have been measured beside another model's measuring"
    assert not profiling.files()


@pytest.mark.usefixtures("counted")
def test_one_whose_run_does_not_end_holds_nobody_up(
    mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "STALLED_S", 0.5)
    engine, go_on = Engine(mlp), threading.Event()

    def stuck(size: int) -> int:
        go_on.wait(30.0)
        return engine.run(size)

    loading = threading.Thread(target=profiling, args=(mlp, stuck), kwargs={"engine": "stuck"})
    loading.start()
    try:
        while not (profiling.directory / "profiling.lock").exists():
            time.sleep(0.01)
        began_s = time.monotonic()
        brief = profiling(mlp, engine.run)
        assert time.monotonic() - began_s < 10.0
        assert brief.note == "latency may have been measured beside another model's measuring"
    finally:
        go_on.set()
        loading.join()
    assert profiling(mlp, engine.run).note is None


@pytest.mark.usefixtures("counted")
def test_a_folder_that_cannot_be_written_costs_only_the_memory(mlp: Path, tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "profiles").touch()
    brief = Profiling(tmp_path / "runtime")(mlp, Engine(mlp).run)
    assert brief.note is not None
    assert "the profile is not remembered" in brief.note


@pytest.mark.usefixtures("counted")
def test_remembered_profiles_are_bounded(mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brief_module, "FILES_MAX", 3)
    engine = Engine(mlp)
    for version in range(5):
        profiling(mlp, engine.run, engine=str(version))
    assert len(profiling.files()) == 3


def test_serving_code_does_not_load_the_onnx_library() -> None:
    code = "import sys, profiler.brief; sys.exit(any(name in sys.modules for name in ('onnx', 'onnxruntime')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=CODE_ROOT, check=False).returncode == 0
