"""What is to be expected at one instant if a batch is launched: of the batch itself, and of those that run.

The questions that `backend.scheduler.policy` asks before it decides. Nothing is decided or changed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from backend.scheduler.forecast import forecast_finishes
from backend.scheduler.messages import Request
from backend.scheduler.progress import MIN_SLOWDOWN, Progress, slowdowns
from backend.scheduler.state import Source
from predictor.features import Own, Sums, contribution
from predictor.response import Mask, Response, Vector, shared
from predictor.workload import Load

if TYPE_CHECKING:
    from backend.scheduler.policy import Policy


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch to launch."""

    source: Source
    requests: tuple[Request, ...]
    own: Own
    predicted_ns: int
    decision: Literal["launch", "split"] = "launch"

    @property
    def load(self) -> Load:
        return self.own.load


class Forecast:
    """What is to be expected at one instant: of the running batches alone, and with a candidate beside them."""

    def __init__(self, policy: Policy, progress: Progress, sums: Sums, now_ns: int, contended: bool) -> None:
        self._policy, self._progress, self._sums, self.now_ns = policy, progress, sums, now_ns
        self._margin = policy.bound.multiplier
        self._shared = shared(sums)
        self._slowdowns: dict[tuple[int, int], float] = {}
        self._could: Mask | None = None
        self._baseline: Vector | None = None
        self._with: tuple[Choice, Vector] | None = None
        self.idle = not len(progress)
        self.contended = contended

    def choice(self, source: Source, requests: tuple[Request, ...], available: int | None = None) -> Choice:
        """A launch of these requests, with the execution predicted beside what runs now."""
        rows = sum(r.rows for r in requests)
        split = available is not None and len(requests) < available
        predicted_ns = max(1, round(self._predicted_ns(source, rows)))
        return Choice(source, requests, source.own(rows), predicted_ns, "split" if split else "launch")

    def misses(self, source: Source, request: Request) -> bool:
        """Whether the request is predicted to miss its deadline if it is launched now, in a batch of its own."""
        if request.deadline_ns is None:
            return False
        expected_ns = self.now_ns + self._predicted_ns(source, request.rows) + self._policy.overhead_ns
        return expected_ns > request.deadline_ns

    def fitting(self, source: Source, members: tuple[Request, ...]) -> int:
        """How many of `members`, from the first, meet the tightest deadline among them; at least 1."""
        rows, fits, tightest = 0, 1, None
        for i, request in enumerate(members):
            rows += request.rows
            tightest = _tighter(tightest, request.deadline_ns)
            if tightest is None or self._ends_ns(self._predicted_ns(source, rows)) <= tightest:
                fits = i + 1
        return fits

    def harms(self, choice: Choice) -> bool:
        """Whether a running batch of the same or a higher class that makes its deadline newly misses it."""
        threatened = self._threatened(choice)
        if not threatened.any():
            return False
        due_ns = self._progress.due_ns
        missing = threatened & (self._end_of(self._beside(choice)[:-1]) > due_ns)
        return bool(missing.any()) and bool((self._end_of(self._alone())[missing] <= due_ns[missing]).any())

    def _threatened(self, choice: Choice) -> Mask:
        """(n,) true where the timeline matters: it would make it alone, but not if nobody beside it finished.

        A finish is taken to slow nobody down.
        """
        progress = self._progress
        if self._could is None:
            self._could = self._end_of(progress.remaining_ns * progress.alone) <= progress.due_ns
        could: Mask = self._could & (progress.priorities <= min(r.priority for r in choice.requests))
        if not could.any():
            return could
        sums = np.add(self._sums, contribution(choice.own.batch_size, choice.load))
        worst_ns = progress.remaining_ns * slowdowns(progress.responses, sums)
        return np.logical_and(could, self._end_of(worst_ns) > progress.due_ns)

    def better_later(self, choice: Choice) -> bool:
        """Whether the batch misses its deadline launched now, but makes it launched at the next finish."""
        deadline_ns = None
        for request in choice.requests:
            deadline_ns = _tighter(deadline_ns, request.deadline_ns)
        if deadline_ns is None or self._ends_ns(choice.predicted_ns) <= deadline_ns:
            return False
        if self._ends_ns(float(self._beside(choice)[-1])) <= deadline_ns:
            return False
        alone = self._alone()
        first = int(alone.argmin())
        left = np.subtract(self._sums, self._progress.adds[first]).tolist()
        slowdown = max(MIN_SLOWDOWN, self._response(choice).slowdown(left))
        return self._ends_ns(float(alone[first]) + choice.load.solo_ns * slowdown) <= deadline_ns

    def _predicted_ns(self, source: Source, rows: int) -> float:
        """A batch of so many rows beside what runs now."""
        own = source.own(rows)
        slowdown = self._slowdowns.get((source.id, rows))
        if slowdown is None:
            slowdown = self._policy.response(source.id, own).slowdown_at(self._shared, self._sums)
            slowdown = slowdown if slowdown > MIN_SLOWDOWN else MIN_SLOWDOWN
            self._slowdowns[source.id, rows] = slowdown
        return own.load.solo_ns * slowdown

    def _ends_ns(self, predicted_ns: float) -> float:
        """The instant that a span from now is over by, with the bound's margin and the cost around it."""
        return self.now_ns + predicted_ns * self._margin + self._policy.overhead_ns

    def _end_of(self, spans_ns: Vector) -> Vector:
        """`_ends_ns` of many, from now on: a nanosecond of a clock that far from 0 is beyond a float's digits."""
        return spans_ns * self._margin + self._policy.overhead_ns

    def _alone(self) -> Vector:
        if self._baseline is None:
            progress = self._progress
            self._baseline = forecast_finishes(progress.remaining_ns, progress.adds, progress.responses)
        return self._baseline

    def _beside(self, choice: Choice) -> Vector:
        """The running batches' finishes, then the candidate's."""
        if self._with is None or self._with[0] is not choice:
            rows = self._progress.beside(choice.own, self._response(choice))
            self._with = (choice, forecast_finishes(*rows))
        return self._with[1]

    def _response(self, choice: Choice) -> Response:
        return self._policy.response(choice.source.id, choice.own)


def _tighter(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)
