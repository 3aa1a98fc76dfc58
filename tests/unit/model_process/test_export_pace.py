"""Intervals of the export of metrics, with answers and without."""

from __future__ import annotations

from itertools import pairwise

from backend.model_process.export_pace import BUSY_S, QUIET_S, ExportPace

LOOK_S = 0.05


def steps(pace: ExportPace, seconds: float, *, answers: bool, from_s: float = 100.0) -> list[float]:
    """Times of steps, checked every `LOOK_S`, with an answer before each check or none."""
    taken = []
    for i in range(round(seconds / LOOK_S)):
        now_s = from_s + i * LOOK_S
        if answers:
            pace.answered(now_s)
        if pace.take(now_s):
            taken.append(now_s)
    return taken


def test_a_quiet_model_takes_one_at_each_look() -> None:
    assert len(steps(ExportPace(), 2.0, answers=False)) == 40


def test_a_busy_one_takes_few() -> None:
    taken = steps(ExportPace(), 5.0, answers=True)
    assert len(taken) in (9, 10)
    assert all(later - earlier >= BUSY_S - 1e-6 for earlier, later in pairwise(taken))


def test_after_the_last_answer_it_waits_a_moment_at_most() -> None:
    pace = ExportPace()
    steps(pace, 5.0, answers=True, from_s=100.0)
    taken = steps(pace, 2.0, answers=False, from_s=105.0)
    assert taken[0] <= 105.0 + QUIET_S
    assert len(taken) >= (2.0 - QUIET_S) / LOOK_S - 2
