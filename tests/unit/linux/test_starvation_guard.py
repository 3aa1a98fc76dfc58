"""What executes on a core that a stranger holds is helped, for the batch and a while, unless it is to stand still."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue

import pytest

from backend.linux.cpu_topology import cores
from backend.linux.execution_priority import ExecutionPriority
from backend.linux.low_priority import Aside
from backend.linux.starvation import Help
from backend.linux.starvation_guard import Guard
from backend.model_process.batch import Batch
from backend.model_process.lane_threads import Lanes
from tests.fakes.ranks import has_sys_nice, on_a_thread, rank
from tests.unit.linux.test_low_priority import limit

CORES = cores()
CORE = CORES[0]
pytestmark = [
    pytest.mark.skipif(len(CORES) < 2, reason="there is nowhere to go"),
    pytest.mark.skipif(not has_sys_nice(), reason="this process lacks CAP_SYS_NICE"),
]
Found = tuple[bool, int]
"""Whether the thread is pinned, and its policy."""
ASIDE, HELPED, ELSEWHERE = (True, os.SCHED_IDLE), (False, os.SCHED_OTHER), (False, os.SCHED_IDLE)


def now() -> Found:
    return os.sched_getaffinity(0) == {CORE}, rank()[0]


def lane(run: Callable[[Aside], list[Found]]) -> list[Found]:
    """What it finds on a lane's thread."""
    return on_a_thread(lambda: run(Aside(behind=True, core=CORE)))


def helped(by: Help) -> Callable[[Aside], list[Found]]:
    """In a batch that is helped, after it, and in the next two; the second comes when that is over."""

    def run(aside: Aside) -> list[Found]:
        with aside:
            assert aside.began_ns is not None
            assert not aside.help(by, aside.began_ns - 1)  # another batch
            assert aside.help(by, aside.began_ns)
            found = [now()]
        found.append(now())
        with aside:
            found.append(now())
        aside._until_ns = 0
        with aside:
            found.append(now())
        return found

    return run


def test_help_lasts_for_a_while() -> None:
    assert lane(helped(Help.RISE)) == [HELPED, HELPED, HELPED, ASIDE]
    assert lane(helped(Help.MOVE)) == [ELSEWHERE, HELPED, ELSEWHERE, ASIDE]


def test_what_another_batch_goes_before_stands_still_helped_or_not() -> None:
    def run(aside: Aside) -> list[Found]:
        with aside:
            aside.help(Help.RISE, aside.began_ns or 0)
            aside.suspend()
            found = [now()]
        aside.suspended = False
        with aside:
            return [*found, now()]

    assert lane(run) == [ASIDE, ASIDE]


@contextmanager
def stranger(core: int = CORE) -> Iterator[None]:
    """One that holds the core, of this process's session."""
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as process:
        try:
            os.sched_setaffinity(process.pid, {core})
            yield
        finally:
            process.kill()


@pytest.mark.alone
@pytest.mark.parametrize(("suspended", "least_s", "most_s"), [(False, 0.0, 0.9), (True, 0.99, 4.0)])
def test_a_stranger_on_its_core_is_noticed(suspended: bool, least_s: float, most_s: float) -> None:
    guard, batch = Guard(), bytes(100_000_000)  # some 60 ms of work that holds no lock

    def run(aside: Aside) -> list[Found]:
        guard.watch(aside, lambda: 1)
        guard.notice()
        began_s = time.monotonic()
        with aside:
            if suspended:
                aside.suspend()
            hashlib.sha256(batch).digest()
            found = [now()]
        assert least_s < time.monotonic() - began_s < most_s
        return found

    with stranger():
        assert lane(run) in ([HELPED], [ELSEWHERE])
    guard.close()


@pytest.mark.alone
@pytest.mark.parametrize("begins_after_s", [0.0, 1.0])
def test_what_cannot_come_back_is_run_by_another_thread_too(
    monkeypatch: pytest.MonkeyPatch, begins_after_s: float
) -> None:
    """A process without CAP_SYS_NICE, and a stranger on each core, which may keep a thread from beginning, too."""
    limit(monkeypatch, policies=lambda policy: policy == os.SCHED_IDLE, niceness=lambda value: value > 0)
    content, ended = bytes(50_000_000), SimpleQueue[tuple[Batch, int]]()

    def work(batch: Batch, executing: ExecutionPriority) -> None:
        time.sleep(begins_after_s)
        with executing:
            hashlib.sha256(content).digest()
            ended.put((batch, rank()[0]))

    lanes = Lanes(len(CORES), work, CORES, runs_again=True)
    given = [Batch(i, 0, (), None, 0) for i in range(2)]
    with ExitStack() as strangers:
        for core in CORES:
            strangers.enter_context(stranger(core))
        for batch in given:
            lanes.submit(batch)
            again, policy = ended.get(timeout=30.0)
            while again.id != batch.id:  # the first one's own, which ended at last
                again, policy = ended.get(timeout=30.0)
            assert policy == os.SCHED_OTHER
    lanes.close()


def test_the_thread_ends_with_its_guard() -> None:
    guard = Guard()

    def run(aside: Aside) -> list[Found]:
        guard.watch(aside, lambda: 1)
        return []

    lane(run)
    guard.close()
    assert guard._thread is not None
    assert not guard._thread.is_alive()
