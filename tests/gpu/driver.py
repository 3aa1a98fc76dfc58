"""What NVIDIA's driver would answer on a machine that has none, by the real modules' own functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from cuda.bindings import runtime

OK = runtime.cudaError_t.cudaSuccess
ADDRESS = "0000:65:00.0"


def made_up_driver(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """By name of the function, to be changed; an exception is raised. CUDA's answers are tuples with the status."""
    answers: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetHandleByPciBusId": "handle",
        "nvmlDeviceGetName": "NVIDIA H200",
        "nvmlSystemGetDriverVersion": "570.1",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=3 << 30),
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
        "cudaGetDeviceCount": (OK, 1),
        "cudaDeviceGetPCIBusId": (OK, ADDRESS.encode() + b"\0\0\0\0"),
    }

    def answering(name: str) -> Any:
        def answer(*_: object) -> Any:
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name]

        return answer

    for name in answers:
        patch.setattr(pynvml if name.startswith("nvml") else runtime, name, answering(name))
    return answers
