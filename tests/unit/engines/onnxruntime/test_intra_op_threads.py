"""A lane of several cores: an intra-op thread on each but the first, with the priority of the lane's thread."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from backend.engines.onnxruntime.cpu_engine import OnnxCpuEngine
from backend.linux.cpu_topology import cores
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.linux.low_priority import LowPriority
from tests.fakes.graphs import write_mlp
from tests.fakes.thread_priority import has_sys_nice, on_a_thread

pytestmark = pytest.mark.skipif(len(cores()) < 2, reason="a lane of several cores takes two")
X = np.arange(32, dtype=np.float32).reshape(2, 16)


def threads() -> set[int]:
    """Of this process."""
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def intra_op_threads(others: set[int]) -> dict[int, tuple[int, int]]:
    """By its core, the policy and niceness of each thread that has one core alone, but for the others."""
    ranks = {}
    for thread in threads() - others:
        affinity = os.sched_getaffinity(thread)
        if len(affinity) == 1:
            ranks[affinity.pop()] = os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)
    return ranks


def test_each_lane_has_intra_op_threads_and_answers_as_one_core_would(tmp_path: Path) -> None:
    first, second = cores()[:2]
    path, others = write_mlp(tmp_path), threads()
    narrow, wide = OnnxCpuEngine(path), OnnxCpuEngine(path, [[first, second], [second, first]])
    assert narrow.identity.endswith("1 thread per batch")
    assert wide.identity.endswith("2 threads per batch")
    assert intra_op_threads(others).keys() == {first, second}
    expected = narrow.run(0, {"x": [X]}, ["y"]).outputs[0]
    for lane in range(4):  # two of them in front
        found = wide.run(lane, {"x": [X]}, ["y"]).outputs[0]
        assert np.abs(found.astype(np.float64) - expected.astype(np.float64)).max() < 1e-4
    wide.close()
    assert not intra_op_threads(others)


def test_intra_op_threads_are_not_pinned_where_lanes_may_not_be(tmp_path: Path) -> None:
    path, others = write_mlp(tmp_path), threads()
    engine = OnnxCpuEngine(path, [cores()[:2]], pinned=False)
    assert engine.identity.endswith("2 threads per batch")
    assert len(threads() - others) == 1
    assert not intra_op_threads(others)
    engine.run(0, {"x": [X]}, ["y"])
    engine.close()


@pytest.mark.skipif(not has_sys_nice(), reason="this process lacks CAP_SYS_NICE")
def test_intra_op_threads_have_the_priority_of_the_lanes_thread(tmp_path: Path) -> None:
    first, second = cores()[:2]
    others = threads()
    engine = OnnxCpuEngine(write_mlp(tmp_path), [[first, second]])

    def ran(priority: ExecutionPriority, *, exclusive: bool = False) -> tuple[int, int]:
        engine.run(0, {"x": [X]}, ["y"], priority, exclusive=exclusive)
        return intra_op_threads(others)[second]

    def as_a_lane() -> list[tuple[int, int]]:
        behind, front = LowPriority(preemptible=True), LowPriority(preemptible=False)
        return [
            *(ran(ORDINARY_PRIORITY), ran(behind), ran(front)),
            *(ran(behind, exclusive=True), ran(ORDINARY_PRIORITY)),
        ]

    usual, idle, aside = (os.SCHED_OTHER, 0), os.SCHED_IDLE, (os.SCHED_OTHER, 10)
    ordinary, behind, front, exclusive, again = on_a_thread(as_a_lane)
    assert (ordinary, behind[0], front, exclusive[0], again) == (usual, idle, aside, idle, usual)
