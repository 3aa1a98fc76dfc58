"""Pace of the export of metrics. Has no clock: the caller passes times in seconds.

A metrics call wakes tritonserver and waits for it, on cores that models want. So while answers are sent, a step of them
is taken now and then, and at each check once there was none for a while.
"""

from __future__ import annotations

from math import inf

BUSY_S = 0.5
"""Time between two steps while answers are sent."""
QUIET_S = 0.25
"""Time without an answer after which the model counts as idle."""


class ExportPace:
    """Pace of one model's export."""

    def __init__(self) -> None:
        self._answered_s = self._exported_s = -inf

    def answered(self, now_s: float) -> None:
        """Note that an answer was sent."""
        self._answered_s = now_s

    def take(self, now_s: float) -> bool:
        """True where a step is due, which is counted as taken."""
        due = now_s - self._answered_s >= QUIET_S or now_s - self._exported_s >= BUSY_S
        if due:
            self._exported_s = now_s
        return due
