"""Facts about a GPU from NVIDIA's management library: what it is, and how fast it may run at this moment.

A batch measured while `State.slowed_by` holds something says little about other times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from backend.device.mps import mps_runs
from backend.errors import ConfigError

try:
    import pynvml
except ImportError:
    raise ConfigError("facts about a GPU need the package nvidia-ml-py; pip install 'isochrone[gpu]'") from None

T = TypeVar("T")

SLOWED_BY = {
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "its power cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "the hardware",
    pynvml.nvmlClocksThrottleReasonSyncBoost: "a slower GPU in its boost group",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "heat, as the driver sees it",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "heat, as the hardware sees it",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "the power supply",
}
"""Bits of NVML's mask that come and go by themselves; idleness and clocks that a user set are no disturbance."""


@dataclass(frozen=True)
class Identity:
    """What does not change while the driver runs. A clock is None where the GPU does not tell it."""

    name: str
    uuid: str
    pci_bus_id: str
    compute_capability: str
    driver: str
    memory_bytes: int
    sm_clock_mhz_max: int | None
    memory_clock_mhz_max: int | None


@dataclass(frozen=True)
class State:
    """At one moment. None where the GPU does not tell. slowed_by: in words, empty where nothing slows it down."""

    memory_used_bytes: int
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    slowed_by: tuple[str, ...] | None
    mps: bool


class Gpu:
    """One GPU, by the address that CUDA knows it under too: NVML counts without CUDA_VISIBLE_DEVICES.

    Raises ConfigError where there is no driver or no such GPU. To be closed, or used with `with`.
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

    def identity(self) -> Identity:
        handle = self._handle
        memory: pynvml.c_nvmlMemory_t = pynvml.nvmlDeviceGetMemoryInfo(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return Identity(
            name=pynvml.nvmlDeviceGetName(handle),
            uuid=pynvml.nvmlDeviceGetUUID(handle),
            pci_bus_id=self._pci_bus_id,
            compute_capability=f"{major}.{minor}",
            driver=pynvml.nvmlSystemGetDriverVersion(),
            memory_bytes=memory.total,
            sm_clock_mhz_max=_told(lambda: int(pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM))),
            memory_clock_mhz_max=_told(lambda: int(pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM))),
        )

    def state(self) -> State:
        """Asks the driver several times; not for the way of a batch."""
        handle = self._handle
        memory: pynvml.c_nvmlMemory_t = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return State(
            memory_used_bytes=memory.used,
            sm_clock_mhz=_told(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))),
            memory_clock_mhz=_told(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM))),
            slowed_by=_told(lambda: slowed_by(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))),
            mps=mps_runs(),
        )

    def close(self) -> None:
        pynvml.nvmlShutdown()

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def slowed_by(mask: int) -> tuple[str, ...]:
    """The causes that NVML's mask of clock reasons names, in words."""
    return tuple(words for bit, words in SLOWED_BY.items() if mask & bit)


def _told(ask: Callable[[], T]) -> T | None:
    """None where this GPU, or this part of one, does not tell."""
    try:
        return ask()
    except pynvml.NVMLError_NotSupported:
        return None
