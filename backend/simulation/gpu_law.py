"""A law of how batches slow each other down on a GPU that takes turns kernel by kernel. Emulated: no GPU is asked.

With u the share of its solo time that a batch keeps the GPU busy and w its work per kernel (how long it holds the GPU
per turn), a batch i beside others gets its turn after one kernel of each of them:

    x_i = u_i + (u_i / w_i) · Σ_{j≠i} u_j · w_j          the GPU time wanted per unit of i's solo time
    s_i = h_i · (1 + x_i^q − u_i^q)^(1/q)                q = 4: what fits into the idle share 1 − u_i costs nothing

h_i is the product of a fixed factor per ordered pair (i, j), exp(N(0, `PAIR_SD`)): what neither counters nor u and w
tell. `python -m benchmarks.emulated --fit` holds the law against measured co-locations of open data, and says how well
it does; docs/how-to/emulate.md says what was measured on which GPU, and what is assumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from math import exp
from statistics import NormalDist

PAIR_SD = 0.08
"""Standard deviation of the logarithm of the factor per ordered pair (Gavel, V100: what the law leaves unexplained)."""
SATURATION = 4.0
"""The exponent q (ParvaGPU, A100: from 2 and 5 copies to 3 and 4)."""
TIME_SLICE_COST = 1.11
"""What n processes in time slices take, as a multiple of n (YOLOS-small on an A100, 3 to 7 clients: 1.11)."""
PARTITION_COST = 0.15
"""What a co-runner that is busy all the time adds on multiprocessors of its own: memory and caches are still shared
(disjoint `mps_percent` shares on an A100: 1.04 to 1.17)."""

_NORMAL = NormalDist()


class Regime(Enum):
    """Way in which batches of several models share a GPU."""

    SHARED = "shared"
    """Kernels of all take turns: streams of one process, or MPS at 100 %."""
    PARTITIONS = "partitions"
    """Each has multiprocessors of its own: MPS with `mps_percent` that add up to 100 or less."""
    TIME_SLICES = "time slices"
    """Processes without MPS: the whole GPU is one's, then the next one's."""


@dataclass(frozen=True)
class KernelDemand:
    """A batch's demand: its model, its size in rows, u in (0, 1], and w, relative to a kernel of 65 µs."""

    model: str
    batch_size: int
    busy_share: float
    work_per_kernel: float

    @property
    def pressure(self) -> float:
        """u · w, which adds up over co-runners."""
        return self.busy_share * self.work_per_kernel

    @property
    def sensitivity(self) -> float:
        """u / w, by which a batch suffers from the others' pressure."""
        return self.busy_share / self.work_per_kernel


@dataclass(frozen=True)
class GpuLaw:
    """The law with its constants. seed: draws the factors per ordered pair; pair_sd 0: none.

    saturation: the exponent q; 1: without saturation, s = 1 + (u_i / w_i) · Σ u_j · w_j.
    """

    seed: int = 0
    pair_sd: float = PAIR_SD
    saturation: float = SATURATION
    regime: Regime = Regime.SHARED

    def slowdown(self, own: KernelDemand, co_runners: Sequence[KernelDemand]) -> float:
        """Execution time beside `co_runners`, all the time, over solo execution time; at least 1."""
        if not co_runners:
            return 1.0
        if self.regime is Regime.TIME_SLICES:
            return TIME_SLICE_COST * (1 + len(co_runners))
        factor = self._pair_factors(own, co_runners)
        if self.regime is Regime.PARTITIONS:
            return max(1.0, factor * (1.0 + PARTITION_COST * sum(other.busy_share for other in co_runners)))
        return max(1.0, factor * shared_slowdown(own, sum(other.pressure for other in co_runners), self.saturation))

    def _pair_factors(self, own: KernelDemand, co_runners: Iterable[KernelDemand]) -> float:
        if not self.pair_sd:
            return 1.0
        return exp(self.pair_sd * sum(_pair_normal(self.seed, own.model, other.model) for other in co_runners))


@lru_cache(maxsize=1 << 16)
def _pair_normal(seed: int, own: str, other: str) -> float:
    """A standard normal number that depends on nothing but the seed and the ordered pair of models."""
    digest = hashlib.blake2b(f"{seed}\0{own}\0{other}".encode(), digest_size=8).digest()
    return _NORMAL.inv_cdf((int.from_bytes(digest) + 0.5) / 2**64)


def shared_slowdown(own: KernelDemand, pressure: float, saturation: float = SATURATION) -> float:
    """The law without pair factors. pressure: Σ u_j · w_j of the co-runners."""
    wanted = own.busy_share + own.sensitivity * pressure
    return float((1.0 + wanted**saturation - own.busy_share**saturation) ** (1.0 / saturation))
