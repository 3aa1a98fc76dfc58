"""Forecasts of possible launches at one instant: of the candidate, and of the running batches beside it.

Answers the questions that `backend.scheduler.policy` asks before it decides; decides and changes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import inf
from typing import Literal

import msgspec

from backend.scheduler.device_state import DeviceState
from backend.scheduler.forecast.expected_arrivals import (
    ArrivalForecast,
    ExpectedArrivals,
    steepness,
    worth_of_launching,
)
from backend.scheduler.forecast.timeline import Timelines
from backend.scheduler.forecast.transfer_forecast import RemainingTransfers
from backend.scheduler.latency_model import Kind, LatencyModel
from backend.scheduler.messages import BatchTimes, Request
from backend.scheduler.running_batch import MIN_SLOWDOWN, BatchKey, RunningBatch, candidate_column
from backend.scheduler.source import Source
from predictor.features import Own
from predictor.slowdown_function import SlowdownFunction, Sums


class Choice(msgspec.Struct, frozen=True):
    """A batch that could be launched now, and its times if it is. requests: unknown, so empty, of an adopted batch."""

    source: Source
    requests: tuple[Request, ...]
    own: Own
    times: BatchTimes
    decision: Literal["launch", "split"] = "launch"

    @property
    def priority(self) -> int:
        """Highest class among its requests; of an adopted batch, which has none, the highest of all."""
        return min([r.priority for r in self.requests], default=1)

    @property
    def deadline_ns(self) -> int | None:
        """Tightest among its requests; None without any."""
        return min([r.deadline_ns for r in self.requests if r.deadline_ns is not None], default=None)


class LaunchForecast:
    """The running batches at one instant, without a candidate and with one.

    sums: contributions of the candidate's co-runners; contended: more than one model waits; core: of the candidate's
    lane, where lanes share cores.
    """

    def __init__(
        self,
        latency: LatencyModel,
        device: DeviceState,
        sums: Sums,
        now_ns: int,
        *,
        contended: bool,
        core: int | None = None,
    ) -> None:
        self._latency, self._device, self._sums, self.now_ns = latency, device, sums, now_ns
        self._margin = latency.bound.multiplier
        self._core, self._core_sharers = core, device.core_sharers(core)
        self._slowdowns: dict[Kind, float] = {}
        self._at_risk: dict[int, list[tuple[int, RunningBatch]]] = {}
        self._finishes_ns: list[float] = []
        """Of the running batches without a candidate, from now on."""
        self._timelines: dict[Kind, list[float]] = {}
        """The same with a candidate, which comes last; by its kind."""
        self._candidate_transfers: dict[Kind, tuple[Mapping[BatchKey, RemainingTransfers], RemainingTransfers]] = {}
        self._expects: ArrivalForecast | None = None
        self._expects_known = False
        self.idle = not device.running
        self.contended = contended

    def choice(self, source: Source, requests: tuple[Request, ...], available: int | None = None) -> Choice:
        """A launch of these requests, beside what runs now. available: so many could have shared the batch."""
        own = source.own(sum(r.rows for r in requests), requests[0].group)
        split = available is not None and len(requests) < available
        predicted_ns = max(1, round(self._predicted_ns(source, own)))
        h2d_ns, d2h_ns = (0, 0) if source.bytes_per_row is None else self._transfers_with(source, own)[1]
        times = self._latency.times(own, predicted_ns, h2d_ns, d2h_ns)
        return Choice(source, requests, own, times, "split" if split else "launch")

    def timely(self, source: Source, requests: Iterable[Request]) -> Iterator[Request]:
        """Requests predicted to make their deadline if launched now, each in a batch of its own; and all while nothing
        was measured of their model: else that would stay so."""
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
        """True if a batch of this request alone meets its deadline, launched so much later beside what runs now."""
        own, due_ns = source.own(request.rows, request.group), request.deadline_ns
        return due_ns is None or self._bound_end_ns(source, own, waits_ns + self._predicted_ns(source, own)) <= due_ns

    def fitting(self, source: Source, members: tuple[Request, ...]) -> int:
        """Number of `members`, from the first, that meet the tightest deadline among them; at least 1."""
        rows, fits, tightest = 0, 1, None
        for i, request in enumerate(members):
            rows += request.rows
            tightest = _tighter(tightest, request.deadline_ns)
            own = source.own(rows, request.group)
            if tightest is None or self._bound_end_ns(source, own, self._predicted_ns(source, own)) <= tightest:
                fits = i + 1
        return fits

    def may_harm(self, choice: Choice) -> bool:
        """True if a running batch would newly miss its deadline if no co-runner of it ended.

        An end is taken to slow no batch down: a choice that is harmless so needs no timeline.
        """
        at_risk = self._batches_at_risk(choice)
        if not at_risk:
            return False
        sums = self.sums_with(choice)
        allowed_ns = self._allowed_with_ns(choice)
        core = self._core
        return any(
            batch.slowdown_with(sums, core is not None and batch.core == core) * batch.remaining_ns > allowed_ns[i]
            for i, batch in at_risk
        )

    def expected_loss(self, choice: Choice, arrivals: ExpectedArrivals, weights: Mapping[int, float]) -> float:
        """Weighted deadlines that the choice is expected to cost requests that arrive while it runs.

        weights: of a lost deadline, by class. Where it takes the last lane higher classes have to wait as well while no
        lane is free, on average half of that time, but not where they can preempt.
        """
        if not self._expects_known:
            self._expects, self._expects_known = arrivals.forecast(self._device.sums(), self.now_ns), True
        if self._expects is None:
            return 0.0
        span_ns = choice.times.predicted_ns + self._latency.overhead_ns
        return self._expects.lost(self.sums_with(choice), span_ns, self._until_a_lane_ns(choice), weights)

    def expected_gain(self, choice: Choice) -> float:
        """Deadlines of its own that a launch now is expected to meet."""
        around_ns = self._around_ns(choice.source, choice.own)
        takes_ns = choice.times.predicted_ns + around_ns
        return worth_of_launching(choice.requests, self.now_ns, takes_ns, steepness(self._margin))

    def _until_a_lane_ns(self, choice: Choice) -> float:
        """Time until a lane is free, where the choice takes the last one."""
        device = self._device
        if len(device.running) + 1 < device.lanes or device.lanes <= choice.source.join.preemptible_lanes:
            return 0.0
        return min(choice.times.predicted_ns, self._first_end_ns)

    @cached_property
    def _first_end_ns(self) -> float:
        """Time until the batch that ends first, by slowdowns as they were last, ends as it is slowed now; inf: none."""
        batches = list(self._device.batches)
        if not batches:
            return inf
        ends_ns = [batch.remaining_ns * batch.slowdown for batch in batches]
        first = batches[ends_ns.index(min(ends_ns))]
        return first.remaining_ns * first.slowdown_with(self._device.sums())

    def sums_with(self, choice: Choice) -> Sums:
        """Contributions of all that would run then."""
        return self._device.sums_with(self._latency.predictor.contribution(choice.own))

    def harms(self, choice: Choice) -> bool:
        """True if a running batch of the same or a higher class that makes its deadline newly misses it."""
        if _kind(choice) not in self._timelines and not self.may_harm(choice):
            return False
        self.compute_timelines((choice,))
        with_it, without = self._timelines[_kind(choice)], self._finishes_ns
        allowed_with_ns, allowed_ns = self._allowed_with_ns(choice), self._allowed_ns
        return any(
            with_it[i] > allowed_with_ns[i] and without[i] <= allowed_ns[i] for i, _ in self._batches_at_risk(choice)
        )

    def compute_timelines(self, choices: Sequence[Choice]) -> None:
        """Work out the timelines with each of them, and the one with none, all at once."""
        kinds = {_kind(choice): choice for choice in choices if _kind(choice) not in self._timelines}
        columns = [
            candidate_column(c.own, self._slowdown_function(c), self._latency.predictor.contribution(c.own))
            for c in kinds.values()
        ]
        if not columns:
            return
        if self._finishes_ns:
            found = self._running_columns.finishes(columns).tolist()
        else:
            first, *found = self._running_columns.finishes([None, *columns]).tolist()
            self._finishes_ns = first[:-1]
        self._timelines.update(zip(kinds, found, strict=True))

    @cached_property
    def _running_columns(self) -> Timelines:
        return Timelines(self._device.batches, self._core)

    def better_later(self, choice: Choice) -> bool:
        """True if the batch misses its deadline launched now, but makes it launched at the next finish."""
        deadline_ns, source, own = choice.deadline_ns, choice.source, choice.own
        if deadline_ns is None or self._bound_end_ns(source, own, choice.times.predicted_ns) <= deadline_ns:
            return False
        self.compute_timelines((choice,))
        if self._bound_end_ns(source, own, self._timelines[_kind(choice)][-1]) <= deadline_ns:
            return False
        transfers, batches = self._transfers, list(self._device.batches)
        end_ns, first = min(
            (exec_ns + transfers[batch.key].total_ns if batch.key in transfers else exec_ns, i)
            for i, (batch, exec_ns) in enumerate(zip(batches, self._finishes_ns, strict=True))
        )
        sharers = self._core_sharers - (self._core is not None and batches[first].core == self._core)
        function, sums = self._slowdown_function(choice), self._device.sums_without(batches[first])
        slowdown = max(MIN_SLOWDOWN, function.slowdown(sums, sharers))
        return self._bound_end_ns(source, own, end_ns + own.load.solo_ns * slowdown) <= deadline_ns

    def _batches_at_risk(self, choice: Choice) -> list[tuple[int, RunningBatch]]:
        """Running batches of the same or a higher class that would make their deadlines without any co-runner; each
        with its place among all."""
        priority = choice.priority
        found = self._at_risk.get(priority)
        if found is None:
            allowed_ns = self._allowed_ns
            found = self._at_risk[priority] = [
                (i, batch)
                for i, batch in enumerate(self._device.batches)
                if batch.priority <= priority and batch.solo_slowdown * batch.remaining_ns <= allowed_ns[i] < inf
            ]
        return found

    @cached_property
    def _allowed_ns(self) -> list[float]:
        """From now on: time that the deadline of each running batch leaves to its execution as predicted."""
        return self._allowed(self._transfers)

    def _allowed_with_ns(self, choice: Choice) -> list[float]:
        """The same with the choice's transfers beside theirs."""
        if not self._transfers or choice.source.bytes_per_row is None:
            return self._allowed_ns
        return self._allowed(self._transfers_with(choice.source, choice.own)[0])

    def _allowed(self, transfers: Mapping[BatchKey, RemainingTransfers]) -> list[float]:
        # Less `now` first: a nanosecond of a clock that far from 0 is beyond a float's digits.
        overhead_ns, margin, now_ns = self._latency.overhead_ns, self._margin, self.now_ns
        transfers_ns = {key: times.total_ns for key, times in transfers.items()}
        return [
            (batch.deadline_ns - now_ns - (overhead_ns + transfers_ns.get(batch.key, 0.0))) / margin
            for batch in self._device.batches
        ]

    @cached_property
    def _transfers(self) -> Mapping[BatchKey, RemainingTransfers]:
        """Remaining transfers of the running batches; of those that move anything."""
        return self._device.transfer_times()[0] if self._device.transfers else {}

    def _transfers_with(
        self, source: Source, own: Own
    ) -> tuple[Mapping[BatchKey, RemainingTransfers], RemainingTransfers]:
        """Transfers of the running batches beside those of such a batch, and its own."""
        kind = (source.id, own.batch_size, own.load.solo_ns)
        if kind not in self._candidate_transfers:
            transfers = source.solo_transfers(own.batch_size)
            self._candidate_transfers[kind] = self._device.transfer_times(transfers, self._predicted_ns(source, own))
        return self._candidate_transfers[kind]

    def _end_ns(self, source: Source, rows: int, group: int) -> float:
        """Instant that such a batch ends at, as predicted; now, where that would be a mere guess."""
        if source.solo.guesses(group):
            return self.now_ns
        own = source.own(rows, group)
        return self.now_ns + self._predicted_ns(source, own) + self._around_ns(source, own)

    def _bound_end_ns(self, source: Source, own: Own, predicted_ns: float) -> float:
        """Instant that such a batch ends by, with the bound's margin and the time around its execution."""
        return self.now_ns + predicted_ns * self._margin + self._around_ns(source, own)

    def _around_ns(self, source: Source, own: Own) -> float:
        """Time of a batch beside its execution: its transfers, and the overhead."""
        overhead_ns = self._latency.overhead_ns
        if source.bytes_per_row is None:
            return overhead_ns
        return overhead_ns + self._transfers_with(source, own)[1].total_ns

    def _predicted_ns(self, source: Source, own: Own) -> float:
        """Execution time of such a batch beside what runs now."""
        solo_ns = own.load.solo_ns
        kind = (source.id, own.batch_size, solo_ns)
        slowdown = self._slowdowns.get(kind)
        if slowdown is None:
            function = self._latency.slowdown_function(source.id, own)
            slowdown = function.slowdown(self._sums, self._core_sharers)
            slowdown = slowdown if slowdown > MIN_SLOWDOWN else MIN_SLOWDOWN
            self._slowdowns[kind] = slowdown
        return solo_ns * slowdown

    def _slowdown_function(self, choice: Choice) -> SlowdownFunction:
        return self._latency.slowdown_function(choice.source.id, choice.own)


def _kind(choice: Choice) -> Kind:
    own = choice.own
    return choice.source.id, own.batch_size, own.load.solo_ns


def _tighter(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)
