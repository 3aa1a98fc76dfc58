"""A GPU by NVIDIA's management library: its identity, its clocks, and what slows them down at this moment."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import ConfigError

try:
    import pynvml
except ImportError:
    raise ConfigError("a model on a GPU needs the package nvidia-ml-py; pip install 'isochrone[gpu]'") from None

_MIB = 1 << 20
SLOWED_BY = {
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "its power cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "the hardware",
    pynvml.nvmlClocksThrottleReasonSyncBoost: "a slower GPU in its boost group",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "heat, as the driver sees it",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "heat, as the hardware sees it",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "the power supply",
}
"""Bits of NVML's mask for causes that come and go; idleness and clocks that a user set are no disturbance."""


@dataclass(frozen=True)
class GpuIdentity:
    """Facts that a measured time is valid for, and that do not change while the driver runs."""

    name: str
    memory_bytes: int
    driver: str

    def __str__(self) -> str:
        return f"{self.name}, {self.memory_bytes // _MIB} MiB, driver {self.driver}"


class Gpu:
    """One GPU by its PCI address, which CUDA knows too: NVML's numbers ignore CUDA_VISIBLE_DEVICES.

    Raises ConfigError where there is no driver or no such GPU. A context manager, or the caller closes it.
    """

    def __init__(self, pci_bus_id: str) -> None:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise ConfigError(f"NVIDIA's driver does not answer: {error}") from None
        try:
            self._handle = pynvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id)
        except pynvml.NVMLError as error:
            pynvml.nvmlShutdown()
            raise ConfigError(f"there is no GPU at '{pci_bus_id}': {error}") from None
        self._pci_bus_id = pci_bus_id

    def identity(self) -> GpuIdentity:
        """Name, memory and driver. Raises ConfigError where the driver does not tell."""
        try:
            memory: pynvml.c_nvmlMemory_t = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
            name = pynvml.nvmlDeviceGetName(self._handle)
            return GpuIdentity(name, memory.total, pynvml.nvmlSystemGetDriverVersion())
        except pynvml.NVMLError as error:
            raise ConfigError(f"the GPU at '{self._pci_bus_id}' does not tell what it is: {error}") from None

    def slowed_by(self) -> tuple[str, ...] | None:
        """Causes of throttling now; empty: none, None: unknown. Slow, so never called while a batch waits."""
        try:
            return slowed_by(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))
        except pynvml.NVMLError:
            return None

    def clocks_mhz(self) -> tuple[int, int] | None:
        """Clocks of multiprocessors and memory now, None: unknown. Slow, so never called while a batch waits."""
        try:
            sm_mhz = pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_SM)
            return sm_mhz, pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_MEM)
        except pynvml.NVMLError:
            return None

    def close(self) -> None:
        pynvml.nvmlShutdown()

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def slowed_by(mask: int) -> tuple[str, ...]:
    """Causes in NVML's mask of clock reasons, in words."""
    return tuple(words for bit, words in SLOWED_BY.items() if mask & bit)
