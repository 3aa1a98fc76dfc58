"""One order of launches under all loads, in this process or through a server: rates from the models' profiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

from backend.load.arrivals import Arrival, Traffic, poisson
from backend.load.outcomes import MeasuredLoad, Outcome
from benchmarks.gpu_check.plan import SLO_MIN_MS
from benchmarks.gpu_check.records import CheckRecords, OrderTurn
from benchmarks.harness.loads import equal_traffic, expect_answers
from profiler.profile_file import ProfileFile

_WARM_UP_SEED = 10_000

Send = Callable[[Sequence[Arrival], bool], list[Outcome]]
"""Arrivals, and whether their batches are to be recorded → what became of them."""


def traffic_at(profiles: Mapping[str, ProfileFile], load: float, rate_max_per_s: float = inf) -> tuple[Traffic, ...]:
    """Equal rates of all models. A load of 1 is what one lane could answer alone, always with the best batch size.

    rate_max_per_s: of all models together.
    """
    rate = load / sum(1.0 / max(entry.rows_per_s for entry in file.entries) for file in profiles.values())
    return equal_traffic(profiles, min(rate, rate_max_per_s / len(profiles)), SLO_MIN_MS)


def seconds_of(rate_per_s: float, seconds: float, requests: int) -> float:
    """Length of a load that is to have no more than so many requests."""
    return min(seconds, requests / rate_per_s)


def take_turn(
    records: CheckRecords, where: str, lanes: int, order: str, send: Send, rate_max_per_s: float = inf
) -> OrderTurn:
    """Warms up, then sends all loads. Raises BenchmarkError where every request of one fails."""
    plan, profiles = records.plan, records.profiles()
    rates, measured, clocks = [], [], [records.target.clocks()]
    warm_up = traffic_at(profiles, plan.loads[0], rate_max_per_s)
    expect_answers(send(poisson(warm_up, plan.warm_up_seconds, _WARM_UP_SEED), False))
    for i, load in enumerate(plan.loads):
        traffic = traffic_at(profiles, load, rate_max_per_s)
        rates.append(sum(t.rate_per_s for t in traffic))
        seconds = seconds_of(rates[-1], plan.seconds, plan.requests)
        outcomes = expect_answers(send(poisson(traffic, seconds, plan.seed + i), True))
        measured.append(MeasuredLoad(order, load, 0, seconds, outcomes))
    return OrderTurn(where, lanes, order, rates, [*clocks, records.target.clocks()], measured)
