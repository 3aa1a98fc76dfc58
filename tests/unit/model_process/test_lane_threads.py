"""Cores and priorities of the lanes' threads: a core of its own for each lane, else one in rotation."""

from __future__ import annotations

import os
import threading

import pytest

from backend.linux.cpu_topology import cores, lane_cores
from backend.linux.execution_priority import ExecutionPriority
from backend.model_process.batch import Batch
from backend.model_process.lane_threads import Lanes
from backend.scheduler.messages import BatchTimes, Launch
from tests.fakes.thread_priority import policy_and_niceness


def affinities(count: int, pinned_to: list[int] | None) -> list[set[int]]:
    """CPU affinities of the lanes' threads, as seen by a batch on each."""
    found: dict[int, set[int]] = {}
    done = threading.Semaphore(0)

    def work(batch: Batch, _executing: ExecutionPriority) -> None:
        found[batch.lane] = os.sched_getaffinity(0)
        done.release()

    lanes = Lanes(count, work, pinned_to)
    for lane in range(count):
        lanes.submit(Batch(lane, lane, (), None, 0))
    for _ in range(count):
        assert done.acquire(timeout=10.0)
    lanes.close()
    return [found[lane] for lane in range(count)]


def test_a_lane_has_a_core_of_its_own_while_there_are_enough() -> None:
    assert affinities(len(cores()), cores()) == [{core} for core in cores()]
    assert affinities(1, cores()) == [{cores()[0]}]


@pytest.mark.parametrize(
    ("lanes", "expected"),
    [
        (1, [[4, 5, 6, 7, 8]]),
        (2, [[4, 5], [6, 7]]),
        (5, [[4], [5], [6], [7], [8]]),
        (7, [[4], [5], [6], [7], [8], [4], [5]]),
    ],
)
def test_fewer_lanes_than_cores_share_them_out(
    lanes: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {4, 5, 6, 7, 8})
    assert lane_cores(lanes) == expected


def test_a_preempting_batch_runs_at_a_higher_priority_than_the_other_on_its_core() -> None:
    count, policies = len(cores()), dict[bool, tuple[int, int]]()
    done = threading.Semaphore(0)

    def work(batch: Batch, executing: ExecutionPriority) -> None:
        with executing:
            policies[batch.preempts] = policy_and_niceness()
        done.release()

    lanes = Lanes(count, work, cores())
    assert len(lanes) == count
    for lane in range(count):
        for preempts in (False, True):
            launch = Launch(1, 1, lane, preempts, (), BatchTimes(1, 1, 1), "launch", 0)
            lanes.submit(Batch(1, lane, (), launch, 0))
            assert done.acquire(timeout=10.0)
    lanes.close()
    assert policies[False][0] == os.SCHED_IDLE
    assert policies[True] == (os.SCHED_OTHER, 10)


def test_more_lanes_than_cores_are_spread_over_them() -> None:
    assert affinities(2 * len(cores()) + 1, cores()) == [{core} for core in [*cores(), *cores(), cores()[0]]]


def test_lanes_without_cores_are_not_pinned() -> None:
    assert affinities(3, None) == [set(cores())] * 3
