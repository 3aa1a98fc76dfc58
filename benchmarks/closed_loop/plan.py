"""Plan of the comparison next to a closed loop: models, servers, loops; the whole of it, and a quick form for tests."""

from __future__ import annotations

import msgspec

from benchmarks.compare.servers import OURS, RECORDING, REFUSED, SERVERS, Ours, Stock
from benchmarks.rivals import RIVALS

_NO_RIVALS = (RECORDING, REFUSED)
_NEEDS_SAMPLES = ("isochrone, gpulets",)
"""Its predictor is fitted once, to samples that another benchmark records."""


def _takes_part(name: str) -> bool:
    """False of whatever refuses requests: the slowest would be missing from its p99."""
    kind = SERVERS[name]
    refuses = isinstance(kind, Stock) and kind.timeouts
    return not refuses and name not in (*_NO_RIVALS, *_NEEDS_SAMPLES)


class ClosedLoopPlan(msgspec.Struct, frozen=True):
    """One request of `high` per gap_s, next to so many outstanding ones of `low`, and next to none.

    slo_factor: the high one's deadline over its profiled p95 alone; the low one has none. seconds: of each number
    outstanding, after warm_s. repeats: of all servers.
    """

    high: str = "resnet50"
    low: str = "roberta_base"
    servers: tuple[str, ...] = tuple(name for name in SERVERS if _takes_part(name))
    outstanding: tuple[int, ...] = (1, 8)
    gap_s: float = 0.1
    slo_factor: float = 4.0
    seconds: float = 12.0
    warm_s: float = 1.0
    repeats: int = 3
    profile_seconds: float = 1.2
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)

    @property
    def models(self) -> tuple[str, ...]:
        return self.high, self.low

    @property
    def phases(self) -> tuple[int, ...]:
        """Numbers outstanding in a turn: none first."""
        return 0, *self.outstanding

    def preempts(self, server: str) -> bool:
        """True where a running batch can be suspended."""
        kind = SERVERS[server]
        return isinstance(kind, Ours) and kind.aware and (kind.rival is None or RIVALS[kind.rival].policy.preempts)


FULL = ClosedLoopPlan()
QUICK = ClosedLoopPlan(
    servers=("stock, rate limiter", OURS),
    outstanding=(2,),
    seconds=1.0,
    warm_s=0.2,
    repeats=1,
    profile_seconds=0.3,
    batch_sizes=(1, 8),
)
