"""Replays an event log through the pure core: the same calls on the same state give the same commands.

Takes notes of all that the core asked itself meanwhile: its own launch forecasts answer, nothing is guessed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from backend.errors import ConfigError
from backend.scheduler.core import Scheduler
from backend.scheduler.forecast.expected_arrivals import ExpectedArrivals
from backend.scheduler.forecast.launch_forecast import Choice, LaunchForecast
from backend.scheduler.messages import Command, Launch, Request
from backend.scheduler.running_batch import BatchKey
from backend.scheduler.source import Source
from backend.scheduler_process import snapshot
from backend.scheduler_process.event_file import Checkpoint, Entry, Handled, Left, Saved, Stretch, Trained, Woken

RequestKey = tuple[int, int]
"""(source, request)"""


class Harm(NamedTuple):
    """A running batch that would newly miss its deadline beside a candidate. late_ns: by so much, with the bound's
    margin.
    """

    key: BatchKey
    late_ns: float


class Weighed(NamedTuple):
    """A batch that was weighed against requests to come. keeps: deadlines of its own, expected; losses: by class, of
    those to come, and how much each counts.
    """

    requests: int
    keeps: float
    losses: dict[int, tuple[float, float]]

    @property
    def pays(self) -> bool:
        """True if it keeps more than it costs, or costs nothing."""
        costs = sum(lost * price for lost, price in self.losses.values())
        return self.keeps > costs or not costs


@dataclass
class Notes:
    """The questions that one launch forecast was asked, and its answers.

    running: batches that ran when it was made; lane_free: it was made for a free lane, else to preempt.
    """

    running: int
    lane_free: bool
    contended: bool = True
    untimely: dict[RequestKey, float] = field(default_factory=dict)
    """Requests that would miss their deadline launched at once, by so many nanoseconds as predicted."""
    members: dict[int, tuple[tuple[Request, ...], int]] = field(default_factory=dict)
    """By source: what could share its next batch, and how many of these, from the first, meet the tightest deadline."""
    choices: list[Choice] = field(default_factory=list)
    harms: dict[int, list[Harm]] = field(default_factory=dict)
    """By source: of the batch that was asked about last."""
    better_later: set[int] = field(default_factory=set)
    """Sources whose batch misses its deadline now but makes it at the next finish."""
    weighed: dict[int, list[Weighed]] = field(default_factory=dict)
    """By source: the sizes that were weighed, the largest first."""
    can_wait: dict[RequestKey, bool] = field(default_factory=dict)
    """True of a request that makes its deadline on the first lane that becomes free."""


class NotingForecast(LaunchForecast):
    """A launch forecast that takes notes."""

    def __init__(self, begin: Callable[[], Notes], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._notes = begin()
        self._notes.contended = self.contended

    def timely(self, source: Source, requests: Iterable[Request]) -> Iterator[Request]:
        for request in requests:
            if next(super().timely(source, (request,)), None) is not None:
                yield request
            elif request.deadline_ns is not None:
                late_ns = self._end_ns(source, request.rows, request.group) - request.deadline_ns
                self._notes.untimely[source.id, request.id] = late_ns

    def fitting(self, source: Source, members: tuple[Request, ...]) -> int:
        count = super().fitting(source, members)
        self._notes.members[source.id] = members, count
        return count

    def choice(self, source: Source, requests: tuple[Request, ...], available: int | None = None) -> Choice:
        found = super().choice(source, requests, available)
        self._notes.choices.append(found)
        return found

    def harms(self, choice: Choice) -> bool:
        found = super().harms(choice)
        self._notes.harms[choice.source.id] = list(self._harmed(choice)) if found else []
        return found

    def better_later(self, choice: Choice) -> bool:
        found = super().better_later(choice)
        if found:
            self._notes.better_later.add(choice.source.id)
        return found

    def expected_loss(self, choice: Choice, arrivals: ExpectedArrivals, weights: Mapping[int, float]) -> float:
        losses = dict[int, tuple[float, float]]()
        for priority, weight in weights.items():
            if weight:
                alone = {other: float(other == priority) for other in weights}
                losses[priority] = super().expected_loss(choice, arrivals, alone), weight
        weighed = Weighed(len(choice.requests), self.expected_gain(choice), losses)
        self._notes.weighed.setdefault(choice.source.id, []).append(weighed)
        return super().expected_loss(choice, arrivals, weights)

    def makes_it(self, source: Source, request: Request, waits_ns: float) -> bool:
        found = super().makes_it(source, request, waits_ns)
        self._notes.can_wait[source.id, request.id] = found
        return found

    def _harmed(self, choice: Choice) -> Iterator[Harm]:
        """The batches that `harms` found."""
        beside, alone = self._timelines[_kind(choice)], self._finishes_ns
        allowed_beside_ns, allowed_ns = self._allowed_with_ns(choice), self._allowed_ns
        for i, batch in self._batches_at_risk(choice):
            if beside[i] > allowed_beside_ns[i] and alone[i] <= allowed_ns[i]:
                yield Harm(batch.key, (beside[i] - allowed_beside_ns[i]) * self._margin)


def _kind(choice: Choice) -> tuple[int, int, int]:
    return choice.source.id, choice.own.batch_size, choice.own.load.solo_ns


class Departure(NamedTuple):
    """A decision that replay takes otherwise than the log has it."""

    at_ns: int
    logged: tuple[Command, ...]
    replayed: tuple[Command, ...]
    refused: str | None


class Observer(Protocol):
    """Looks at a scheduler around its decisions."""

    @property
    def over(self) -> bool:
        """Nothing that follows matters: the replay may end."""

    def wants(self, entry: Entry) -> bool:
        """Says whether to look at this decision, which takes twice the time."""

    def before(self, scheduler: Scheduler, entry: Entry) -> None: ...

    def after(self, scheduler: Scheduler, entry: Entry, notes: list[Notes]) -> None: ...


class Replay:
    """Goes through stretches of a log. departures: decisions that came out otherwise; times_differ: numbers of
    decisions that came out the same, but with other times, as on a machine that rounds otherwise.
    """

    def __init__(self, observer: Observer | None = None, packages: tuple[str, ...] = ()) -> None:
        self._observer, self._packages = observer, packages
        self._notes: list[Notes] = []
        self.decisions = self.times_differ = 0
        self.departures: list[Departure] = []

    def run(self, stretch: Stretch) -> Scheduler:
        """Replay from its checkpoint on. Returns the scheduler at its end.

        Raises ConfigError where the checkpoint cannot be used. After a departure the rest is left.
        """
        scheduler = restored(stretch.checkpoint, self._packages)
        for entry in stretch.entries:
            if not self._step(scheduler, entry) or (self._observer is not None and self._observer.over):
                break
        return scheduler

    def _step(self, scheduler: Scheduler, entry: Entry) -> bool:
        if isinstance(entry, Trained | Saved):
            with suppress(Exception):  # as it was when the log was written
                _apply(scheduler, entry)
            return True
        observer = self._observer if self._observer is not None and self._observer.wants(entry) else None
        if observer is not None:
            self._notes.clear()
            noting: Any = partial(NotingForecast, partial(self._begin, scheduler))
            scheduler.policy.forecast = noting
            observer.before(scheduler, entry)
        same = self._decide(scheduler, entry)
        if observer is not None and same:
            observer.after(scheduler, entry, self._notes)
        return same

    def _decide(self, scheduler: Scheduler, entry: Handled | Left | Woken) -> bool:
        """Repeat a decision; True where it is that of the log."""
        commands, refused = list[Command](), None
        try:
            commands = _apply(scheduler, entry)
        except Exception as error:
            refused = str(error)
        self.decisions += 1
        logged = entry.refused if isinstance(entry, Handled) else None
        if refused != logged or list(map(_decision, commands)) != list(map(_decision, entry.commands)):
            self.departures.append(Departure(entry.at_ns, entry.commands, tuple(commands), refused))
            return False
        self.times_differ += tuple(commands) != entry.commands
        return True

    def _begin(self, scheduler: Scheduler) -> Notes:
        notes = Notes(len(scheduler.device.running), scheduler.device.free_lane() is not None)
        self._notes.append(notes)
        return notes


def restored(checkpoint: Checkpoint, packages: tuple[str, ...] = ()) -> Scheduler:
    """The scheduler as it was then, and sound. Raises ConfigError."""
    try:
        found = snapshot.decode(msgspec.json.decode(checkpoint.state, type=snapshot.Snapshot), packages)
        if not isinstance(found, Scheduler):
            raise ValueError("it is not of a scheduler")
        found.check_invariants()
    except Exception as error:  # whatever a file may hold
        why = error or "its parts disagree"
        raise ConfigError(
            f"the event log's checkpoint, which isochrone {checkpoint.origin.isochrone} wrote, cannot be used: {why}"
        ) from None
    return found


def _apply(scheduler: Scheduler, entry: Entry) -> list[Command]:
    match entry:
        case Handled():
            return scheduler.handle(entry.source, entry.event, entry.at_ns)
        case Left():
            return scheduler.leave(entry.source, entry.at_ns)
        case Woken():
            return scheduler.wake(entry.at_ns)
        case Trained():
            scheduler.learn()
        case Saved():
            scheduler.latency.predictor.state()
    return []


def _decision(command: Command) -> tuple[object, ...]:
    """A command without its times."""
    if isinstance(command, Launch):
        return (command.source, command.batch, command.lane, command.preempts, command.requests, command.decision)
    return (type(command), *msgspec.structs.astuple(command)[:2])
