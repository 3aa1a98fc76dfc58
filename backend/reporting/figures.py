"""Figures of a report: deadlines, causes of lateness, who slows whom, predictions. Sums only, no words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from backend.reporting.attribution import Attribution, Blame, Cause, LateRequest, Parts, SlowedBatch
from backend.reporting.recording import ExecutedBatch, Recording


class Deadlines(NamedTuple):
    """Numbers of requests of one model and class. open: failed, cancelled, or not ended where the log has it."""

    model: str
    priority: int
    requests: int
    met: int
    missed: int
    rejected: int
    no_deadline: int
    open: int

    @property
    def met_share(self) -> float | None:
        """Share of those with a deadline that were met, missed or rejected."""
        due = self.met + self.missed + self.rejected
        return self.met / due if due else None


class Lateness(NamedTuple):
    """Late requests of one model, or of all, and the sums of their parts, which add up to total_ns."""

    model: str | None
    requests: int
    total_ns: int
    slo_ns: int
    parts: Parts

    def of(self, *causes: Cause) -> int:
        """Nanoseconds of these causes, whoever caused them."""
        return sum(span_ns for part, span_ns in self.parts.items() if part.cause in causes)

    def share(self, *causes: Cause) -> float:
        """The same as a share of all."""
        return self.of(*causes) / max(1, self.total_ns)

    def by_model(self, *causes: Cause) -> Counter[str]:
        """Nanoseconds of these causes by the models that caused them."""
        found: Counter[str] = Counter()
        for part, span_ns in self.parts.items():
            if part.cause in causes and part.model is not None:
                found[part.model] += span_ns
        return found


class PairCost(NamedTuple):
    """Device time that batches of `model` took longer because of batches of `by`. batches, exec_ns: all of
    `model`'s.
    """

    model: str
    by: str
    cost_ns: int
    batches: int
    exec_ns: int

    @property
    def per_batch_ns(self) -> float:
        return self.cost_ns / self.batches

    @property
    def share(self) -> float:
        """Share of the execution of all of `model`'s batches."""
        return self.cost_ns / max(1, self.exec_ns)


class Predicted(NamedTuple):
    """Execution of a model's batches as predicted at launch, against what was measured.

    error_p50, error_p95: |predicted − measured| / measured; held: share of batches within their upper bound, None where
    the log has no bound. Batches that were suspended are left out.
    """

    model: str
    batches: int
    measured_ns: float
    solo_ns: float
    error_p50: float
    error_p95: float
    held: float | None


class Figures(NamedTuple):
    """All of a log. late: by model, the most late requests first; pairs: the costliest first."""

    deadlines: list[Deadlines]
    late: list[Lateness]
    all_late: Lateness
    pairs: list[PairCost]
    not_explained: dict[str, int]
    """Nanoseconds beyond solo latency that no co-runner explains, by model."""
    predicted: list[Predicted]
    models: list[str]


def figures_of(log: Recording, found: Attribution) -> Figures:
    by_model: defaultdict[str, list[LateRequest]] = defaultdict(list)
    for request in found.late:
        by_model[request.model].append(request)
    late = sorted((lateness(model, requests) for model, requests in by_model.items()), key=lambda sums: -sums.requests)
    pairs, not_explained = _pairs(found.batches)
    models = {batch.own.model for batch in log.batches} | {model for model, _ in log.outcomes}
    return Figures(
        [_deadlines(*key, counts) for key, counts in sorted(log.outcomes.items())],
        late,
        lateness(None, found.late),
        pairs,
        not_explained,
        _predicted(log.batches),
        sorted(models),
    )


def lateness(model: str | None, requests: Sequence[LateRequest]) -> Lateness:
    """Sum up late requests."""
    parts: Parts = Counter[Blame]()
    for request in requests:
        for part, span_ns in request.parts.items():
            parts[part] += span_ns
    total_ns, slo_ns = sum(r.total_ns for r in requests), sum(r.slo_ns for r in requests)
    return Lateness(model, len(requests), total_ns, slo_ns, parts)


def _deadlines(model: str, priority: int, counts: Counter[str]) -> Deadlines:
    left = counts["failed"] + counts["cancelled"] + counts["unknown"]
    return Deadlines(
        model,
        priority,
        counts.total(),
        counts["met"],
        counts["missed"],
        counts["rejected"],
        counts["no deadline"],
        left,
    )


def _pairs(batches: Iterable[SlowedBatch]) -> tuple[list[PairCost], dict[str, int]]:
    cost_ns: Counter[tuple[str, str]] = Counter()
    not_explained: Counter[str] = Counter()
    count: Counter[str] = Counter()
    exec_ns: Counter[str] = Counter()
    for batch, interference in batches:
        model = batch.own.model
        count[model] += 1
        exec_ns[model] += batch.running_ns
        for by, span_ns in interference.items():
            if by is None:
                not_explained[model] += span_ns
            else:
                cost_ns[model, by] += span_ns
    pairs = [PairCost(*pair, cost, count[pair[0]], exec_ns[pair[0]]) for pair, cost in cost_ns.items()]
    return sorted(pairs, key=lambda pair: -pair.cost_ns), dict(not_explained)


def _predicted(batches: Iterable[ExecutedBatch]) -> list[Predicted]:
    by_model: defaultdict[str, list[ExecutedBatch]] = defaultdict(list)
    for batch in batches:
        if batch.predicted_ns is not None and not batch.suspended:
            by_model[batch.own.model].append(batch)
    return [_prediction(model, found) for model, found in sorted(by_model.items())]


def _prediction(model: str, batches: Sequence[ExecutedBatch]) -> Predicted:
    measured = np.array([b.exec_ns for b in batches], np.float64)
    predicted = np.array([b.predicted_ns for b in batches], np.float64)
    p50, p95 = np.percentile(np.abs(predicted - measured) / measured, (50, 95)).tolist()
    bounded = [b.exec_ns <= b.bound_ns for b in batches if b.bound_ns is not None]
    solo_ns = float(np.mean([b.own.load.solo_ns for b in batches]))
    held = sum(bounded) / len(bounded) if bounded else None
    return Predicted(model, len(batches), float(measured.mean()), solo_ns, p50, p95, held)
