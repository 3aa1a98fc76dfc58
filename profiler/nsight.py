"""A batch's shares of a GPU's peaks and its work per kernel by the hardware's counters, which NVIDIA's Nsight Compute
(`ncu`) reads.

It runs every kernel by itself, several times over, with the caches empty. So its times tell how kernels compare, and
nothing of how long a batch takes. Clocks stay as they are: they are the whole GPU's, which may be serving.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from predictor.workload import FEATURES, Load
from profiler.child import ChildError, run_module

METRICS = {
    "compute": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "l2": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
}
"""Metrics of a multiprocessor, a slice of the second-level cache and the memory, in percent, by the feature's name."""
DURATION = "gpu__time_duration.sum"
TIMEOUT_S = 600.0
_OPTIONS = (
    *("--csv", "--page", "raw", "--print-units", "base"),
    *("--metrics", ",".join((*METRICS.values(), DURATION))),
    *("--profile-from-start", "off"),
    *("--target-processes", "all"),
    *("--clock-control", "none"),
)
_UNITS_NS = {"nsecond": 1.0, "ns": 1.0, "usecond": 1e3, "us": 1e3, "msecond": 1e6, "ms": 1e6, "second": 1e9, "s": 1e9}
_NOT_PERMITTED = "ERR_NVGPUCTRPERM"
_NEVER = ("LibraryNotLoaded", "driver resource was unavailable")
"""The profiler's library is missing, or another program has the counters, such as DCGM."""
_ERROR = "==ERROR== "
_SAYS_NOTHING = ("An error was reported by the ", "The application returned an error code")
"""The first precedes the reason, the second follows what the application said itself."""


class NsightError(RuntimeError):
    """There are no counters of a batch; the text is the reason, to follow "since"."""


class NoCountersError(NsightError):
    """There are no counters of any batch on this machine."""


class Kernel(NamedTuple):
    """One kernel of a batch: its duration, and its shares of the peaks in the order of `FEATURES`, 0..1."""

    duration_ns: float
    shares: tuple[float, float, float]


class Counted(NamedTuple):
    """A batch's shares of the peaks, 0..1, and the mean duration of its kernels."""

    compute: float
    l2: float
    dram: float
    kernel_ns: int


class NsightFeatures:
    """See `FeatureSource`; by batch size."""

    name = "nsight"
    note = None
    lasting = True

    def __init__(self, counted: Mapping[int, Counted]) -> None:
        self._counted = counted

    def load(self, batch_size: int, solo_ns: int) -> Load:
        """See `FeatureSource.load`."""
        return Load(solo_ns, *self._counted[batch_size])


def count(module: str, arguments: Sequence[str]) -> Counted:
    """Means over the kernels that `python -m module arguments` runs between CUDA's marks for profilers.

    Raises `NsightError`.
    """
    ncu = shutil.which("ncu")
    if ncu is None:
        raise NoCountersError("there is no `ncu`, which comes with NVIDIA's Nsight Compute, on PATH")
    with TemporaryDirectory(prefix="isochrone-") as folder:
        log, failed = Path(folder) / "ncu.csv", ""
        try:
            under = (ncu, *_OPTIONS, "--log-file", str(log))
            run_module(module, arguments, timeout_s=TIMEOUT_S, under=under)
        except ChildError as error:
            failed = str(error)
        said = log.read_text(errors="replace") if log.exists() else ""
    if _NOT_PERMITTED in said:
        raise NoCountersError(
            f"the driver permits only administrators to read the GPU's counters ({_NOT_PERMITTED}; run as root, in a "
            "container with the capability SYS_ADMIN, or load it with NVreg_RestrictProfilingToAdminUsers=0)"
        )
    errors = [line.removeprefix(_ERROR) for line in said.splitlines() if line.startswith(_ERROR)]
    if errors or failed:
        reasons = [error for error in errors if not error.startswith(_SAYS_NOTHING)]
        why = " ".join(reasons) or failed or errors[0]
        raised = NoCountersError if any(text in why for text in _NEVER) else NsightError
        raise raised(f"`ncu` failed: {why}")
    return counted(read_kernels(said))


def counted(kernels: Sequence[Kernel]) -> Counted:
    """Shares are weighted by how long each kernel ran; gaps between kernels do not count. Raises `NsightError`."""
    total_ns = sum(kernel.duration_ns for kernel in kernels)
    if total_ns <= 0.0:
        raise NsightError("`ncu` saw no kernel of the batch")
    compute, l2, dram = (
        min(1.0, sum(kernel.duration_ns * kernel.shares[i] for kernel in kernels) / total_ns) for i in range(3)
    )
    return Counted(compute, l2, dram, round(total_ns / len(kernels)))


def read_kernels(text: str) -> list[Kernel]:
    """Reads `ncu --csv --page raw`: names of columns, their units, then a line per kernel. Raises `NsightError`."""
    rows = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
    if not rows:
        return []
    columns = rows[0]
    if missing := [name for name in (*METRICS.values(), DURATION) if name not in columns]:
        raise NsightError(f"`ncu` does not give {missing[0]} of this GPU")
    units = dict(zip(columns, rows[1] if len(rows) > 1 else (), strict=False))
    unit = units.get(DURATION, "")
    if unit not in _UNITS_NS:
        raise NsightError(f"`ncu` gives {DURATION} in '{unit}', which is no unit of time known here")
    return [_kernel(dict(zip(columns, row, strict=True)), _UNITS_NS[unit]) for row in rows[2:]]


def _kernel(row: Mapping[str, str], unit_ns: float) -> Kernel:
    compute, l2, dram = (_number(row, METRICS[name]) / 100 for name in FEATURES)
    return Kernel(_number(row, DURATION) * unit_ns, (compute, l2, dram))


def _number(row: Mapping[str, str], column: str) -> float:
    """A number such as "1,234.5"; Nsight separates thousands."""
    try:
        value = float(row[column].replace(",", ""))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0.0):
        raise NsightError(f"`ncu` gives '{row[column]}' as {column} of kernel '{row.get('Kernel Name', '')}'")
    return value
