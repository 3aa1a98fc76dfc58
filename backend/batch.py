"""Several requests as one batch of arrays, and a batch's outputs as each request's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.engines.protocol import Array
from backend.request import Pending
from backend.scheduler.messages import Launch


@dataclass(eq=False, slots=True)
class Batch:
    """Requests that run together. `launch`: the scheduler's decision, None where it was taken without one.

    id: as the scheduler knows it; negative where it did not number it.
    """

    id: int
    lane: int
    requests: Sequence[Pending]
    launch: Launch | None
    launched_ns: int
    exec_ns: int = 0
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = sum(r.rows for r in self.requests)

    @property
    def leased(self) -> bool:
        """Launched without asking, by a lease: nothing else ran or waited then."""
        return self.launch is not None and self.id < 0

    def told_ns(self) -> int | None:
        """What the scheduler learns: nothing of a batch that cancellations made smaller than it was planned."""
        complete = self.launch is None or len(self.launch.requests) == len(self.requests)
        return self.exec_ns if complete else None


def feeds(requests: Sequence[Pending]) -> dict[str, list[Array]]:
    """Each input of all requests, in their order; to be joined along the batch dimension."""
    return {name: [r.inputs[name] for r in requests] for name in requests[0].inputs}


def wanted(requests: Sequence[Pending]) -> list[str]:
    """Every output that one of the requests asks for, in a stable order."""
    return list(dict.fromkeys(name for r in requests for name in r.wanted))


def split(requests: Sequence[Pending], names: Sequence[str], outputs: Sequence[Array]) -> list[list[tuple[str, Array]]]:
    """Each request's own rows of the outputs it asked for, in the order of `requests`.

    Raises ValueError where an output has not one row per row of the batch.
    """
    by_name = dict(zip(names, outputs, strict=True))
    if len(requests) == 1:
        return [[(name, by_name[name]) for name in requests[0].wanted]]
    rows = sum(r.rows for r in requests)
    for name, array in by_name.items():
        if array.ndim == 0 or array.shape[0] != rows:
            raise ValueError(f"output '{name}' has shape {list(array.shape)} for a batch of {rows} rows")
    parts, start = [], 0
    for r in requests:
        parts.append([(name, by_name[name][start : start + r.rows]) for name in r.wanted])
        start += r.rows
    return parts
