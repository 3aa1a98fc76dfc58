"""What NVIDIA's driver would answer on a machine that has none, by the real modules' own functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from cuda.bindings import runtime

from profiler.gpu_peaks import Hardware

OK = runtime.cudaError_t.cudaSuccess
ADDRESS = "0000:65:00.0"
_MHZ = 1_000_000
A100 = Hardware((8, 0), 108, 1410 * _MHZ, 1215 * _MHZ, 5120, 40 << 20)
_KIND = runtime.cudaDeviceAttr
_ATTRIBUTES = {
    _KIND.cudaDevAttrComputeCapabilityMajor: 8,
    _KIND.cudaDevAttrComputeCapabilityMinor: 0,
    _KIND.cudaDevAttrMultiProcessorCount: 108,
    _KIND.cudaDevAttrClockRate: 1_410_000,
    _KIND.cudaDevAttrMemoryClockRate: 1_215_000,
    _KIND.cudaDevAttrGlobalMemoryBusWidth: 5120,
    _KIND.cudaDevAttrL2CacheSize: 40 << 20,
}


def made_up_driver(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """By name of the function, to be changed; an exception is raised, a function called.

    CUDA's answers are tuples with the status.
    """
    answers: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetHandleByPciBusId": "handle",
        "nvmlDeviceGetName": "NVIDIA A100-SXM4-40GB",
        "nvmlSystemGetDriverVersion": "570.1",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=40 << 30),
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
        "nvmlDeviceGetClockInfo": lambda _, kind: {pynvml.NVML_CLOCK_SM: 1410, pynvml.NVML_CLOCK_MEM: 1215}[kind],
        "cudaGetDeviceCount": (OK, 1),
        "cudaDeviceGetPCIBusId": (OK, ADDRESS.encode() + b"\0\0\0\0"),
        "cudaDeviceGetAttribute": lambda attribute, _: (OK, _ATTRIBUTES[attribute]),
    }

    def answering(name: str) -> Any:
        def answer(*arguments: object) -> Any:
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name](*arguments) if callable(answers[name]) else answers[name]

        return answer

    for name in answers:
        patch.setattr(pynvml if name.startswith("nvml") else runtime, name, answering(name))
    return answers
