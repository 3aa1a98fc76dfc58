"""Rivals by name: what a user would run instead, and ours with a part taken out, as policies and predictors.

Each is the production scheduler with another policy or predictor, so that the idea is all that differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from backend.load.arrivals import Arrival
from backend.scheduler.core import Observer, Scheduler
from backend.scheduler.device_state import DeviceState
from backend.scheduler.forecast.launch_forecast import Choice, LaunchForecast
from backend.scheduler.messages import Arrive, Command, Event, Reject, Request
from backend.scheduler.policy import MAX_LOOKED_AT, Policy
from backend.scheduler.source import Source
from backend.simulation.contention import LinearContention, Truth
from backend.simulation.fixed_predictors import Oracle, Unaware
from backend.simulation.simulator import SimulatedModel
from predictor.bound import UpperBound
from predictor.features import Exposure, Own
from predictor.learners.isochrone import Isochrone
from predictor.learners.learner import Forecaster
from predictor.learners.linear import Offline, Rls, fit
from predictor.samples import Sample, read_samples, training_sample_of
from predictor.slowdown_function import SlowdownFunction, Sums
from predictor.transfers import TransferModel

_AVERAGE_WEIGHT = 0.1


class MovingAverage(Unaware):
    """Moving average of each model and batch size by itself, whoever ran beside it."""

    name: ClassVar[str] = "moving average"

    def __init__(self) -> None:
        super().__init__()
        self._means: dict[tuple[str, int], float] = {}

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        mean = self._means.get((own.model, own.batch_size), 1.0)
        return SlowdownFunction(mean)

    def predict_one(self, own: Own, seen: Exposure) -> float:  # noqa: ARG002 - the contract's call
        return self._means.get((own.model, own.batch_size), 1.0)

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:  # noqa: ARG002 - the contract's call
        key = (own.model, own.batch_size)
        mean = self._means.get(key, slowdown)
        self._means[key] = mean + _AVERAGE_WEIGHT * (slowdown - mean)
        self.revision += 1


class EarliestDeadline(Policy):
    """The earliest deadline first, as large a batch as makes it, at once; requests that are late come last."""

    preempts: ClassVar[bool] = False

    def choose(self, sources: Mapping[int, Source], device: DeviceState, lane: int, now_ns: int) -> Choice | None:  # noqa: ARG002 - a lane is as good as another here
        sums = device.sums()
        heads = [(self._key(r, s, now_ns), s.id, s, r) for s in sources.values() if (r := s.queue.head()) is not None]
        if heads:
            _, _, source, head = min(heads, key=lambda h: h[:2])
            return self._batch(source, list(source.queue.by_rank()), head, sums, now_ns)
        late = [(r.arrival_ns, s.id, s, r) for s in sources.values() if (r := s.queue.late_head()) is not None]
        if not late:
            return None
        _, _, source, head = min(late, key=lambda h: h[:2])
        return self._batch(source, list(source.queue.by_lateness()), head, sums, now_ns)

    def _key(self, request: Request, source: Source, now_ns: int) -> tuple[float, ...]:  # noqa: ARG002 - of rivals
        return (float("inf") if request.deadline_ns is None else request.deadline_ns,)

    def _batch(self, source: Source, waiting: Sequence[Request], head: Request, sums: Sums, now_ns: int) -> Choice:
        most = max(1, source.join.max_batch_size)
        members, rows, due_ns = [head], head.rows, head.deadline_ns
        for request in waiting[:MAX_LOOKED_AT]:
            if request is head or request.group != head.group or rows + request.rows > most:
                continue
            if due_ns is not None and now_ns + self._takes_ns(source, rows + request.rows, head.group, sums) > due_ns:
                break
            members.append(request)
            rows += request.rows
        own = source.own(rows, head.group)
        predicted_ns = max(1, round(self._takes_ns(source, rows, head.group, sums)))
        return Choice(source, tuple(members), own, self.latency.times(own, predicted_ns))

    def _takes_ns(self, source: Source, rows: int, group: int, sums: Sums) -> float:
        own = source.own(rows, group)
        slowdown = self.latency.slowdown_function(source.id, own).slowdown(sums)
        return own.load.solo_ns * slowdown + self.latency.overhead_ns


class LeastSlack(EarliestDeadline):
    """The highest class first, then the least slack."""

    def _key(self, request: Request, source: Source, now_ns: int) -> tuple[float, ...]:
        due = float("inf") if request.deadline_ns is None else request.deadline_ns
        return (request.priority, due - now_ns - source.load(request.rows, request.group).solo_ns)


class TwoLevels(Policy):
    """Strait's way, as far as its abstract tells (arXiv 2604.28175): no low one launches while a high one waits."""

    preempts: ClassVar[bool] = False

    def choose(self, sources: Mapping[int, Source], device: DeviceState, lane: int, now_ns: int) -> Choice | None:
        high = {i: s for i, s in sources.items() if (head := s.queue.head()) is not None and head.priority == 1}
        return super().choose(high or sources, device, lane, now_ns)


class NoHold(Policy):
    """Ours, but whatever it would hold is launched."""

    def _largest_harmless(
        self, source: Source, members: tuple[Request, ...], forecast: LaunchForecast
    ) -> Choice | None:
        found = super()._largest_harmless(source, members, forecast)
        return found or forecast.choice(source, members[: forecast.fitting(source, members)], len(members))


class NoSplit(Policy):
    """Ours, but a batch is launched whole or not at all."""

    def _largest_harmless(
        self, source: Source, members: tuple[Request, ...], forecast: LaunchForecast
    ) -> Choice | None:
        choice = forecast.choice(source, members, len(members))
        return None if forecast.harms(choice) else choice


class NoPreemption(Policy):
    """Ours, but a batch that was launched runs to its end."""

    preempts: ClassVar[bool] = False


class OneByOne(Policy):
    """Ours without batches."""

    def _rows(self, source: Source, forecast: LaunchForecast) -> int:  # noqa: ARG002 - ours' call
        return 1


class FirstClassOnly(Scheduler):
    """Ours, but whatever is not of class 1 is refused as it comes."""

    def handle(self, source: int, event: Event, now_ns: int) -> list[Command]:
        if not isinstance(event, Arrive):
            return super().handle(source, event, now_ns)
        stay = tuple(r for r in event.requests if r.priority == 1)
        refused = [Reject(source, r.id, 0, 0) for r in event.requests if r.priority > 1]
        return [*refused, *super().handle(source, Arrive(stay), now_ns)]


class MeanAsBound(UpperBound):
    """The prediction itself."""

    def learn_one(self, ratio: float) -> None:
        super().learn_one(ratio)
        self.multiplier = 1.0


@dataclass(frozen=True)
class Rival:
    """predictor: from the truth and earlier samples. in_order: as stock Triton launches. lanes: None: all of them."""

    what: str
    predictor: Callable[[Truth, Sequence[Sample]], Forecaster] = lambda _truth, _samples: Isochrone()
    policy: type[Policy] = Policy
    bound: type[UpperBound] = UpperBound
    kind: type[Scheduler] = Scheduler
    in_order: bool = False
    lanes: int | None = None
    classes: bool = True
    others: bool = True
    """False: class 2 asks for nothing."""
    virtual: bool = False
    """True: only a simulated device can run it."""

    def scheduler(
        self,
        lanes: int,
        truth: Truth,
        samples: Sequence[Sample],
        observer: Observer | None = None,
        cores: int | None = None,
    ) -> Scheduler:
        """A new one, on a device with so many lanes. cores: see `Scheduler`."""
        predictor = self.predictor(truth, samples)
        return self.kind(self.lanes or lanes, observer, predictor, self.bound(), self.policy, cores=cores)

    def models(self, models: Sequence[SimulatedModel]) -> list[SimulatedModel]:
        """Models as they are configured under this rival."""
        return [
            replace(m, interference_aware=not self.in_order, rejects=m.rejects and not self.in_order) for m in models
        ]

    def plan(self, plan: Sequence[Arrival]) -> Sequence[Arrival]:
        """The same requests, of one class where this rival knows of none, without class 2's where those stay away."""
        sent = plan if self.others else [a for a in plan if a.priority == 1]
        return sent if self.classes else [replace(a, priority=1) for a in sent]


def _static(_truth: Truth, samples: Sequence[Sample]) -> Forecaster:
    learner = Offline()
    learner.start(fit([training_sample_of(s) for s in samples]))
    return learner


RIVALS: dict[str, Rival] = {
    "in order": Rival("in order of arrival, dynamic batching, a batch per lane", in_order=True),
    "one at a time": Rival(
        "Clockwork's way: no two batches at once, each on all cores; early rejection",
        lambda *_: Unaware(),
        LeastSlack,
        lanes=1,
    ),
    "edf": Rival("earliest deadline first, profiled latencies", lambda *_: Unaware(), EarliestDeadline),
    "naive": Rival("class, then slack; a moving average per batch size", lambda *_: MovingAverage(), LeastSlack),
    "isochrone, no prediction": Rival("our policy, profiled latencies", lambda *_: Unaware()),
    "isochrone, gpulets": Rival("our policy, the linear model fitted once", _static),
    "isochrone, RLS": Rival("our policy, the paper's online model", lambda *_: Rls()),
    "strait": Rival("two levels, the low one only while no high one waits; RLS", lambda *_: Rls(), TwoLevels),
    "isochrone": Rival("this scheduler"),
    "oracle": Rival("our policy, knows the device", lambda truth, _: Oracle(truth), virtual=True),
    "class 1 alone": Rival(
        "the oracle, were class 2 not there", lambda truth, _: Oracle(truth), others=False, virtual=True
    ),
    "isochrone, class 2 refused": Rival("isochrone, but class 2 is refused as it comes", kind=FirstClassOnly),
    "isochrone, no hold": Rival("isochrone without holding", policy=NoHold),
    "isochrone, no split": Rival("isochrone without splitting", policy=NoSplit),
    "isochrone, no preemption": Rival("isochrone without preemption", policy=NoPreemption),
    "isochrone, no batches": Rival("isochrone without batches", policy=OneByOne),
    "isochrone, mean for bound": Rival("isochrone by the mean", bound=MeanAsBound),
    "isochrone, no classes": Rival("isochrone blind to classes", classes=False),
}


NAME_VARIABLE, SAMPLES_VARIABLE = "ISOCHRONE_RIVAL", "ISOCHRONE_RIVAL_SAMPLES"


def scheduler_by_name(
    lanes: int,
    observer: Observer | None,
    predictor: Forecaster,  # noqa: ARG001 - a rival has its own
    bound: UpperBound,  # noqa: ARG001
    *,
    transfers: TransferModel,  # noqa: ARG001
    cores: int | None,
) -> Scheduler:
    """Makes the rival that the environment names, for ISOCHRONE_SCHEDULER, taught by the samples that it names."""
    path = os.environ.get(SAMPLES_VARIABLE)
    samples = read_samples(Path(path)).samples if path else ()
    return RIVALS[os.environ[NAME_VARIABLE]].scheduler(lanes, LinearContention(), samples, observer, cores)
