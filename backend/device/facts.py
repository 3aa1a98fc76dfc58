"""Name and peaks of a device by its number; NVIDIA's libraries are imported for a GPU only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from profiler.gpu_peaks import gpu_peaks
from profiler.host import cpu_name
from profiler.peaks import Peaks, load_or_measure

if TYPE_CHECKING:
    from backend.device.nvml import Gpu


def device_name(device_id: int | None) -> str:
    """Device that a profile is valid for: the processor, or the GPU with its memory and driver. Raises ConfigError."""
    if device_id is None:
        return cpu_name()
    with open_gpu(device_id) as gpu:
        return str(gpu.identity())


def device_peaks(device_id: int | None, directory: Path) -> Peaks:
    """Peaks of one core, measured and kept in `directory`, or of the whole GPU, computed from its attributes.

    Raises ConfigError, `ChildError` or `PeaksError`.
    """
    if device_id is None:
        return load_or_measure(directory)
    from backend.device.cuda import hardware  # noqa: PLC0415 - imports CUDA

    return gpu_peaks(hardware(device_id))


def open_gpu(index: int) -> Gpu:
    """Open the GPU with this CUDA number; the caller closes it. Raises ConfigError where there is none."""
    from backend.device.cuda import pci_bus_id  # noqa: PLC0415 - imports CUDA
    from backend.device.nvml import Gpu  # noqa: PLC0415 - imports NVML

    return Gpu(pci_bus_id(index))
