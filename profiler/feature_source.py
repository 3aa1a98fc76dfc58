"""Where a profile's features come from. Each source says its name, which the profile keeps.

Whoever has the hardware's own counters (on NVIDIA: `profiler.nsight`) takes these instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from predictor.workload import Load
from profiler.child import ChildError
from profiler.features import load_of, neutral_load
from profiler.peaks import Peaks, PeaksError
from profiler.work import GraphWork, work_in_child


class FeatureSource(Protocol):
    """Features of one model, ready before its timing starts."""

    @property
    def name(self) -> str:
        """What the profile says of the features: "nsight", "graph", "estimate", "neutral"."""

    @property
    def note(self) -> str | None:
        """One sentence about what is less than usual."""

    @property
    def lasting(self) -> bool:
        """Whether another attempt would give no better features."""

    def load(self, batch_size: int, solo_ns: int) -> Load:
        """Shares of the device's peak over a run of `solo_ns` nanoseconds."""


class GraphFeatures:
    """Operations and bytes counted in the ONNX graph, over the peaks of one core or of a GPU.

    why: there are no better ones where a GPU's peaks are an estimate.
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
    """The same for every model, where nothing better is known."""

    name = "neutral"

    def __init__(self, why: str, *, lasting: bool = True) -> None:
        self.note: str | None = f"features are neutral values, since {why}"
        self.lasting = lasting

    def load(self, batch_size: int, solo_ns: int) -> Load:  # noqa: ARG002
        """See `FeatureSource.load`."""
        return neutral_load(solo_ns)


def feature_source(
    path: Path, batch_sizes: Sequence[int], peaks: Callable[[], Peaks], why: str | None = None
) -> FeatureSource:
    """The best there is without counters for the graph file `path`. May run child processes; never fails.

    why: counters were looked for in vain.
    """
    reasons = [why] if why else []
    if path.suffix != ".onnx":
        return NeutralFeatures(" and ".join([*reasons, f"{path.name} is not an ONNX graph"]))
    try:
        return GraphFeatures(work_in_child(path, batch_sizes), peaks(), why)
    except ChildError as error:
        return NeutralFeatures(" and ".join([*reasons, str(error)]), lasting=False)
    except PeaksError as error:
        return NeutralFeatures(" and ".join([*reasons, str(error)]))
