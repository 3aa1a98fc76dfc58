"""Attribution: a late request's time from arrival to answer, split exactly over its causes."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple, get_args

from backend.reporting.exact_split import split_exactly
from backend.reporting.interference import interference_of
from backend.reporting.lane_time import Holder, LaneTime
from backend.reporting.recording import Answer, ExecutedBatch, Recording

Cause = Literal["queueing", "held", "execution", "interference", "not explained", "suspended", "transfers", "overhead"]
"""queueing: waiting while every lane was taken, by whose batches had them. held: waiting though a lane was free, by who
ran meanwhile. execution: its batch's, as long as it takes alone. interference: what co-runners added, by their models.
not explained: execution beyond that. suspended: its batch stood still, for whose batch. transfers: of its inputs and
outputs. overhead: between launch and answer, beside all these.
"""
CAUSES: tuple[Cause, ...] = get_args(Cause)
BY_OTHERS: tuple[Cause, ...] = ("queueing", "held", "interference", "suspended")
"""Causes that are some model's doing."""


class Blame(NamedTuple):
    """A cause, and the model whose batches it is; None where it is nobody's."""

    cause: Cause
    model: str | None = None


Parts = Counter[Blame]
"""Nanoseconds of each part. Negative ones are possible: of interference, where a batch took less than alone."""


class LateRequest(NamedTuple):
    """A request that was answered after its deadline. The parts add up to `total_ns`, its time from arrival to answer.

    slo_ns: from arrival to deadline.
    """

    model: str
    priority: int
    arrival_ns: int
    ended_ns: int
    slo_ns: int
    parts: Parts

    @property
    def total_ns(self) -> int:
        return self.ended_ns - self.arrival_ns


class SlowedBatch(NamedTuple):
    """A batch, and who added how much to its execution; None: not explained."""

    batch: ExecutedBatch
    interference: dict[str | None, int]


class Attribution:
    """All batches and late requests of a log, each with its parts."""

    def __init__(self, log: Recording) -> None:
        self.batches = [SlowedBatch(*pair) for pair in zip(log.batches, interference_of(log.batches), strict=True)]
        self.lane_time = None if log.lanes is None else LaneTime(log.spans, log.lanes)
        self.late = self._late_requests(log)

    def _late_requests(self, log: Recording) -> list[LateRequest]:
        if self.lane_time is None:
            return []
        interference = {id(found.batch): found.interference for found in self.batches}
        return [late_request(batch, answer, interference[id(batch)], self.lane_time) for batch, answer in log.missed()]


def late_request(
    batch: ExecutedBatch, answer: Answer, interference: dict[str | None, int], lane_time: LaneTime
) -> LateRequest:
    """Split one request's time."""
    assert answer.deadline_ns is not None
    parts, solo_ns = Parts(), batch.own.load.solo_ns
    suspended_ns = batch.exec_ns - batch.running_ns
    parts[Blame("execution")] = solo_ns
    for model, span_ns in interference.items():
        parts[Blame("not explained") if model is None else Blame("interference", model)] = span_ns
    by_model: Counter[str] = Counter()
    for suspension in batch.suspended:
        by_model[suspension.model] += suspension.span_ns
    for name, span_ns in split_exactly(suspended_ns, by_model).items():
        parts[Blame("suspended", name)] = span_ns
    parts[Blame("transfers")] = batch.transfers_ns
    left_ns = batch.ended_ns - answer.arrival_ns - batch.exec_ns - batch.transfers_ns
    around_ns = batch.ended_ns - batch.launched_ns - batch.exec_ns - batch.transfers_ns
    overhead_ns = min(max(0, around_ns), left_ns)  # under a lease it began before the scheduler heard of it
    parts[Blame("overhead")] = overhead_ns
    launched_ns = answer.arrival_ns + left_ns - overhead_ns
    held_by = lane_time.between(answer.arrival_ns, launched_ns)
    for holder, span_ns in split_exactly(launched_ns - answer.arrival_ns, held_by).items():
        parts[_waiting(holder)] += span_ns
    found = LateRequest(
        batch.own.model,
        answer.priority,
        answer.arrival_ns,
        batch.ended_ns,
        answer.deadline_ns - answer.arrival_ns,
        parts,
    )
    assert sum(parts.values()) == found.total_ns, (batch, answer)
    return found


def _waiting(holder: Holder) -> Blame:
    return Blame("queueing" if holder.full else "held", holder.model)
