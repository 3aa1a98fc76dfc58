"""Whether a thread that executes a batch is helped, by how much of the CPU it had."""

from __future__ import annotations

import pytest

from backend.linux.starvation import SUSPENDED_NS, WINDOW_NS, Help, help_for

MS = 1_000_000


@pytest.mark.parametrize(
    ("wall_ms", "cpu_ms", "core_free", "expected"),
    [
        (10, 10.0, True, Help.NONE),
        (10, 6.5, True, Help.NONE),  # a legitimate slice of what hands requests in and answers out
        (10, 5.0, True, Help.MOVE),  # half of a core, beside a free one
        (10, 5.0, False, Help.NONE),
        (10, 2.0, False, Help.RISE),
        (10, 0.0, True, Help.RISE),
        (9, 0.0, True, Help.NONE),  # too early to tell
        (31, 0.0, True, Help.NONE),  # whoever looks was kept waiting as well
    ],
)
def test_who_lacks_the_cpu_is_helped(wall_ms: int, cpu_ms: float, core_free: bool, expected: Help) -> None:
    assert help_for(wall_ms * MS, round(cpu_ms * MS), turns=1, suspended=False, core_free=core_free) is expected


@pytest.mark.parametrize(("turns", "expected"), [(1, Help.RISE), (2, Help.MOVE), (4, Help.NONE)])
def test_a_turn_of_a_core_is_a_share_of_it(turns: int, expected: Help) -> None:
    assert help_for(WINDOW_NS, WINDOW_NS // 5, turns=turns, suspended=False, core_free=True) is expected


def test_what_is_suspended_is_left_alone_for_long() -> None:
    assert help_for(SUSPENDED_NS - 1, 0, turns=1, suspended=True, core_free=True) is Help.NONE
    assert help_for(SUSPENDED_NS, 0, turns=1, suspended=True, core_free=True) is Help.RISE
