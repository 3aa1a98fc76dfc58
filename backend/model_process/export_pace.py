"""When metrics may be exported. No clock: times are seconds of one, given by the caller.

A metrics call wakes tritonserver and waits for it, on cores that models want. So while answers go out a step of them is
taken now and then, and at each look once there was none for a while.
"""

from __future__ import annotations

from math import inf

BUSY_S = 0.5
"""Between two steps while answers go out."""
QUIET_S = 0.25
"""Without an answer, from when on they go out no more."""


class ExportPace:
    """Of one model."""

    def __init__(self) -> None:
        self._answered_s = self._exported_s = -inf

    def answered(self, now_s: float) -> None:
        """An answer went out."""
        self._answered_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether a step is due; it is taken then."""
        due = now_s - self._answered_s >= QUIET_S or now_s - self._exported_s >= BUSY_S
        if due:
            self._exported_s = now_s
        return due
