"""A batch to a predictor: its solo latency and the share of the device it then uses.

Data only. Where the numbers come from (a profile, an estimate, a device's counters) must not enter here.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

FEATURES = ("compute", "l2", "dram")
"""Names of a load's features in the order of the vectors; each a share of the device's peak, 0..1."""

SOLO_NS_MAX = 10**15
"""11 days: beside 1,000 other such batches the sum still fits a message."""


class Load(msgspec.Struct, frozen=True, array_like=True):
    """A solo run of one (model, batch size). kernel_ns: mean time of its kernels on a GPU, its work per kernel; 0 where
    nobody has told.

    The three shares are the inputs of the interference model of gpulets (Choi et al., ATC'22) with the
    paper's addition of compute (arXiv 2512.18725, section 4.1).
    """

    solo_ns: int
    compute: float
    l2: float
    dram: float
    kernel_ns: int = 0

    @property
    def features(self) -> tuple[float, float, float]:
        """Shares of the device's peak, ordered as `FEATURES`."""
        return (self.compute, self.l2, self.dram)


class ModelProfile(msgspec.Struct, frozen=True, array_like=True):
    """The loads of one model over batch sizes, ascending and not empty; sizes between are interpolated."""

    batch_sizes: tuple[int, ...]
    loads: tuple[Load, ...]

    def __post_init__(self) -> None:
        if not self.batch_sizes or len(self.batch_sizes) != len(self.loads):
            raise ValueError(f"a profile needs one load per batch size, got {len(self.loads)} for {self.batch_sizes}")
        if list(self.batch_sizes) != sorted(set(self.batch_sizes)) or self.batch_sizes[0] < 1:
            raise ValueError(f"batch sizes of a profile must ascend from 1 or more, got {self.batch_sizes}")
        for load in self.loads:
            if load.solo_ns <= 0:
                raise ValueError(f"a solo latency must be positive, got {load.solo_ns} ns")
            if load.solo_ns > SOLO_NS_MAX:
                raise ValueError(f"a solo latency must be at most {SOLO_NS_MAX} ns, got {load.solo_ns} ns")
            if not all(0.0 <= share <= 1.0 for share in load.features):  # NaN is neither
                raise ValueError(f"the shares of a load must lie in 0..1, got {load.features}")
            if load.kernel_ns < 0:
                raise ValueError(f"the mean time of a load's kernels must not be negative, got {load.kernel_ns} ns")

    def at(self, batch_size: int) -> Load:
        """The load at `batch_size`: profiled, interpolated, or extrapolated in proportion to the rows."""
        sizes, loads = self.batch_sizes, self.loads
        i = bisect_left(sizes, batch_size)
        if i < len(sizes) and sizes[i] == batch_size:
            return loads[i]
        if i == len(sizes):  # beyond the last: time grows with the rows, the shares stay
            last = loads[-1]
            return msgspec.structs.replace(last, solo_ns=min(last.solo_ns * batch_size // sizes[-1], SOLO_NS_MAX))
        if i == 0:
            return loads[0]
        low, high = loads[i - 1], loads[i]
        t = (batch_size - sizes[i - 1]) / (sizes[i] - sizes[i - 1])
        return Load(
            round(low.solo_ns + t * (high.solo_ns - low.solo_ns)),
            low.compute + t * (high.compute - low.compute),
            low.l2 + t * (high.l2 - low.l2),
            low.dram + t * (high.dram - low.dram),
            round(low.kernel_ns + t * (high.kernel_ns - low.kernel_ns)) if low.kernel_ns and high.kernel_ns else 0,
        )
