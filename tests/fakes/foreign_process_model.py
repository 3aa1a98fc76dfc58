"""A Python model that keeps processes busy beside the server's own, in its session and container."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import triton_python_backend_utils as pb_utils

_BUSY = ("sh", "-c", "while :; do :; done")


class TritonPythonModel:
    """`cores` [n] → one busy process per element, on that core or, where it is negative, on any; ends those before."""

    def initialize(self, _args: dict[str, str]) -> None:
        self._busy: list[subprocess.Popen[bytes]] = []

    def execute(self, requests: list[Any]) -> list[Any]:
        answers = []
        for request in requests:
            cores = pb_utils.get_input_tensor_by_name(request, "cores").as_numpy()
            self._end()
            for core in cores.tolist():
                self._busy.append(subprocess.Popen(_BUSY))
                if core >= 0:
                    os.sched_setaffinity(self._busy[-1].pid, {core})
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("count", cores[:0])]))
        return answers

    def finalize(self) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._busy:
            process.kill()
            process.wait()
        self._busy.clear()
