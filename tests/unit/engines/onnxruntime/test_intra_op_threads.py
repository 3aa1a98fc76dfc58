"""A lane of several cores: a helper on each but the first, which goes before others or after them as the lane does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from backend.engines.onnxruntime.cpu_engine import OnnxEngine
from backend.engines.protocol import AS_IT_IS, Alone, Executing
from backend.linux.cpu_topology import cores
from backend.linux.low_priority import LowPriority
from tests.fakes.graphs import write_mlp
from tests.fakes.thread_priority import has_sys_nice, on_a_thread

pytestmark = pytest.mark.skipif(len(cores()) < 2, reason="a team takes two cores")
X = np.arange(32, dtype=np.float32).reshape(2, 16)


def threads() -> set[int]:
    """Of this process."""
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def helpers(others: set[int]) -> dict[int, tuple[int, int]]:
    """By its core, the policy and niceness of each thread that has one core alone, but for the others."""
    ranks = {}
    for thread in threads() - others:
        affinity = os.sched_getaffinity(thread)
        if len(affinity) == 1:
            ranks[affinity.pop()] = os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)
    return ranks


def test_each_lane_has_its_own_and_answers_as_one_core_would(tmp_path: Path) -> None:
    first, second = cores()[:2]
    path, others = write_mlp(tmp_path), threads()
    narrow, teams = OnnxEngine(path), OnnxEngine(path, [[first, second], [second, first]])
    assert narrow.identity.endswith("1 thread per batch")
    assert teams.identity.endswith("2 threads per batch")
    assert helpers(others).keys() == {first, second}
    expected = narrow.run(0, {"x": [X]}, ["y"]).outputs[0]
    for lane in range(4):  # two of them in front
        found = teams.run(lane, {"x": [X]}, ["y"]).outputs[0]
        assert np.abs(found.astype(np.float64) - expected.astype(np.float64)).max() < 1e-4
    teams.close()
    assert not helpers(others)


def test_where_lanes_may_not_be_pinned_helpers_go_where_they_like(tmp_path: Path) -> None:
    path, others = write_mlp(tmp_path), threads()
    engine = OnnxEngine(path, [cores()[:2]], pinned=False)
    assert engine.identity.endswith("2 threads per batch")
    assert len(threads() - others) == 1
    assert not helpers(others)
    engine.run(0, {"x": [X]}, ["y"])
    engine.close()


@pytest.mark.skipif(not has_sys_nice(), reason="this process lacks CAP_SYS_NICE")
def test_helpers_go_before_others_or_after_them_as_the_lanes_thread_does(tmp_path: Path) -> None:
    first, second = cores()[:2]
    others = threads()
    engine = OnnxEngine(write_mlp(tmp_path), [[first, second]])

    def ran(executing: Executing) -> tuple[int, int]:
        engine.run(0, {"x": [X]}, ["y"], executing)
        return helpers(others)[second]

    def as_a_lane() -> list[tuple[int, int]]:
        behind, front = LowPriority(preemptible=True), LowPriority(preemptible=False)
        return [ran(executing) for executing in (AS_IT_IS, behind, front, Alone(behind), AS_IT_IS)]

    usual, idle, aside = (os.SCHED_OTHER, 0), os.SCHED_IDLE, (os.SCHED_OTHER, 10)
    as_it_is, behind, front, alone, again = on_a_thread(as_a_lane)
    assert (as_it_is, behind[0], front, alone[0], again) == (usual, idle, aside, idle, usual)
