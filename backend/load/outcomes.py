"""Outcome of each request as its client saw it, and the figures that follow. No network, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Status = Literal["ok", "rejected", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times count from the start of the load. error: why it was rejected or failed."""

    model: str
    intended_s: float
    sent_s: float
    answered_s: float
    slo_ms: float
    priority: int
    status: Status
    error: str = ""

    @property
    def latency_ms(self) -> float:
        """Latency from the planned instant, so that a generator that lags does not flatter the server."""
        return (self.answered_s - self.intended_s) * 1e3

    @property
    def met(self) -> bool:
        return self.status == "ok" and self.latency_ms <= self.slo_ms


@dataclass(frozen=True)
class MeasuredLoad:
    """One load on one server once. seconds: of the plan that the outcomes stand for."""

    target: str
    load: float
    repeat: int
    seconds: float
    outcomes: list[Outcome]


class Summary(msgspec.Struct, frozen=True):
    """requests = met + missed + rejected + failed. p50_ms, p99_ms: of those answered with a result, NaN without any."""

    requests: int
    met: int
    missed: int
    rejected: int
    failed: int
    met_share: float
    p50_ms: float
    p99_ms: float
    goodput_per_s: float


def summarise(outcomes: Iterable[Outcome], seconds: float) -> Summary:
    """`seconds`: how long the load lasted that they are the outcomes of."""
    outcomes = list(outcomes)
    answered = [o.latency_ms for o in outcomes if o.status == "ok"]
    met = sum(o.met for o in outcomes)
    return Summary(
        requests=len(outcomes),
        met=met,
        missed=len(answered) - met,
        rejected=sum(o.status == "rejected" for o in outcomes),
        failed=sum(o.status == "failed" for o in outcomes),
        met_share=met / len(outcomes) if outcomes else math.nan,
        p50_ms=percentile(answered, 50),
        p99_ms=percentile(answered, 99),
        goodput_per_s=met / seconds if seconds > 0 else math.nan,
    )


def by_class(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Summary]:
    """Summaries of each priority class, the highest first."""
    classes = sorted({o.priority for o in outcomes})
    return {str(c): summarise((o for o in outcomes if o.priority == c), seconds) for c in classes}


def by_model(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Summary]:
    """Summaries of each model."""
    models = sorted({o.model for o in outcomes})
    return {model: summarise((o for o in outcomes if o.model == model), seconds) for model in models}


def first_error(outcomes: Iterable[Outcome]) -> str | None:
    """Error of the first request that failed; None where none did."""
    return next((o.error for o in outcomes if o.status == "failed"), None)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def lateness_ms(outcomes: Iterable[Outcome]) -> float:
    """Lateness of the generator itself, p99: beyond a few milliseconds it was part of what was measured."""
    return percentile([(o.sent_s - o.intended_s) * 1e3 for o in outcomes], 99)
