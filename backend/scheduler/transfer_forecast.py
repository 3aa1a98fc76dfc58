"""What is being moved between host and device, and will be: for how long each batch's tensors are under way.

Only batches that move something are known here. A batch's phases are forecast, for only its end is reported: its
inputs travel from its launch on, beside those of others; its outputs once it has been executed, beside others' outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from backend.scheduler.state import BatchKey
from predictor.link_sharing import Link, finishes
from predictor.transfers import NO_TRANSFERS, TransferTimes


class Passage(NamedTuple):
    """What one batch's transfers still take, beside the others'."""

    in_ns: float
    out_ns: float

    @property
    def both_ns(self) -> float:
        return self.in_ns + self.out_ns


class Traffic:
    """Times are nanoseconds of one clock and never go back."""

    def __init__(self) -> None:
        self._arriving = Link[BatchKey]()
        self._leaving: dict[BatchKey, float] = {}
        """What the outputs of each batch that has not ended take alone."""
        self._now_ns = 0

    def __len__(self) -> int:
        """How many batches move anything."""
        return len(self._leaving)

    def __contains__(self, key: object) -> bool:
        return key in self._leaving

    def launch(self, key: BatchKey, work: TransferTimes, now_ns: int) -> None:
        """A batch's inputs set out; `advance` was called for this instant."""
        self._arriving.start(key, work.in_ns, now_ns)
        self._leaving[key] = work.out_ns
        self._now_ns = now_ns

    def finish(self, key: BatchKey, now_ns: int) -> None:
        """The batch is gone, whatever of it was forecast to be under way."""
        if key in self._arriving:
            self._arriving.end(key, now_ns)
        del self._leaving[key]

    def advance(self, now_ns: int) -> dict[BatchKey, float]:
        """How much of the time since the last call each batch that was arriving waited for its inputs."""
        since_ns, self._now_ns = self._now_ns, now_ns
        waited = {key: at_ns - since_ns for at_ns, key in self._arriving.ended(now_ns)}
        waited.update((key, now_ns - since_ns) for key in self._arriving)
        return waited

    def passages(
        self,
        takes_ns: Mapping[BatchKey, float],
        candidate: TransferTimes = NO_TRANSFERS,
        candidate_takes_ns: float = 0.0,
    ) -> tuple[dict[BatchKey, Passage], Passage]:
        """From the last `advance` on: of each batch, and of one more that is launched now.

        takes_ns: each batch's execution, from when its inputs are there.
        """
        arriving = self._arriving.left_ns(self._now_ns)
        *_, in_ns = ends = finishes([*((0.0, left_ns) for left_ns in arriving.values()), (0.0, candidate.in_ns)])
        arrive = dict(zip(arriving, ends, strict=False))
        leaving = [(arrive.get(key, 0.0) + takes_ns[key], alone_ns) for key, alone_ns in self._leaving.items()]
        leaving.append((in_ns + candidate_takes_ns, candidate.out_ns))
        spans = [end_ns - begin_ns for (begin_ns, _), end_ns in zip(leaving, finishes(leaving), strict=True)]
        found = {key: Passage(arrive.get(key, 0.0), span) for key, span in zip(self._leaving, spans, strict=False)}
        return found, Passage(in_ns, spans[-1])

    def check(self, running: Collection[BatchKey]) -> None:
        """What moves belongs to a batch that runs."""
        assert set(self._arriving) <= set(self._leaving) <= set(running)
