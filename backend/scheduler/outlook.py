"""What is to be expected at one instant if a batch is launched: of the batch itself, and of those that run.

The questions that `backend.scheduler.policy` asks before it decides. Nothing is decided or changed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from backend.scheduler.forecast import forecast_finishes
from backend.scheduler.messages import Request
from backend.scheduler.progress import MIN_SLOWDOWN, Progress, column, slowdowns
from backend.scheduler.state import BatchKey, Source
from backend.scheduler.traffic import Passage
from predictor.features import Own, Sums, contribution
from predictor.response import Mask, Response, Vector, shared
from predictor.workload import Load

if TYPE_CHECKING:
    from backend.scheduler.policy import Policy


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch to launch. predicted_ns: its execution, between the transfers of its inputs and outputs."""

    source: Source
    requests: tuple[Request, ...]
    own: Own
    predicted_ns: int
    decision: Literal["launch", "split"] = "launch"
    transfer_in_ns: int = 0
    transfer_out_ns: int = 0

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
        self._could: dict[int, Mask] = {}
        self._alone: Vector | None = None
        self._timelines: dict[tuple[int, int], Vector] = {}
        self._moving: dict[tuple[int, int], tuple[Mapping[BatchKey, Passage], Passage]] = {}
        self.idle = not len(progress)
        self.contended = contended

    def choice(self, source: Source, requests: tuple[Request, ...], available: int | None = None) -> Choice:
        """A launch of these requests, with the execution predicted beside what runs now."""
        rows = sum(r.rows for r in requests)
        split = available is not None and len(requests) < available
        predicted_ns = max(1, round(self._predicted_ns(source, rows)))
        in_ns, out_ns = (0, 0) if source.cargo is None else map(round, self._moves(source, rows)[1])
        return Choice(source, requests, source.own(rows), predicted_ns, "split" if split else "launch", in_ns, out_ns)

    def timely(self, source: Source, requests: Iterable[Request]) -> Iterator[Request]:
        """Those predicted to make their deadline if launched now, each in a batch of its own."""
        ends_ns: dict[int, float] = {}
        for request in requests:
            if request.deadline_ns is not None:
                rows = request.rows
                if rows not in ends_ns:
                    ends_ns[rows] = self.now_ns + self._predicted_ns(source, rows) + self._around_ns(source, rows)
                if ends_ns[rows] > request.deadline_ns:
                    continue
            yield request

    def fitting(self, source: Source, members: tuple[Request, ...]) -> int:
        """How many of `members`, from the first, meet the tightest deadline among them; at least 1."""
        rows, fits, tightest = 0, 1, None
        for i, request in enumerate(members):
            rows += request.rows
            tightest = _tighter(tightest, request.deadline_ns)
            if tightest is None or self._ends_ns(source, rows, self._predicted_ns(source, rows)) <= tightest:
                fits = i + 1
        return fits

    def may_harm(self, choice: Choice) -> bool:
        """Whether a running batch would newly miss its deadline if nobody beside it finished.

        A finish is taken to slow nobody down: what is harmless so needs no timeline.
        """
        threatened = self._threatened(choice)
        if not threatened.any():
            return False
        sums = np.add(self._sums, contribution(choice.own.batch_size, choice.load))
        return bool((slowdowns(self._progress.responses, sums) > self._bearable_beside(choice))[threatened].any())

    def harms(self, choice: Choice) -> bool:
        """Whether a running batch of the same or a higher class that makes its deadline newly misses it."""
        if _kind(choice) not in self._timelines and not self.may_harm(choice):
            return False
        self.follow((choice,))
        assert self._alone is not None
        beside = self._timelines[_kind(choice)][:-1]
        missing = self._threatened(choice) & (self._end_of(beside) > self._due_beside(choice))
        return bool((self._end_of(self._alone) <= self._due_ns)[missing].any())

    def follow(self, choices: Sequence[Choice]) -> None:
        """The timelines with each of them, and the one with none, all at once."""
        kinds = {_kind(choice): choice for choice in choices if _kind(choice) not in self._timelines}
        columns = [column(choice.own, self._response(choice)) for choice in kinds.values()]
        if not columns:
            return
        if self._alone is not None:
            self._timelines.update(zip(kinds, forecast_finishes(*self._progress.beside(columns)), strict=True))
            return
        first, *others = forecast_finishes(*self._progress.beside([None, *columns]))
        self._alone = first[:-1]
        self._timelines.update(zip(kinds, others, strict=True))

    def _threatened(self, choice: Choice) -> Mask:
        """(n,) true where a batch of the same or a higher class would make its deadline without any neighbour."""
        priority = min(r.priority for r in choice.requests)
        found = self._could.get(priority)
        if found is None:
            found = (self._progress.alone <= self._bearable) & (self._progress.priorities <= priority)
            self._could[priority] = found
        return found

    @cached_property
    def _bearable(self) -> Vector:
        """(n,) slowdown from here on with which each running batch still makes its deadline."""
        return self._bearable_until(self._due_ns)

    def _bearable_beside(self, choice: Choice) -> Vector:
        """The same where the choice's transfers hold up theirs."""
        due_ns = self._due_beside(choice)
        return self._bearable if due_ns is self._due_ns else self._bearable_until(due_ns)

    def _bearable_until(self, due_ns: Vector) -> Vector:
        spans_ns = (due_ns - self._policy.overhead_ns) / self._margin
        bearable: Vector = spans_ns / self._progress.remaining_ns
        return bearable

    @cached_property
    def _due_ns(self) -> Vector:
        """(n,) from now on: what the deadline of each running batch leaves to its execution."""
        due_ns, passing_ns = self._progress.due_ns, self._passing_ns
        return due_ns if passing_ns is None else due_ns - passing_ns

    def _due_beside(self, choice: Choice) -> Vector:
        """The same with the choice's transfers beside theirs."""
        if self._passing_ns is None or choice.source.cargo is None:
            return self._due_ns
        beside, _ = self._moves(choice.source, choice.own.batch_size)
        return self._progress.due_ns - self._progress.passing_ns(beside)

    @cached_property
    def _passing_ns(self) -> Vector | None:
        """(n,) what the transfers of each running batch still take; None where nothing is moved."""
        progress = self._progress
        return progress.passing_ns(progress.passages()[0]) if progress.traffic else None

    def better_later(self, choice: Choice) -> bool:
        """Whether the batch misses its deadline launched now, but makes it launched at the next finish."""
        deadline_ns = None
        for request in choice.requests:
            deadline_ns = _tighter(deadline_ns, request.deadline_ns)
        source, rows = choice.source, choice.own.batch_size
        if deadline_ns is None or self._ends_ns(source, rows, choice.predicted_ns) <= deadline_ns:
            return False
        self.follow((choice,))
        assert self._alone is not None
        if self._ends_ns(source, rows, float(self._timelines[_kind(choice)][-1])) <= deadline_ns:
            return False
        gone = self._alone if self._passing_ns is None else self._alone + self._passing_ns
        first = int(gone.argmin())
        left = np.subtract(self._sums, self._progress.adds[:, first]).tolist()
        slowdown = max(MIN_SLOWDOWN, self._response(choice).slowdown(left))
        return self._ends_ns(source, rows, float(gone[first]) + choice.load.solo_ns * slowdown) <= deadline_ns

    def _predicted_ns(self, source: Source, rows: int) -> float:
        """A batch of so many rows beside what runs now."""
        own = source.own(rows)
        slowdown = self._slowdowns.get((source.id, rows))
        if slowdown is None:
            slowdown = self._policy.response(source.id, own).slowdown_at(self._shared, self._sums)
            slowdown = slowdown if slowdown > MIN_SLOWDOWN else MIN_SLOWDOWN
            self._slowdowns[source.id, rows] = slowdown
        return own.load.solo_ns * slowdown

    def _ends_ns(self, source: Source, rows: int, predicted_ns: float) -> float:
        """The instant that such a batch is over by, with the bound's margin and what is around its execution."""
        return self.now_ns + predicted_ns * self._margin + self._around_ns(source, rows)

    def _around_ns(self, source: Source, rows: int) -> float:
        """What a batch takes beside its execution: its transfers, and the learned cost."""
        overhead_ns = self._policy.overhead_ns
        if source.cargo is None:
            return overhead_ns
        _, own = self._moves(source, rows)
        return overhead_ns + own.both_ns

    def _moves(self, source: Source, rows: int) -> tuple[Mapping[BatchKey, Passage], Passage]:
        """The transfers of the running batches beside those of such a batch, and its own."""
        key = (source.id, rows)
        if key not in self._moving:
            self._moving[key] = self._progress.passages(source.work(rows), self._predicted_ns(source, rows))
        return self._moving[key]

    def _end_of(self, spans_ns: Vector) -> Vector:
        """The same of running batches but for their transfers, from now on: a nanosecond of a clock that far from 0 is
        beyond a float's digits."""
        return spans_ns * self._margin + self._policy.overhead_ns

    def _response(self, choice: Choice) -> Response:
        return self._policy.response(choice.source.id, choice.own)


def _kind(choice: Choice) -> tuple[int, int]:
    """Of choices that differ in nothing else a timeline is one."""
    return choice.source.id, choice.own.batch_size


def _tighter(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)
