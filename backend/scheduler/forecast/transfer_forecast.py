"""The remaining transfers of running batches between host and device, as they share the links.

Only batches that move something are known here. A batch's phases are forecast, for only its end is reported: its inputs
travel from its launch on, beside those of others; its outputs once it has been executed, beside others' outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from backend.scheduler.running_batch import BatchKey
from predictor.link_sharing import Link, finishes
from predictor.transfers import NO_TRANSFERS, TransferTimes


class RemainingTransfers(NamedTuple):
    """Remaining time of one batch's transfers, beside the others'."""

    h2d_ns: float
    d2h_ns: float

    @property
    def total_ns(self) -> float:
        return self.h2d_ns + self.d2h_ns


class TransferForecast:
    """Times are nanoseconds of one clock and never go back."""

    def __init__(self) -> None:
        self._h2d = Link[BatchKey]()
        """Inputs on their way."""
        self._d2h_solo_ns: dict[BatchKey, float] = {}
        """Time of each batch's outputs alone on the link; of all batches that have not ended."""
        self._now_ns = 0

    def __len__(self) -> int:
        """Number of batches that move anything."""
        return len(self._d2h_solo_ns)

    def __contains__(self, key: object) -> bool:
        return key in self._d2h_solo_ns

    def start(self, key: BatchKey, transfers: TransferTimes, now_ns: int) -> None:
        """Start a batch's inputs; `advance` was called for this instant."""
        self._h2d.start(key, transfers.in_ns, now_ns)
        self._d2h_solo_ns[key] = transfers.out_ns
        self._now_ns = now_ns

    def end(self, key: BatchKey, now_ns: int) -> None:
        """Forget a batch that has ended, whatever of it was forecast to be under way."""
        if key in self._h2d:
            self._h2d.end(key, now_ns)
        del self._d2h_solo_ns[key]

    def advance(self, now_ns: int) -> dict[BatchKey, float]:
        """Nanoseconds since the last call that each batch waited for its inputs."""
        since_ns, self._now_ns = self._now_ns, now_ns
        waited = {key: at_ns - since_ns for at_ns, key in self._h2d.ended(now_ns)}
        waited.update((key, now_ns - since_ns) for key in self._h2d)
        return waited

    def remaining(
        self,
        takes_ns: Mapping[BatchKey, float],
        candidate: TransferTimes = NO_TRANSFERS,
        candidate_takes_ns: float = 0.0,
    ) -> tuple[dict[BatchKey, RemainingTransfers], RemainingTransfers]:
        """Remaining times as of the last `advance`: of each batch, and of one more that is launched now.

        takes_ns: each batch's execution, from when its inputs are there.
        """
        h2d = self._h2d.left_ns(self._now_ns)
        *_, candidate_h2d_ns = ends = finishes([*((0.0, left_ns) for left_ns in h2d.values()), (0.0, candidate.in_ns)])
        arrive = dict(zip(h2d, ends, strict=False))
        d2h = [(arrive.get(key, 0.0) + takes_ns[key], solo_ns) for key, solo_ns in self._d2h_solo_ns.items()]
        d2h.append((candidate_h2d_ns + candidate_takes_ns, candidate.out_ns))
        spans = [end_ns - begin_ns for (begin_ns, _), end_ns in zip(d2h, finishes(d2h), strict=True)]
        each = zip(self._d2h_solo_ns, spans, strict=False)
        found = {key: RemainingTransfers(arrive.get(key, 0.0), span) for key, span in each}
        return found, RemainingTransfers(candidate_h2d_ns, spans[-1])

    def check(self, running: Collection[BatchKey]) -> None:
        """Assert that all transfers belong to running batches."""
        assert set(self._h2d) <= set(self._d2h_solo_ns) <= set(running)
