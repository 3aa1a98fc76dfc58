"""Sources of a profile's features: counted in the graph, or neutral. The profile keeps the source's name.

The hardware's own counters (on NVIDIA: `profiler.nsight`) are a source too, and better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from predictor.workload import Load
from profiler.child import Attend, ChildError
from profiler.peaks import Peaks, PeaksError
from profiler.work import GraphWork, work_in_child

NEUTRAL_COMPUTE, NEUTRAL_L2, NEUTRAL_DRAM = 0.5, 0.1, 0.2
"""Features of a model whose work is unknown: about the median of convolutional and transformer models of 6 to 10
million parameters on a server core. The same at every batch size, so such models differ by their latency only."""


class FeatureSource(Protocol):
    """Features of one model, ready before its timing starts."""

    @property
    def name(self) -> str:
        """`features_from` in the profile: "nsight", "graph", "estimate", "neutral"."""

    @property
    def note(self) -> str | None:
        """One sentence about what is less good than usual."""

    @property
    def lasting(self) -> bool:
        """Another attempt would give no better features."""

    def load(self, batch_size: int, solo_ns: int) -> Load:
        """Shares of the device's peak over a run of `solo_ns` nanoseconds."""


class GraphFeatures:
    """Operations and bytes counted in the ONNX graph, over the peaks of one core or of a GPU.

    why: the reason that there are no counters.
    """

    lasting = True

    def __init__(self, work: Mapping[int, GraphWork], peaks: Peaks, why: str | None = None) -> None:
        self._work, self._peaks = work, peaks
        self.name = "estimate" if peaks.estimated else "graph"
        notes = [f"features are estimated, since {why}"] if why else []
        if not all(one.complete for one in work.values()):
            notes.append("features are lower bounds, since some operators' shapes are not known")
        self.note = "; ".join(notes) or None

    def load(self, batch_size: int, solo_ns: int) -> Load:
        """See `FeatureSource.load`."""
        return load_of(self._work[batch_size], solo_ns, self._peaks)


class NeutralFeatures:
    """The same for every model, where nothing better is known. why: the reason."""

    name = "neutral"

    def __init__(self, why: str, *, lasting: bool = True) -> None:
        self.note: str | None = f"features are neutral values, since {why}"
        self.lasting = lasting

    def load(self, batch_size: int, solo_ns: int) -> Load:  # noqa: ARG002
        """See `FeatureSource.load`."""
        return Load(solo_ns, NEUTRAL_COMPUTE, NEUTRAL_L2, NEUTRAL_DRAM)


def feature_source(
    path: Path,
    batch_sizes: Sequence[int],
    peaks: Callable[[], Peaks],
    why: str | None = None,
    attend: Attend | None = None,
) -> FeatureSource:
    """The best there is without counters for the graph file `path`. May run child processes; never fails.

    why: the reason that there are no counters, where they were looked for. attend: to the child that counts.
    """
    reasons = [why] if why else []
    if path.suffix != ".onnx":
        return NeutralFeatures(" and ".join([*reasons, f"{path.name} is not an ONNX graph"]))
    try:
        return GraphFeatures(work_in_child(path, batch_sizes, attend), peaks(), why)
    except (ChildError, PeaksError) as error:
        return NeutralFeatures(" and ".join([*reasons, str(error)]), lasting=isinstance(error, PeaksError))


def load_of(work: GraphWork, solo_ns: int, peaks: Peaks) -> Load:
    """Average rates over one solo run, as shares of what one core, or the GPU, can do at most.

    - compute: operations per second over the peak of a matrix product.
    - l2: all bytes per second over the rate of a copy inside the cache. Bytes are weights and activations, each
      moved once; fused layers move fewer and blocked kernels more, so this orders models rather than measures them.
    - dram: the part of these bytes that is expected to miss the cache, over the rate of a copy outside it. With
      footprint F and a share S of the last-level cache, F / (F + S) is taken to miss. Between solo runs, a cache of
      size S would miss either nothing or all of a cyclic pass; the smooth form stands for what is not known here
      (the replacement policy, and co-runners that take part of the share) and keeps small and large models apart.

    Counters of the hardware would be better and are not at hand in containers. Averages hide phases inside a run.

    On a GPU, the mean time of a kernel is that of the run over the number of kernels expected of the graph.
    """
    seconds = solo_ns * 1e-9
    missing_bytes = work.bytes_moved * work.bytes_moved / max(1, work.bytes_moved + peaks.cache_share_bytes)
    return Load(
        solo_ns,
        compute=_share(work.operations, seconds * peaks.operations_per_s),
        l2=_share(work.bytes_moved, seconds * peaks.cache_bytes_per_s),
        dram=_share(missing_bytes, seconds * peaks.dram_bytes_per_s),
        kernel_ns=_kernel_ns(work, solo_ns, peaks),
    )


def _share(amount: float, at_most: float) -> float:
    return min(1.0, max(0.0, amount / at_most))


def _kernel_ns(work: GraphWork, solo_ns: int, peaks: Peaks) -> int:
    """Only a GPU's peaks are estimated; a core runs no kernels, and its batches take no turns by them."""
    return round(solo_ns / work.kernels) if peaks.estimated and work.kernels else 0
