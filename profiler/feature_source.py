"""Where a profile's features come from. Each source says its name, which the profile keeps.

The hardware's own counters (on NVIDIA: Nsight Compute's SM, L2 and DRAM throughput) are one more source: a class with
the members below, chosen in `feature_source`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from predictor.workload import Load
from profiler.child import ChildError
from profiler.features import load_of, neutral_load
from profiler.peaks import Peaks
from profiler.work import Work, work_in_child


class FeatureSource(Protocol):
    """Features of one model, ready before its timing starts."""

    @property
    def name(self) -> str:
        """What the profile says of the features: "graph", "neutral"."""

    @property
    def note(self) -> str | None:
        """One sentence about what is less than usual."""

    @property
    def lasting(self) -> bool:
        """Whether another attempt would give no better features."""

    def load(self, batch_size: int, solo_ns: int) -> Load:
        """Shares of the device's peak over a run of `solo_ns` nanoseconds."""


class GraphFeatures:
    """Operations and bytes counted in the ONNX graph, over the measured peaks of one core."""

    name = "graph"
    lasting = True

    def __init__(self, work: Mapping[int, Work], peaks: Peaks) -> None:
        self._work, self._peaks = work, peaks
        complete = all(one.complete for one in work.values())
        self.note = None if complete else "features are lower bounds, since some operators' shapes are not known"

    def load(self, batch_size: int, solo_ns: int) -> Load:
        """See `FeatureSource.load`."""
        return load_of(self._work[batch_size], solo_ns, self._peaks)


class NeutralFeatures:
    """The same for every model, where nothing better is known."""

    name = "neutral"

    def __init__(self, why: str, *, lasting: bool = True) -> None:
        self.note: str | None = f"features are neutral values, since {why}"
        self.lasting = lasting

    def load(self, batch_size: int, solo_ns: int) -> Load:  # noqa: ARG002
        """See `FeatureSource.load`."""
        return neutral_load(solo_ns)


def feature_source(
    path: Path, batch_sizes: Sequence[int], *, on_cpu: bool, peaks: Callable[[], Peaks]
) -> FeatureSource:
    """The best source there is for the model file `path` on this device. May run child processes; never fails."""
    if path.suffix != ".onnx":
        return NeutralFeatures(f"{path.name} is not an ONNX graph")
    if not on_cpu:
        return NeutralFeatures("a GPU's peaks and counters are not measured yet")
    try:
        return GraphFeatures(work_in_child(path, batch_sizes), peaks())
    except ChildError as error:
        return NeutralFeatures(str(error), lasting=False)
