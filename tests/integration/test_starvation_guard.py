"""A batch on a core that a foreign process holds is boosted, unless it is suspended for another model's batch."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue

import pytest

from backend.linux.cpu_topology import cores
from backend.linux.execution_priority import ExecutionPriority
from backend.linux.low_priority import LowPriority
from backend.linux.starvation_guard import StarvationGuard
from backend.model_process.batch import Batch
from backend.model_process.lane_threads import Lanes
from tests.fakes.thread_priority import has_sys_nice, limit_priorities, on_a_thread, policy_and_niceness

CORES = cores()
CORE = CORES[0]
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(len(CORES) < 2, reason="there is no other core"),
    pytest.mark.skipif(not has_sys_nice(), reason="this process lacks CAP_SYS_NICE"),
]


@contextmanager
def foreign_process(core: int = CORE) -> Iterator[None]:
    """One that keeps the core busy, in this process's session."""
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as process:
        try:
            os.sched_setaffinity(process.pid, {core})
            yield
        finally:
            process.kill()


@pytest.mark.parametrize(("suspended", "least_s", "most_s"), [(False, 0.0, 0.9), (True, 0.99, 4.0)])
def test_a_batch_beside_a_foreign_process_is_boosted(suspended: bool, least_s: float, most_s: float) -> None:
    guard, batch = StarvationGuard(), bytes(100_000_000)  # some 60 ms of work that holds no lock

    def run() -> bool:
        low = LowPriority(preemptible=True, core=CORE)
        guard.watch(low, lambda: 1)
        guard.wake()
        began_s = time.monotonic()
        with low:
            if suspended:
                low.suspend()
            hashlib.sha256(batch).digest()
            is_pinned = os.sched_getaffinity(0) == {CORE}
        assert least_s < time.monotonic() - began_s < most_s
        return is_pinned

    with foreign_process():
        assert not on_a_thread(run)
    guard.close()


@pytest.mark.parametrize("begins_after_s", [0.0, 1.0])
def test_a_batch_that_cannot_be_raised_is_run_by_another_thread_too(
    monkeypatch: pytest.MonkeyPatch, begins_after_s: float
) -> None:
    """In a process without CAP_SYS_NICE, beside a foreign process on each core, which may starve a thread before its
    batch begins, too.
    """
    limit_priorities(monkeypatch, policies=lambda policy: policy == os.SCHED_IDLE, niceness=lambda value: value > 0)
    content, ended = bytes(50_000_000), SimpleQueue[tuple[Batch, int]]()

    def work(batch: Batch, executing: ExecutionPriority) -> None:
        time.sleep(begins_after_s)
        with executing:
            hashlib.sha256(content).digest()
            ended.put((batch, policy_and_niceness()[0]))

    lanes = Lanes(len(CORES), work, CORES, runs_again=True)
    given = [Batch(i, 0, (), None, 0) for i in range(2)]
    with ExitStack() as foreign:
        for core in CORES:
            foreign.enter_context(foreign_process(core))
        for batch in given:
            lanes.submit(batch)
            again, policy = ended.get(timeout=30.0)
            while again.id != batch.id:  # the first one's own, which ended at last
                again, policy = ended.get(timeout=30.0)
            assert policy == os.SCHED_OTHER
    lanes.close()
