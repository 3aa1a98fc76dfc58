"""A law of how batches slow each other down on a GPU that takes turns kernel by kernel. Emulated: no GPU is asked.

With u the share of its solo time that a batch keeps the GPU busy and w its work per kernel (how long it holds the GPU
per turn), a batch i beside others gets its turn after one kernel of each of them:

    x_i = u_i / m_i^0.8 + (u_i / w_i) · Σ_{j≠i} p_ij · u_j · w_j      the GPU time wanted per unit of i's solo time
    s_i = h_i · (1 + x_i^q − u_i^q)^(1/q)                q = 4: what fits into the idle share 1 − u_i costs nothing

h_i is the product of a fixed factor per ordered pair (i, j), exp(N(0, `PAIR_SD`)): what neither counters nor u and w
tell. m_i is the share of the multiprocessors that i may use (`mps_percent`), p_ij is 1 within a class. `GpuEffects`
adds what a law of means leaves out. docs/explanation/emulated-gpu.md says what each constant rests on, and
`python -m benchmarks.emulated --fit` how far the law is off measured co-locations of open data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from math import exp
from typing import NamedTuple

PAIR_SD = 0.08
"""Standard deviation of the logarithm of the factor per ordered pair (Gavel, V100: what the law leaves unexplained)."""
SATURATION = 4.0
"""The exponent q (ParvaGPU, A100: from 2 and 5 copies to 3 and 4)."""
TIME_SLICE_COST = 1.11
"""What n processes in time slices take, as a multiple of n (YOLOS-small on an A100, 3 to 7 clients: 1.11)."""
PARTITION_COST = 0.15
"""What a co-runner that is busy all the time adds on multiprocessors of its own: memory and caches are still shared
(disjoint `mps_percent` shares on an A100: 1.04 to 1.17)."""
SHARE_EXPONENT = 0.8
"""Power of a share of the multiprocessors by which kernels get slower (ParvaGPU, A100, solo latency on MIG slices)."""
KERNEL_US = 65.0
"""Mean kernel time of a batch whose work per kernel is 1."""


class Regime(Enum):
    """Way in which batches of several models share a GPU."""

    SHARED = "shared"
    """Kernels of all take turns: streams of one process, or MPS; where `mps_percent` adds up to 100 or less, each has
    multiprocessors of its own."""
    TIME_SLICES = "time slices"
    """Processes without MPS: the whole GPU is one's, then the next one's."""


@dataclass(frozen=True)
class KernelDemand:
    """A batch's demand: its model, its size in rows, u in (0, 1], and w, relative to a kernel of `KERNEL_US`.

    share: of the multiprocessors, in (0, 1]. priority: class of its stream, 1 is the highest. power_w: drawn while it
    runs alone, above the idle GPU's.
    """

    model: str
    batch_size: int
    busy_share: float
    work_per_kernel: float
    share: float = 1.0
    priority: int = 1
    power_w: float = 0.0

    @property
    def pressure(self) -> float:
        """u · w, which adds up over co-runners."""
        return self.busy_share * self.work_per_kernel

    @property
    def sensitivity(self) -> float:
        """u / w, by which a batch suffers from the others' pressure; also its kernels per `KERNEL_US` of solo time."""
        return self.busy_share / self.work_per_kernel


class PairTerms(NamedTuple):
    """Terms of a co-runner in a batch's slowdown, which the pair decides. Each adds up over co-runners.

    normal: of their factor, see `GpuLaw.pair_sd`; pressure: that the batch bears; work: that times w; share and
    busy_share: the co-runner's own.
    """

    normal: float
    pressure: float
    work: float
    share: float
    busy_share: float


@dataclass(frozen=True)
class GpuEffects:
    """Effects that a law of means leaves out; each is off at 0, and all are off in `NO_EFFECTS`.

    noise_sd: standard deviation of the logarithm of a batch's solo latency (NVIDIA's published p95 over p50).
    tail_sd: of the logarithm of what co-runners add, where their kernels are much longer than its own (BERT of 4 ms:
    mean × 1.5 to 4.1, p99 × 2.2 to 11.8).
    launch_gap_us: added per kernel and running batch beyond two, without CUDA graphs (iGniter, V100).
    priority_relief: share of a lower class's pressure that a higher stream is spared, and that a lower one bears in
    addition (stream and MPS priorities: some 20 % of the extra time).
    mhz_per_w: by which the clock falls below boost_mhz per watt that the running batches would draw above power_cap_w,
    both beyond what the idle GPU draws (iGniter, V100: idle 53.5 W, cap 300 W).
    """

    noise_sd: float = 0.011
    tail_sd: float = 0.6
    launch_gap_us: float = 4.8
    priority_relief: float = 0.2
    mhz_per_w: float = 1.0
    boost_mhz: float = 1530.0
    power_cap_w: float = 246.5


NO_EFFECTS = GpuEffects(noise_sd=0.0, tail_sd=0.0, launch_gap_us=0.0, priority_relief=0.0, mhz_per_w=0.0)
_SLOWEST_CLOCK = 0.3
"""Share of boost_mhz below which no cap takes the clock."""


@dataclass(frozen=True)
class GpuLaw:
    """The law with its constants. seed: draws the factors per ordered pair; pair_sd 0: none.

    saturation: the exponent q; 1: without saturation, s = 1 + (u_i / w_i) · Σ u_j · w_j.
    """

    seed: int = 0
    pair_sd: float = PAIR_SD
    saturation: float = SATURATION
    regime: Regime = Regime.SHARED
    effects: GpuEffects = NO_EFFECTS

    def slowdowns(
        self, running: Sequence[KernelDemand], others: Sequence[Sequence[PairTerms]], luck: Sequence[float]
    ) -> list[float]:
        """Execution time of each beside all the others over its solo execution time.

        others: terms of all the others, of each, see `pair_terms`; luck: see `slowdown`.
        """
        found = list(map(self._slowdown, running, others, luck))
        clock = self.clock(running, found)
        return found if clock == 1.0 else [slowdown / clock for slowdown in found]

    def slowdown(self, own: KernelDemand, co_runners: Iterable[KernelDemand], luck: float = 0.0) -> float:
        """Execution time beside `co_runners`, all the time, over solo execution time on the whole GPU; at least 1.

        luck: the batch's own draw from a normal distribution, of its tail beside long kernels.
        """
        return self._slowdown(own, [self.pair_terms(own, other) for other in co_runners], luck)

    def pair_terms(self, own: KernelDemand, other: KernelDemand) -> PairTerms:
        """Terms of `other` in the slowdown of `own`. A co-runner's kernels precede those of lower classes."""
        normal = _pair_normal(self.seed, own.model, other.model) if self.pair_sd else 0.0
        below = (other.priority > own.priority) - (other.priority < own.priority)
        pressure = other.pressure * (1.0 - below * self.effects.priority_relief)
        return PairTerms(normal, pressure, pressure * other.work_per_kernel, other.share, other.busy_share)

    def _slowdown(self, own: KernelDemand, others: Sequence[PairTerms], luck: float) -> float:
        alone = shared_slowdown(own, 0.0, self.saturation)
        if not others:
            return alone
        if self.regime is Regime.TIME_SLICES:
            return TIME_SLICE_COST * (1 + len(others))
        normal, pressure, work, share, busy_share = map(sum, zip(*others, strict=True))
        factor = exp(self.pair_sd * normal)
        if own.share + share <= 1.0:
            return max(alone, factor * alone * (1.0 + PARTITION_COST * busy_share))
        beside = max(alone, factor * shared_slowdown(own, pressure, self.saturation))
        beside += self.effects.launch_gap_us / KERNEL_US * own.sensitivity * (len(others) - 1)
        return alone + (beside - alone) * self._tail(own, pressure, work, luck)

    def clock(self, running: Sequence[KernelDemand], slowdowns: Sequence[float]) -> float:
        """Clock over boost clock: a batch that takes s times as long draws its power above idle over s."""
        effects = self.effects
        draw_w = sum(one.power_w / s for one, s in zip(running, slowdowns, strict=True))
        lost_mhz = effects.mhz_per_w * max(0.0, draw_w - effects.power_cap_w)
        return max(_SLOWEST_CLOCK, 1.0 - lost_mhz / effects.boost_mhz)

    def _tail(self, own: KernelDemand, pressure: float, work: float, luck: float) -> float:
        """Factor, 1 in the mean, of what co-runners add: the longer their kernels, the fewer of them, by chance."""
        if not self.effects.tail_sd or not pressure:
            return 1.0
        deviation = self.effects.tail_sd * max(0.0, 1.0 - own.work_per_kernel / (work / pressure))
        return exp(deviation * luck - deviation**2 / 2)


@lru_cache(maxsize=1 << 16)
def _pair_normal(seed: int, own: str, other: str) -> float:
    """A standard normal number that depends on nothing but the seed and the ordered pair of models."""
    from statistics import NormalDist  # noqa: PLC0415 - some 3 ms that no process without an emulated device need spend

    digest = hashlib.blake2b(f"{seed}\0{own}\0{other}".encode(), digest_size=8).digest()
    return NormalDist().inv_cdf((int.from_bytes(digest) + 0.5) / 2**64)


def shared_slowdown(own: KernelDemand, pressure: float, saturation: float = SATURATION) -> float:
    """The law without pair factors. pressure: Σ u_j · w_j of the co-runners."""
    wanted = own.busy_share / own.share**SHARE_EXPONENT + own.sensitivity * pressure
    return float((1.0 + (wanted**saturation - own.busy_share**saturation)) ** (1.0 / saturation))
