"""Contents of a log as a report needs them, whether it holds events or samples. Data only.

All times are nanoseconds of one clock, which is that of Unix time where the log knows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from predictor.features import CoRunner, Own

Kind = Literal["events", "samples"]


class Answer(NamedTuple):
    """One request of a batch that ended well. deadline_ns: an instant; None where it has none."""

    arrival_ns: int
    deadline_ns: int | None
    priority: int


class Suspended(NamedTuple):
    """Time that a batch stood still for a batch of this model."""

    model: str
    span_ns: int


class ExecutedBatch(NamedTuple):
    """A batch that ended well. own: with its solo latency as known to the scheduler.

    launched_ns, ended_ns: when the scheduler decided it and heard of its end; exec_ns: measured, suspensions included;
    transfers_ns: of inputs and outputs. co_runners: begin and end as fractions of its execution without suspensions.
    predicted_ns, bound_ns: of its execution, at launch; None where the log has none. answers: empty where the log has
    batches only.
    """

    device: str
    own: Own
    launched_ns: int
    ended_ns: int
    exec_ns: int
    transfers_ns: int
    co_runners: tuple[CoRunner, ...]
    predicted_ns: int | None
    bound_ns: int | None = None
    suspended: tuple[Suspended, ...] = ()
    answers: tuple[Answer, ...] = ()

    @property
    def running_ns(self) -> int:
        """Execution without suspensions; no less than its solo latency: a suspended one may still run a little."""
        if not self.suspended:
            return self.exec_ns
        left_ns = self.exec_ns - sum(s.span_ns for s in self.suspended)
        return max(left_ns, min(self.exec_ns, self.own.load.solo_ns))


class LaneSpan(NamedTuple):
    """Time that a batch of this model had a lane and was not suspended."""

    begin_ns: int
    end_ns: int
    model: str


@dataclass
class Recording:
    """One log. lanes: of the device; None where the log does not tell. outcomes: number of requests by model, class and
    what became of them; empty where the log has batches only. notes: sentences on what is missing.
    """

    kind: Kind
    devices: tuple[str, ...]
    lanes: int | None
    begins_ns: int
    ends_ns: int
    batches: list[ExecutedBatch] = field(default_factory=list)
    spans: list[LaneSpan] = field(default_factory=list)
    outcomes: dict[tuple[str, int], Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def missed(self) -> Iterator[tuple[ExecutedBatch, Answer]]:
        """The requests that were answered after their deadline, each with its batch, in the order of their answers."""
        for batch in sorted(self.batches, key=lambda b: b.ended_ns):
            for answer in batch.answers:
                if answer.deadline_ns is not None and batch.ended_ns > answer.deadline_ns:
                    yield batch, answer
