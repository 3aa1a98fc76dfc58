"""Transfer times of a batch's tensors to the device and back: bandwidths and bytes, learned from finished batches.

The solo time of b bytes is a + b / B; transfers in one direction share B (see `predictor.link_sharing`). Nothing is
known at first, and a batch that moves nothing takes no time.
"""

from __future__ import annotations

from collections import deque
from math import isfinite
from typing import NamedTuple

import msgspec

from predictor.link_sharing import Span, solo_ns

_FORGETTING = 0.99
_NOISE = 0.1
"""A measured time differs from the expected one by this share of it."""
_LATENCY_UNIT_NS = 10_000.0
"""Unit of the first weight, a; the second, 1/B, is in ns per byte: so both are of the order of 1 before any sample."""
_LEAST_NS, _BYTES_PER_NS_MAX = 100.0, 1_000.0
"""Bounds of what a transfer is believed to take, and of its rate."""
_KEPT = 256
"""Measured transfers per direction that wait for those they shared the link with, and that are kept for later ones."""
_NEWEST_WEIGHT = 0.1
"""Weight of the newest batch in the moving average of bytes per row, which differ where shapes are dynamic."""


class TransferTimes(NamedTuple):
    """Solo times of a batch's inputs and outputs on the link."""

    in_ns: float
    out_ns: float


NO_TRANSFERS = TransferTimes(0.0, 0.0)

Sums = tuple[float, float, float, float, float]
_SUM_MAX = 1e30


class _Measured(NamedTuple):
    size: int
    span: Span


class DirectionModel:
    """One direction of a link: [a, 1/B] by least squares on [1, bytes]. Constant in size, but for what is pending.

    The past fades out of the sums and the prior's pull stays, so that nothing grows however little sizes differ.
    """

    def __init__(self) -> None:
        self._sums: Sums = (0.0,) * 5
        """Σ λ^age of x₁², x₁x₂, x₂², x₁y, x₂y."""
        self._latency_ns = self._ns_per_byte = 0.0
        self._pending: deque[_Measured] = deque(maxlen=_KEPT)
        self._past: deque[Span] = deque(maxlen=_KEPT)

    def __len__(self) -> int:
        """The number of recorded transfers that wait to be learned from."""
        return len(self._pending)

    def solo_ns(self, size: float) -> float:
        """Time of `size` bytes while nothing else moves this way; 0 while nothing is known."""
        return self._latency_ns + size * self._ns_per_byte if size else 0.0

    def record(self, size: int, span: Span) -> None:
        """A measured transfer. Its solo time is known once all that shared the link with it were recorded."""
        if span.end_ns > span.begin_ns:
            self._pending.append(_Measured(size, span))

    def learn_pending(self, until_ns: float) -> None:
        """Learn from those that were over by `until_ns`; all that began before it were recorded."""
        moves = list(self._pending)
        others = [*self._past, *(move.span for move in moves)]
        self._pending.clear()
        for move in moves:
            own = move.span
            if own.end_ns > until_ns:
                self._pending.append(move)
                continue
            shared = [o for o in others if o is not own and o.begin_ns < own.end_ns and o.end_ns > own.begin_ns]
            self.learn_one(move.size, solo_ns(own, shared))
            self._past.append(own)
        horizon_ns = min([until_ns, *(move.span.begin_ns for move in self._pending)])
        self._past = deque((span for span in self._past if span.end_ns > horizon_ns), _KEPT)

    def learn_one(self, size: float, solo_ns: float) -> None:
        """From the solo time of `size` bytes.

        Raises ValueError, unchanged, on a time that is no positive number or a size below 0.
        """
        if not (isfinite(solo_ns) and solo_ns > 0.0 and isfinite(size) and size >= 0.0):
            raise ValueError(f"cannot learn from a transfer of {size} bytes in {solo_ns} ns")
        solo_ns = max(solo_ns, _LEAST_NS, size / _BYTES_PER_NS_MAX)
        # By the expected time, not the measured one: else what is fast by chance would count for more. What took
        # several times as long says less, such as a copy that was suspended for a second.
        unit_ns = _NOISE * max(self.solo_ns(size), 0.25 * solo_ns)
        x, z, y = _LATENCY_UNIT_NS / unit_ns, size / unit_ns, solo_ns / unit_ns
        self._sums = _faded(self._sums, (x * x, x * z, z * z, x * y, z * y))
        self._solve()

    def state(self) -> list[float]:
        """All that it learned."""
        return list(self._sums)

    def restore(self, state: object) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        sums = msgspec.convert(state, Sums)
        xx, xz, zz, _, _ = sums
        if not all(0.0 <= value < _SUM_MAX for value in sums) or xz * xz >= (xx + 1.0) * (zz + 1.0):
            raise ValueError(f"sums of squares and products of numbers that are not negative are expected, got {sums}")
        self._sums = sums
        self._solve()

    def _solve(self) -> None:
        """The weights that are not below 0."""
        xx, xz, zz, xy, zy = self._sums
        xx, zz = xx + 1.0, zz + 1.0  # the prior: 0, with a variance of 1
        latency, per_byte = xy * zz - zy * xz, zy * xx - xy * xz
        if latency <= 0.0:
            latency, per_byte = 0.0, zy / zz
        elif per_byte <= 0.0:
            latency, per_byte = xy / xx, 0.0
        else:
            determinant = xx * zz - xz * xz
            latency, per_byte = latency / determinant, per_byte / determinant
        self._latency_ns, self._ns_per_byte = latency * _LATENCY_UNIT_NS, per_byte


def _faded(sums: Sums, more: Sums) -> Sums:
    a, b, c, d, e = (_FORGETTING * old + new for old, new in zip(sums, more, strict=True))
    return a, b, c, d, e


class TransferModel:
    """A device's two directions: host to device and device to host."""

    def __init__(self) -> None:
        self.h2d, self.d2h = DirectionModel(), DirectionModel()

    @property
    def pending(self) -> bool:
        """Recorded transfers wait to be learned from."""
        return bool(self.h2d or self.d2h)

    def learn_pending(self, until_ns: float) -> None:
        """See `DirectionModel.learn_pending`."""
        self.h2d.learn_pending(until_ns)
        self.d2h.learn_pending(until_ns)

    def state(self) -> dict[str, object]:
        """All that it learned, in numbers and lists."""
        return {"into": self.h2d.state(), "out": self.d2h.state()}

    def restore(self, state: object) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        saved = msgspec.convert(state, _Saved)
        h2d, d2h = DirectionModel(), DirectionModel()
        h2d.restore(saved.into)
        d2h.restore(saved.out)
        self.h2d, self.d2h = h2d, d2h


class _Saved(msgspec.Struct):
    into: list[float]
    out: list[float]


class BytesPerRow:
    """Bytes per row of one model's batches, each way: a moving average over those that ended."""

    def __init__(self, transfers: TransferModel, rows: int, bytes_in: int, bytes_out: int) -> None:
        self._transfers = transfers
        self._in, self._out = bytes_in / rows, bytes_out / rows

    def learn_one(self, rows: int, bytes_in: int, bytes_out: int) -> None:
        """From a batch of `rows` that ended."""
        self._in += _NEWEST_WEIGHT * (bytes_in / rows - self._in)
        self._out += _NEWEST_WEIGHT * (bytes_out / rows - self._out)

    def transfer_times(self, rows: int) -> TransferTimes:
        """Solo times of a batch of `rows`."""
        h2d, d2h = self._transfers.h2d, self._transfers.d2h
        return TransferTimes(h2d.solo_ns(self._in * rows), d2h.solo_ns(self._out * rows))
