"""The guard's thread starts with the first thread that it watches, and ends when the guard is closed."""

from __future__ import annotations

from backend.linux.low_priority import LowPriority
from backend.linux.starvation_guard import StarvationGuard
from tests.fakes.thread_priority import on_a_thread


def test_the_thread_ends_with_its_guard() -> None:
    guard = StarvationGuard()
    on_a_thread(lambda: guard.watch(LowPriority(preemptible=True), lambda: 1))
    assert guard._thread is not None
    assert guard._thread.is_alive()
    guard.close()
    assert not guard._thread.is_alive()
