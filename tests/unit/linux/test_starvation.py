"""Boosts of a thread that executes a batch, by the CPU time that it had."""

from __future__ import annotations

import pytest

from backend.linux.starvation import SUSPENDED_NS, WINDOW_NS, Boost, boost_for

MS = 1_000_000


@pytest.mark.parametrize(
    ("wall_ms", "cpu_ms", "core_free", "expected"),
    [
        (10, 10.0, True, Boost.NONE),
        (10, 6.5, True, Boost.NONE),  # a legitimate slice of threads that read requests and send answers
        (10, 5.0, True, Boost.MIGRATE),  # half of a core while another is free
        (10, 5.0, False, Boost.NONE),
        (10, 2.0, False, Boost.RAISE),
        (10, 0.0, True, Boost.RAISE),
        (9, 0.0, True, Boost.NONE),  # too early to tell
        (31, 0.0, True, Boost.NONE),  # the guard was kept waiting as well
    ],
)
def test_a_thread_that_lacks_the_cpu_is_boosted(wall_ms: int, cpu_ms: float, core_free: bool, expected: Boost) -> None:
    boost = boost_for(wall_ms * MS, round(cpu_ms * MS), threads_on_core=1, suspended=False, core_free=core_free)
    assert boost is expected


@pytest.mark.parametrize(("threads_on_core", "expected"), [(1, Boost.RAISE), (2, Boost.MIGRATE), (4, Boost.NONE)])
def test_threads_on_a_core_have_a_right_to_equal_shares(threads_on_core: int, expected: Boost) -> None:
    assert (
        boost_for(WINDOW_NS, WINDOW_NS // 5, threads_on_core=threads_on_core, suspended=False, core_free=True)
        is expected
    )


def test_a_suspended_thread_is_boosted_late() -> None:
    assert boost_for(SUSPENDED_NS - 1, 0, threads_on_core=1, suspended=True, core_free=True) is Boost.NONE
    assert boost_for(SUSPENDED_NS, 0, threads_on_core=1, suspended=True, core_free=True) is Boost.RAISE
