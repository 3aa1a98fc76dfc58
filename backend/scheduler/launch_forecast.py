"""What is to be expected at one instant if a batch is launched: of the batch itself, and of those that run.

The questions that `backend.scheduler.policy` asks before it decides. Nothing is decided or changed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Literal

import msgspec

from backend.scheduler.messages import Request
from backend.scheduler.running_batches import MIN_SLOWDOWN, Going, Progress, column
from backend.scheduler.state import BatchKey, Source
from backend.scheduler.timeline import forecast_finishes
from backend.scheduler.transfer_forecast import Passage
from predictor.features import Own, Sums, contribution
from predictor.slowdown_function import SlowdownFunction, shared
from predictor.workload import Load

if TYPE_CHECKING:
    from backend.scheduler.policy import Policy


Kind = tuple[int, int, int]
"""Of batches that differ in nothing that a forecast asks for: source, rows, solo latency, which differs by shape."""


class Choice(msgspec.Struct, frozen=True):
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
    """What is to be expected at one instant: of the running batches alone, and with a candidate beside them.

    sums: of the running batches. core: of the candidate's lane, where lanes share cores.
    """

    def __init__(
        self, policy: Policy, progress: Progress, sums: Sums, now_ns: int, contended: bool, core: int | None = None
    ) -> None:
        self._policy, self._progress, self._sums, self.now_ns = policy, progress, sums, now_ns
        self._margin = policy.bound.multiplier
        self._shared = shared(sums)
        self._core, self._crowd = core, progress.crowd(core)
        self._slowdowns: dict[Kind, float] = {}
        self._could: dict[int, list[tuple[int, Going]]] = {}
        self._alone: list[float] = []
        """When each running batch ends without one more."""
        self._timelines: dict[Kind, list[float]] = {}
        """The same with one more, which comes last; by its kind."""
        self._moving: dict[Kind, tuple[Mapping[BatchKey, Passage], Passage]] = {}
        self.idle = not len(progress)
        self.contended = contended

    def choice(self, source: Source, requests: tuple[Request, ...], available: int | None = None) -> Choice:
        """A launch of these requests, with the execution predicted beside what runs now."""
        own = source.own(sum(r.rows for r in requests), requests[0].group)
        split = available is not None and len(requests) < available
        predicted_ns = max(1, round(self._predicted_ns(source, own)))
        in_ns, out_ns = (0, 0) if source.cargo is None else map(round, self._moves(source, own)[1])
        return Choice(source, requests, own, predicted_ns, "split" if split else "launch", in_ns, out_ns)

    def timely(self, source: Source, requests: Iterable[Request]) -> Iterator[Request]:
        """Those predicted to make their deadline if launched now, each in a batch of its own; and those, until then, of
        whose model nothing was measured: it would stay so."""
        ends_ns: dict[tuple[int, int], float] = {}
        for request in requests:
            if request.deadline_ns is not None:
                kind = (request.rows, request.group)
                end_ns = ends_ns.get(kind)
                if end_ns is None:
                    end_ns = ends_ns[kind] = self._end_ns(source, *kind)
                if end_ns > request.deadline_ns:
                    continue
            yield request

    def makes_it(self, source: Source, request: Request, waits_ns: float) -> bool:
        """Whether a batch of this request alone meets its deadline, launched so much later beside what runs now."""
        own, due_ns = source.own(request.rows, request.group), request.deadline_ns
        return due_ns is None or self._ends_ns(source, own, waits_ns + self._predicted_ns(source, own)) <= due_ns

    def fitting(self, source: Source, members: tuple[Request, ...]) -> int:
        """How many of `members`, from the first, meet the tightest deadline among them; at least 1."""
        rows, fits, tightest = 0, 1, None
        for i, request in enumerate(members):
            rows += request.rows
            tightest = _tighter(tightest, request.deadline_ns)
            own = source.own(rows, request.group)
            if tightest is None or self._ends_ns(source, own, self._predicted_ns(source, own)) <= tightest:
                fits = i + 1
        return fits

    def may_harm(self, choice: Choice) -> bool:
        """Whether a running batch would newly miss its deadline if nobody beside it finished.

        A finish is taken to slow nobody down: what is harmless so needs no timeline.
        """
        threatened = self._threatened(choice)
        if not threatened:
            return False
        sums = self._progress.sums_with(contribution(choice.own.batch_size, choice.load))
        allowed_ns = self._allowed_beside_ns(choice)
        core = self._core
        return any(
            batch.slowdown(sums, core is not None and batch.core == core) * batch.remaining_ns > allowed_ns[i]
            for i, batch in threatened
        )

    def harms(self, choice: Choice) -> bool:
        """Whether a running batch of the same or a higher class that makes its deadline newly misses it."""
        if _kind(choice) not in self._timelines and not self.may_harm(choice):
            return False
        self.follow((choice,))
        beside, alone = self._timelines[_kind(choice)], self._alone
        allowed_beside_ns, allowed_ns = self._allowed_beside_ns(choice), self._allowed_ns
        return any(beside[i] > allowed_beside_ns[i] and alone[i] <= allowed_ns[i] for i, _ in self._threatened(choice))

    def follow(self, choices: Sequence[Choice]) -> None:
        """The timelines with each of them, and the one with none, all at once."""
        kinds = {_kind(choice): choice for choice in choices if _kind(choice) not in self._timelines}
        columns = [column(choice.own, self._response(choice)) for choice in kinds.values()]
        if not columns:
            return
        if self._alone:
            found = forecast_finishes(*self._progress.beside(columns, self._core)).tolist()
        else:
            first, *found = forecast_finishes(*self._progress.beside([None, *columns], self._core)).tolist()
            self._alone = first[:-1]
        self._timelines.update(zip(kinds, found, strict=True))

    def _threatened(self, choice: Choice) -> list[tuple[int, Going]]:
        """Batches of the same or a higher class that would make their deadlines without any neighbour; each with its
        place among those that run."""
        priority = min(r.priority for r in choice.requests)
        found = self._could.get(priority)
        if found is None:
            allowed_ns = self._allowed_ns
            found = self._could[priority] = [
                (i, batch)
                for i, batch in enumerate(self._progress.batches)
                if batch.priority <= priority and batch.alone * batch.remaining_ns <= allowed_ns[i] < inf
            ]
        return found

    @cached_property
    def _allowed_ns(self) -> list[float]:
        """From now on: what the deadline of each running batch leaves to its execution as predicted."""
        return self._allowed(self._passages)

    def _allowed_beside_ns(self, choice: Choice) -> list[float]:
        """The same with the choice's transfers beside theirs."""
        if not self._passages or choice.source.cargo is None:
            return self._allowed_ns
        return self._allowed(self._moves(choice.source, choice.own)[0])

    def _allowed(self, passages: Mapping[BatchKey, Passage]) -> list[float]:
        # Less `now` first: a nanosecond of a clock that far from 0 is beyond a float's digits.
        around_ns, margin, now_ns = self._policy.overhead_ns, self._margin, self.now_ns
        passing_ns = {key: passage.both_ns for key, passage in passages.items()}
        return [
            (batch.deadline_ns - now_ns - (around_ns + passing_ns.get(batch.key, 0.0))) / margin
            for batch in self._progress.batches
        ]

    @cached_property
    def _passages(self) -> Mapping[BatchKey, Passage]:
        """What the transfers of the running batches still take; of those that move anything."""
        return self._progress.passages()[0] if self._progress.traffic else {}

    def better_later(self, choice: Choice) -> bool:
        """Whether the batch misses its deadline launched now, but makes it launched at the next finish."""
        deadline_ns = None
        for request in choice.requests:
            deadline_ns = _tighter(deadline_ns, request.deadline_ns)
        source, own = choice.source, choice.own
        if deadline_ns is None or self._ends_ns(source, own, choice.predicted_ns) <= deadline_ns:
            return False
        self.follow((choice,))
        if self._ends_ns(source, own, self._timelines[_kind(choice)][-1]) <= deadline_ns:
            return False
        gone_ns, first = min(
            (gone_ns + self._passages[batch.key].both_ns if batch.key in self._passages else gone_ns, i)
            for i, (batch, gone_ns) in enumerate(zip(self._progress.batches, self._alone, strict=True))
        )
        crowd = self._crowd - (self._core is not None and self._progress.core(first) == self._core)
        slowdown = max(MIN_SLOWDOWN, self._response(choice).slowdown(self._progress.sums_without(first), crowd))
        return self._ends_ns(source, own, gone_ns + choice.load.solo_ns * slowdown) <= deadline_ns

    def _end_ns(self, source: Source, rows: int, group: int) -> float:
        """The instant that such a batch is over by, as predicted; now, where that would be a mere guess."""
        if source.solo.guesses(group):
            return self.now_ns
        own = source.own(rows, group)
        return self.now_ns + self._predicted_ns(source, own) + self._around_ns(source, own)

    def _predicted_ns(self, source: Source, own: Own) -> float:
        """Such a batch beside what runs now."""
        solo_ns = own.load.solo_ns
        kind = (source.id, own.batch_size, solo_ns)
        slowdown = self._slowdowns.get(kind)
        if slowdown is None:
            slowdown = self._policy.response(source.id, own).slowdown_at(self._shared, self._sums, self._crowd)
            slowdown = slowdown if slowdown > MIN_SLOWDOWN else MIN_SLOWDOWN
            self._slowdowns[kind] = slowdown
        return solo_ns * slowdown

    def _ends_ns(self, source: Source, own: Own, predicted_ns: float) -> float:
        """The instant that such a batch is over by, with the bound's margin and what is around its execution."""
        return self.now_ns + predicted_ns * self._margin + self._around_ns(source, own)

    def _around_ns(self, source: Source, own: Own) -> float:
        """What a batch takes beside its execution: its transfers, and the learned cost."""
        overhead_ns = self._policy.overhead_ns
        if source.cargo is None:
            return overhead_ns
        _, passage = self._moves(source, own)
        return overhead_ns + passage.both_ns

    def _moves(self, source: Source, own: Own) -> tuple[Mapping[BatchKey, Passage], Passage]:
        """The transfers of the running batches beside those of such a batch, and its own."""
        kind = (source.id, own.batch_size, own.load.solo_ns)
        if kind not in self._moving:
            work = source.work(own.batch_size)
            self._moving[kind] = self._progress.passages(work, self._predicted_ns(source, own))
        return self._moving[kind]

    def _response(self, choice: Choice) -> SlowdownFunction:
        return self._policy.response(choice.source.id, choice.own)


def _kind(choice: Choice) -> Kind:
    """Of choices that differ in nothing else a timeline is one."""
    own = choice.own
    return choice.source.id, own.batch_size, own.load.solo_ns


def _tighter(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)
