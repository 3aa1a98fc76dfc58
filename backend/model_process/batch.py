"""Several requests as one batch of arrays, and a batch's outputs as each request's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backend.engines.protocol import BatchResult
from backend.model_process.request import Pending
from backend.scheduler.messages import Finish, Launch
from backend.tensors import Array, Feeds

Answered = list[tuple[str, Array]] | Exception
"""Outputs of a request by name, or the error instead."""


class RowsError(ValueError):
    """An output has not one row per row of its batch; its text is a clause that says which."""


@dataclass(eq=False, slots=True)
class Batch:
    """Requests that run together. `launch`: the scheduler's decision, None where it was taken without one.

    id: as the scheduler knows it; negative where it did not number it. exec_ns and what follows it: see `BatchResult`.
    preempted: it was suspended for another one. leased: launched without asking, by a lease, when nothing
    else ran or waited. rerun: it ran again in parts; its times are those of all its runs. ended: it is being answered.
    """

    id: int
    lane: int
    requests: Sequence[Pending]
    launch: Launch | None
    launched_ns: int
    exec_ns: int = 0
    transfer_in_ns: int = 0
    transfer_out_ns: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    preempted: bool = False
    leased: bool = False
    rerun: bool = False
    ended: bool = False
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = sum(r.rows for r in self.requests)

    @property
    def preempts(self) -> bool:
        """True where the other batch on its lane is suspended for it."""
        return self.launch is not None and self.launch.preempts

    @property
    def whole(self) -> bool:
        """False where cancellations made it smaller than planned, or it ran in parts: its time teaches nothing then."""
        return not self.rerun and (self.launch is None or len(self.launch.requests) == len(self.requests))

    def ran(self, ran: BatchResult, given: Feeds) -> None:
        """Add a run's times. Bytes count where an engine reports that it moved them."""
        self.exec_ns += max(1, ran.exec_ns)
        self.transfer_in_ns += ran.transfer_in_ns
        self.transfer_out_ns += ran.transfer_out_ns
        if self.transfer_in_ns:
            self.bytes_in = sum(part.nbytes for parts in given.values() for part in parts)
        if self.transfer_out_ns:
            self.bytes_out = sum(output.nbytes for output in ran.outputs)

    def finish(self, *, failed: bool) -> Finish:
        """Message to the scheduler, with the measured times."""
        if failed or not self.whole:
            return Finish(self.id, None)
        return Finish(self.id, self.exec_ns, self.transfer_in_ns, self.transfer_out_ns, self.bytes_in, self.bytes_out)


def group_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Group of a request with inputs of these shapes, without its rows: requests of one group may share a batch."""
    return hash(tuple(sorted(shapes.items()))) >> 2


def feeds(requests: Sequence[Pending]) -> dict[str, list[Array]]:
    """Inputs of all requests, in their order; to be joined along the batch dimension."""
    return {name: [r.inputs[name] for r in requests] for name in requests[0].inputs}


def wanted(requests: Sequence[Pending]) -> list[str]:
    """Outputs that at least one of the requests asks for, in a stable order."""
    return list(dict.fromkeys(name for r in requests for name in r.wanted))


def split(requests: Sequence[Pending], names: Sequence[str], outputs: Sequence[Array]) -> list[list[tuple[str, Array]]]:
    """Rows of each request in the outputs that it asked for, in the order of `requests`.

    Raises RowsError where there are several and an output has not one row per row of the batch.
    """
    by_name = dict(zip(names, outputs, strict=True))
    if len(requests) == 1:
        return [[(name, by_name[name]) for name in requests[0].wanted]]
    rows = sum(r.rows for r in requests)
    for name, array in by_name.items():
        if array.ndim == 0 or array.shape[0] != rows:
            raise RowsError(f"output '{name}' has shape {list(array.shape)} for a batch of {rows} rows")
    parts, start = [], 0
    for r in requests:
        parts.append([(name, by_name[name][start : start + r.rows]) for name in r.wanted])
        start += r.rows
    return parts
