"""From work and solo latency to a load's features. The approximation is stated here and nowhere else."""

from __future__ import annotations

from predictor.workload import Load
from profiler.peaks import Peaks
from profiler.work import GraphWork

NEUTRAL_COMPUTE, NEUTRAL_L2, NEUTRAL_DRAM = 0.5, 0.1, 0.2
"""Features of a model whose work is unknown: about the median of convolutional and transformer models of 6 to 10
million parameters on a server core. The same at every batch size, so such models differ by their latency only."""


def load_of(work: GraphWork, solo_ns: int, peaks: Peaks) -> Load:
    """Average rates over one run alone, as shares of what one core, or the GPU, can do at most.

    - compute: operations per second over the peak of a matrix product.
    - l2: all bytes per second over the rate of a copy inside the cache. Bytes are weights and activations, each
      moved once; fused layers move fewer and blocked kernels more, so this orders models rather than measures them.
    - dram: the part of these bytes that is expected to miss the cache, over the rate of a copy outside it. With
      footprint F and a share S of the last-level cache, F / (F + S) is taken to miss. Between runs alone, a cache of
      size S would miss either nothing or all of a cyclic pass; the smooth form stands for what is not known here
      (the replacement policy, and neighbours who take part of the share) and keeps small and large models apart.

    Counters of the hardware would be better and are not at hand in containers. Averages hide phases inside a run.
    """
    seconds = solo_ns * 1e-9
    missing_bytes = work.bytes_moved * work.bytes_moved / max(1, work.bytes_moved + peaks.cache_share_bytes)
    return Load(
        solo_ns,
        compute=_share(work.operations, seconds * peaks.operations_per_s),
        l2=_share(work.bytes_moved, seconds * peaks.cache_bytes_per_s),
        dram=_share(missing_bytes, seconds * peaks.dram_bytes_per_s),
    )


def neutral_load(solo_ns: int) -> Load:
    """For a model whose work is not known."""
    return Load(solo_ns, NEUTRAL_COMPUTE, NEUTRAL_L2, NEUTRAL_DRAM)


def _share(amount: float, at_most: float) -> float:
    return min(1.0, max(0.0, amount / at_most))
