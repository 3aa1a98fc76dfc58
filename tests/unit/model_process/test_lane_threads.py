"""Where a lane's thread may run: a core of its own while there are enough, else one by turns."""

from __future__ import annotations

import os
import threading

import pytest

from backend.linux.cpu_topology import cores, lane_cores
from backend.linux.execution_priority import ExecutionPriority
from backend.model_process.batch import Batch
from backend.model_process.lane_threads import Lanes
from tests.fakes.ranks import rank


def affinities(count: int, pinned_to: list[int] | None) -> list[set[int]]:
    """Of each lane's thread, as the batch that runs on it sees them."""
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


def test_what_runs_in_front_goes_before_the_other_on_its_core() -> None:
    count, policies = len(cores()), dict[int, tuple[int, int]]()
    done = threading.Semaphore(0)

    def work(batch: Batch, executing: ExecutionPriority) -> None:
        with executing:
            policies[batch.lane] = rank()
        done.release()

    lanes = Lanes(count, work, cores())
    assert len(lanes) == count
    for lane in range(2 * count):
        lanes.submit(Batch(lane, lane, (), None, 0))
        assert done.acquire(timeout=10.0)
    lanes.close()
    behind, front = policies[0], policies[count]
    assert behind[0] == os.SCHED_IDLE
    assert front == (os.SCHED_OTHER, 10)


def test_more_lanes_than_cores_are_spread_over_them() -> None:
    assert affinities(2 * len(cores()) + 1, cores()) == [{core} for core in [*cores(), *cores(), cores()[0]]]


def test_lanes_that_are_no_cores_go_where_they_like() -> None:
    assert affinities(3, None) == [set(cores())] * 3
