"""Work of a graph, counted in a child process, and what can go wrong with that."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from profiler.child import ChildError, run_module
from profiler.feature_source import feature_source
from profiler.gpu_peaks import gpu_peaks
from profiler.graph import graph_work
from profiler.work import work_in_child
from tests.fakes.driver import A100
from tests.fakes.graphs import write_mlp


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    return write_mlp(tmp_path)


def test_child_answers_as_this_process_does(mlp: Path) -> None:
    assert work_in_child(mlp, [1, 2, 8]) == {size: graph_work(mlp, size) for size in (1, 2, 8)}


def test_child_names_what_failed(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a graph")
    with pytest.raises(ChildError, match=r"^profiler\.graph failed with status 1: \w"):
        work_in_child(tmp_path / "m.onnx", [1])


def test_child_that_cannot_start() -> None:
    with pytest.raises(ChildError, match="could not be started with /nowhere/python: No such file"):
        run_module("profiler.graph", [], timeout_s=1, python="/nowhere/python")


def test_child_that_does_not_end() -> None:
    with pytest.raises(ChildError, match="did not finish within"):
        run_module("profiler.graph", [], timeout_s=0.001)


def test_a_child_is_waited_for_in_the_context_that_is_asked_for(mlp: Path) -> None:
    states = []

    @contextmanager
    def attend(child: subprocess.Popen[bytes]) -> Iterator[None]:
        states.append(child.poll())
        yield
        states.append(child.poll())

    source = feature_source(mlp, [1], lambda: gpu_peaks(A100), attend=attend)
    assert source.name == "estimate"
    assert states == [None, 0]


def test_a_child_that_is_broken_off_leaves_nothing_that_it_started(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    under = ("sh", "-c", f"sleep 60 & echo $! > {started}; wait")
    with pytest.raises(ChildError, match=r"^profiler.graph did not finish within 1 s$"):
        run_module("profiler.graph", [], timeout_s=1, under=under)
    state = Path(f"/proc/{int(started.read_text())}/stat")
    give_up_s = time.monotonic() + 20
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < give_up_s, "it still runs"
        time.sleep(0.01)
