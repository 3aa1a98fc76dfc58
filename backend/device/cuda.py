"""Facts about a GPU that CUDA tells by its number before it is used. Importing this module needs `cuda-bindings`.

CUDA counts what CUDA_VISIBLE_DEVICES shows, in an order of its own; NVML counts all GPUs, by their address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backend.errors import ConfigError
from profiler.gpu_peaks import Hardware

try:
    from cuda.bindings import runtime
except ImportError as missing:
    raise ConfigError(
        f"a model on a GPU needs the package cuda-bindings, which cannot be imported ({missing}); "
        "pip install 'isochrone[gpu]'"
    ) from None

_PCI_BUS_ID_CHARS = 32
_HZ_PER_KHZ = 1000
_E = runtime.cudaError_t
_NO_DRIVER = (_E.cudaErrorInsufficientDriver, _E.cudaErrorSystemDriverMismatch)


def check_gpu(index: int, whose: str) -> None:
    """Raise ConfigError where this process has no such GPU. whose: what needs it, the sentence's subject."""
    status, count = runtime.cudaGetDeviceCount()
    if status in _NO_DRIVER:
        raise ConfigError(
            f"{whose} needs a GPU with NVIDIA's driver, but there is none that suffices ({describe(status)})"
        )
    if status == _E.cudaErrorNoDevice or count == 0:
        raise ConfigError(f"{whose} needs a GPU, but this process sees none; CUDA_VISIBLE_DEVICES may hide it")
    if status != _E.cudaSuccess:
        raise ConfigError(f"{whose} needs a GPU, but CUDA does not start: {describe(status)}")
    if not 0 <= index < count:
        seen = "GPU 0" if count == 1 else f"GPUs 0 to {count - 1}"
        raise ConfigError(f"there is no GPU {index}: this process sees {seen}")


def pci_bus_id(index: int) -> str:
    """PCI address, by which NVML knows the GPU. Raises ConfigError."""
    check_gpu(index, "KIND_GPU")
    return text(_call("does not tell its address", index, runtime.cudaDeviceGetPCIBusId(_PCI_BUS_ID_CHARS, index)))


def hardware(index: int) -> Hardware:
    """Attributes that the GPU's peaks follow from. Raises ConfigError."""
    check_gpu(index, "KIND_GPU")
    kind = runtime.cudaDeviceAttr

    def ask(attribute: runtime.cudaDeviceAttr) -> int:
        return int(_call(f"does not tell {attribute.name}", index, runtime.cudaDeviceGetAttribute(attribute, index)))

    return Hardware(
        compute_capability=(ask(kind.cudaDevAttrComputeCapabilityMajor), ask(kind.cudaDevAttrComputeCapabilityMinor)),
        multiprocessors=ask(kind.cudaDevAttrMultiProcessorCount),
        clock_hz=ask(kind.cudaDevAttrClockRate) * _HZ_PER_KHZ,
        memory_clock_hz=ask(kind.cudaDevAttrMemoryClockRate) * _HZ_PER_KHZ,
        memory_bus_bits=ask(kind.cudaDevAttrGlobalMemoryBusWidth),
        l2_bytes=ask(kind.cudaDevAttrL2CacheSize),
    )


@contextmanager
def profiled(index: int) -> Iterator[None]:
    """Mark what runs meanwhile for a profiler that waits for such marks. Raises ConfigError."""
    _call("cannot be used", index, runtime.cudaSetDevice(index))
    _call("cannot be profiled", index, runtime.cudaProfilerStart())
    yield
    _call("cannot be profiled", index, runtime.cudaProfilerStop())


def text(found: bytes) -> str:
    """Text in a field of fixed length, zero-terminated."""
    return found.split(b"\0", 1)[0].decode()


def describe(status: runtime.cudaError_t) -> str:
    """CUDA's name and description of a status."""
    _, words = runtime.cudaGetErrorString(status)
    return f"{status.name}, {words.decode()}"


def _call(failure: str, index: int, result: tuple[Any, ...]) -> Any:
    """Value of a call, if it has one."""
    status, *values = result
    if status != _E.cudaSuccess:
        raise ConfigError(f"GPU {index} {failure}: {describe(status)}")
    return values[0] if values else None
