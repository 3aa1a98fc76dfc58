"""Properties of every launch and every hold, over random loads in virtual time, by other arithmetic."""

from __future__ import annotations

import heapq
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.load.arrivals import Arrival, Traffic, arrivals
from backend.scheduler.core import Scheduler
from backend.scheduler.device_state import DeviceState
from backend.scheduler.forecast.expected_arrivals import MEMORY_NS, steepness
from backend.scheduler.forecast.launch_forecast import Choice, LaunchForecast
from backend.scheduler.forecast.timeline import HORIZON
from backend.scheduler.messages import Command, Event
from backend.scheduler.policy import OWN_PRICE, Policy
from backend.scheduler.preemption import Preemption
from backend.scheduler.running_batch import MIN_SLOWDOWN
from backend.scheduler.source import Source
from backend.simulation.contention import LinearContention
from backend.simulation.device import VirtualDevice
from backend.simulation.fixed_predictors import Oracle, Unaware
from backend.simulation.simulator import SimulatedModel, simulate
from predictor.bound import UpperBound
from predictor.slowdown_function import WIDTH, ZERO_SUMS, Sums
from tests.fakes.builders import profile

TRUTH = LinearContention((0.6, 0.1, 0.5), sharing=1.2)
MODELS = [
    SimulatedModel("short", profile(5.0, 0.8, 0.2, 0.6), 4, rejects=True),
    SimulatedModel("middle", profile(12.0, 0.5, 0.1, 0.9), 8, rejects=True),
    SimulatedModel("long", profile(25.0, 0.9, 0.3, 0.4), 8, rejects=True),
]
PREEMPTIBLE = [replace(model, preemptible_lanes=4) for model in MODELS]
ALMOST_NS = 1_000.0
"""Two ways to add the same numbers may differ by so much."""


@dataclass
class Batch:
    """A batch in a timeline: remaining solo latency, slowdown beside co-runners of these sums, so many on its core."""

    remaining_ns: float
    adds: Sums
    slowdown_of: Callable[[Sums, int], float]
    core: int | None


def timeline(batches: Sequence[Batch]) -> list[float]:
    """Each one's finish, from finish to finish, by plain sums; after `HORIZON` finishes the co-runners stay."""
    left, finishes, now = {i: b.remaining_ns for i, b in enumerate(batches)}, [inf] * len(batches), 0.0

    def slowdown(i: int, running: Sequence[int]) -> float:
        sums = tuple(sum(batches[j].adds[k] for j in running if j != i) for k in range(WIDTH))
        sharers = sum(j != i and batches[j].core == batches[i].core is not None for j in running)
        return max(MIN_SLOWDOWN, batches[i].slowdown_of(sums, sharers))

    for _ in range(HORIZON):
        if not left:
            break
        spans = {i: remaining * slowdown(i, list(left)) for i, remaining in left.items()}
        first = min(spans, key=lambda i: spans[i])
        step = spans[first]
        left = {i: max(0.0, remaining - step / slowdown(i, list(left))) for i, remaining in left.items()}
        now += step
        finishes[first] = now
        del left[first]
    rest = list(left)
    for i, remaining in left.items():
        finishes[i] = now + remaining * slowdown(i, rest)
    return finishes


class Watched(Policy):
    """The policy, each of its admissions checked against `timeline`."""

    core: Scheduler
    admissions = holds = preemptions = 0

    def preempt(
        self, waiting: Mapping[int, Source], sources: Mapping[int, Source], device: DeviceState, now_ns: int
    ) -> Preemption | None:
        preemption = super().preempt(waiting, sources, device, now_ns)
        if preemption is not None:
            self.preemptions += 1
            assert device.free_lane() is None
            self.check_suspended(preemption, device, now_ns)
        return preemption

    def check_suspended(self, preemption: Preemption, device: DeviceState, now_ns: int) -> None:
        """The batch to be suspended makes its deadline all the same, or would not, or is of a lower class."""
        other = preemption.suspended
        assert [b for b in device.batches if b.lane == other.lane] == [other], "two preempting batches on a lane"
        executing = [b for b in device.batches if b.suspended_for is None]
        co_runners = [self.latency.predictor.contribution(b.own) for b in executing if b is not other]
        sums = tuple(sum(adds[k] for adds in co_runners) for k in range(WIDTH))
        function = self.latency.slowdown_function(other.key[0], other.own)
        slowdown = max(MIN_SLOWDOWN, function.slowdown(sums))
        due_ns = other.deadline_ns - now_ns - self.latency.overhead_ns
        margin = self.latency.bound.multiplier
        takes_ns = other.remaining_ns * slowdown * margin
        suspended_ns = (preemption.choice.times.predicted_ns + self.latency.overhead_ns) * margin
        lower = min(r.priority for r in preemption.choice.requests) < other.priority
        assert lower or takes_ns > due_ns - ALMOST_NS or takes_ns + suspended_ns <= due_ns + ALMOST_NS

    def choose(self, sources: Mapping[int, Source], device: DeviceState, lane: int, now_ns: int) -> Choice | None:
        self.device, self.lane_core = device, device.core_of(lane)
        return super().choose(sources, device, lane, now_ns)

    def _admit(self, source: Source, forecast: LaunchForecast) -> Choice | None:
        choice = super()._admit(source, forecast)
        if forecast.idle:
            return choice
        self.admissions += 1
        if choice is not None:
            assert not self.newly_missing(choice), "a launch makes a running batch miss"
            return choice
        self.holds += 1
        head = source.queue.head()
        assert head is not None
        first = next(forecast.timely(source, source.queue.by_rank()), head)
        least = forecast.choice(source, (first,))
        gains = self.newly_missing(least, within_ns=-ALMOST_NS) or self.better_at_the_next_finish(source, forecast)
        assert gains or self.costs_more_than_it_keeps(least, forecast), "a hold that gains nothing"
        return None

    def costs_more_than_it_keeps(self, choice: Choice, forecast: LaunchForecast) -> bool:
        """By plain sums: deadlines of requests to come, of its class and of higher ones, against its own."""
        steep, wait_ns = steepness(self.latency.bound.multiplier), 0.0
        takes_ns = choice.times.predicted_ns + self.latency.overhead_ns
        device, join = self.device, choice.source.join
        if len(device.running) + 1 >= device.lanes > join.preemptible_lanes:
            first = min(device.batches, key=lambda b: b.remaining_ns * b.slowdown)
            wait_ns = min(first.remaining_ns * first.slowdown_with(device.sums()), choice.times.predicted_ns)
        lost = 0.0
        for priority in self.arrivals.classes:
            price = OWN_PRICE if priority == choice.priority else self.prices.price(priority)
            for stream in [s for s in self.arrivals._streams.values() if s.priority == priority <= choice.priority]:
                own = stream.source.own(stream.rows, stream.group)
                function = self.latency.slowdown_function(stream.source.id, own)
                alone, beside = (
                    own.load.solo_ns * max(MIN_SLOWDOWN, function.slowdown(sums)) + self.latency.overhead_ns
                    for sums in (device.sums(), forecast.sums_with(choice))
                )
                waited = beside + (wait_ns / 2 if priority < choice.priority else 0.0)
                miss, with_it, with_wait = (
                    1 / (1 + (stream.allowed_ns / each) ** steep) for each in (alone, beside, waited)
                )
                per_ns = price * stream.recent * exp((stream.last_ns - forecast.now_ns) / MEMORY_NS) / MEMORY_NS
                lost += per_ns * wait_ns * max(0.0, with_wait - miss)
                lost += per_ns * (takes_ns - wait_ns) * max(0.0, with_it - miss)
        due = [inf if r.deadline_ns is None else r.deadline_ns - forecast.now_ns for r in choice.requests]
        kept = sum(1 / (1 + (takes_ns / each) ** steep) for each in due if each > 0)
        return bool(kept <= 1.01 * lost)  # what is looked up once per lesson may be a lesson old

    def newly_missing(self, choice: Choice, within_ns: float = ALMOST_NS) -> list[int]:
        """The running batches of the same or a higher class that make it without the choice, but not with it."""
        running = [
            Batch(
                batch.remaining_ns,
                ZERO_SUMS if batch.suspended_for else self.latency.predictor.contribution(batch.own),
                self.latency.slowdown_function(batch.key[0], batch.own).slowdown,
                batch.core,
            )
            for batch in self.device.batches
        ]
        new = Batch(
            choice.own.load.solo_ns,
            self.latency.predictor.contribution(choice.own),
            self.latency.slowdown_function(choice.source.id, choice.own).slowdown,
            self.lane_core,
        )
        alone, beside = timeline(running), timeline([*running, new])[:-1]
        mine = min(r.priority for r in choice.requests)
        margin, found = self.latency.bound.multiplier, []
        for i, (batch, before, after) in enumerate(zip(self.device.batches, alone, beside, strict=True)):
            due = batch.deadline_ns - self.core._now_ns - self.latency.overhead_ns
            if batch.priority <= mine and before * margin <= due - within_ns and after * margin > due + within_ns:
                found.append(i)
        return found

    def better_at_the_next_finish(self, source: Source, forecast: LaunchForecast) -> bool:
        rows = self._rows(source, forecast)
        timely = list(forecast.timely(source, source.queue.by_rank()))[:rows]
        members = timely or list(source.queue.by_rank())[:rows]
        return any(
            forecast.better_later(forecast.choice(source, tuple(members[:count])))
            for count in range(1, len(members) + 1)
        )


def watched(lanes: int, cores: int | None = None) -> tuple[Scheduler, Watched]:
    """One that predicts perfectly, and knows it."""
    bound = UpperBound()
    bound.multiplier = 1.0
    made = Scheduler(lanes, None, Oracle(TRUTH), bound, Watched, cores=cores)
    assert isinstance(made.policy, Watched)
    made.policy.core = made
    return made, made.policy


def plan(seed: int, load: float, slo: float, seconds: float) -> tuple[Arrival, ...]:
    solo_ms = {m.name: m.profile.at(1).solo_ns / 1e6 for m in MODELS}
    traffic = [
        Traffic(name, load * 1e3 / ms / len(MODELS), slo * ms * (1 + i), 1 + i % 2)
        for i, (name, ms) in enumerate(solo_ms.items())
    ]
    return arrivals(traffic, seconds, seed, "poisson")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 4.0), st.floats(1.2, 6.0), st.integers(2, 4), st.booleans())
def test_a_launch_makes_no_batch_newly_miss_and_a_hold_gains_something(
    seed: int, load: float, slo: float, lanes: int, preemptible: bool
) -> None:
    scheduler, _ = watched(lanes)
    models = PREEMPTIBLE if preemptible else MODELS
    simulate(models, plan(seed, load * lanes / 2, slo, 0.6), scheduler, VirtualDevice(TRUTH, seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 3.0), st.floats(1.2, 6.0), st.integers(3, 5), st.integers(1, 3))
def test_a_launch_on_lanes_that_share_cores_makes_no_batch_newly_miss(
    seed: int, load: float, slo: float, lanes: int, cores: int
) -> None:
    scheduler, _ = watched(lanes, cores)
    simulate(MODELS, plan(seed, load * cores / 2, slo, 0.6), scheduler, VirtualDevice(TRUTH, seed))


def test_the_watched_policy_sees_launches_and_holds() -> None:
    """The property above is about something."""
    admissions = holds = preemptions = 0
    for seed in range(5):
        for models in (MODELS, PREEMPTIBLE):
            scheduler, policy = watched(2)
            simulate(models, plan(seed, 1.5, 2.0, 1.0), scheduler, VirtualDevice(TRUTH, seed))
            admissions, holds = admissions + policy.admissions, holds + policy.holds
            preemptions += policy.preemptions
    assert admissions > 200
    assert holds > 20
    assert preemptions > 20


def earliest_deadline_first(plan: Sequence[Arrival], solo_ns: Mapping[str, int]) -> set[int]:
    """Requests in time on one lane: at once the earliest deadline of those that can still make it, no preemption."""
    now, waiting, met, following = 0, list[tuple[int, int]](), set[int](), 0
    while following < len(plan) or waiting:
        if not waiting:
            now = max(now, round(plan[following].at_s * 1e9))
        while following < len(plan) and (at := round(plan[following].at_s * 1e9)) <= now:
            heapq.heappush(waiting, (at + round(plan[following].slo_ms * 1e6), following))
            following += 1
        due, i = heapq.heappop(waiting)
        if now + solo_ns[plan[i].model] <= due:
            now += solo_ns[plan[i].model]
            met.add(i)
    return met


def in_time(arrival: Arrival, answered_s: float | None) -> bool:
    """To the nanosecond, which floats of seconds are not."""
    due_ns = round(arrival.at_s * 1e9) + round(arrival.slo_ms * 1e6)
    return answered_s is not None and round(answered_s * 1e9) <= due_ns


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 3.0), st.floats(1.1, 8.0))
def test_one_lane_keeps_the_deadlines_that_earliest_deadline_first_keeps(seed: int, load: float, slo: float) -> None:
    """Perfect predictions, one class, batches of one."""
    whole = [replace(a, priority=1) for a in plan(seed, load, slo, 1.0)]
    models = [replace(model, max_batch_size=0) for model in MODELS]
    bound = UpperBound()
    bound.multiplier = 1.0
    ran = simulate(models, whole, Scheduler(1, None, Unaware(), bound), VirtualDevice(LinearContention(), 0))
    met = {i for i, (a, served) in enumerate(zip(whole, ran.requests, strict=True)) if in_time(a, served.answered_s)}
    solo_ns = {m.name: m.profile.at(1).solo_ns for m in models}
    assert met >= earliest_deadline_first(whole, solo_ns)


class Recorded(Scheduler):
    """Keeps what went in and came out."""

    def handle(self, source: int, event: Event, now_ns: int) -> list[Command]:
        commands = super().handle(source, event, now_ns)
        self.__dict__.setdefault("log", []).append((source, event, now_ns, commands))
        return commands

    def wake(self, now_ns: int) -> list[Command]:
        commands = super().wake(now_ns)
        self.__dict__.setdefault("log", []).append((0, None, now_ns, commands))
        return commands

    def learn(self) -> int:
        self.__dict__.setdefault("log", []).append(None)
        return super().learn()


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_every_decision_follows_from_the_log_of_events(lanes: int) -> None:
    first = Recorded(lanes)
    simulate(PREEMPTIBLE, plan(3, 1.2 * lanes / 2, 3.0, 3.0), first, VirtualDevice(TRUTH, 1))
    log = pickle.loads(pickle.dumps(first.__dict__["log"]))
    again = Scheduler(lanes)
    for entry in log:
        if entry is None:
            again.learn()
        else:
            source, event, now_ns, commands = entry
            found = again.wake(now_ns) if event is None else again.handle(source, event, now_ns)
            assert found == commands
    assert len(log) > 200
    assert np.isfinite(again.latency.bound.multiplier)
