"""Blocking model as a user would write it without Isochrone, for Triton's Python backend, with ONNX Runtime.

Copied into a model repository as `model.py`; runs inside Triton's stub. Batches are those that Triton formed.
"""

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def execute(self, requests: list) -> list:  # type: ignore[type-arg]
        return [self._response(outputs) for outputs in self._run([self._arrays(request) for request in requests])]

    def _arrays(self, request) -> dict:  # type: ignore[no-untyped-def,type-arg]
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}

    def _run(self, arrays: list) -> list:  # type: ignore[type-arg]
        """Returns for each request its rows of every output."""
        if len(arrays) == 1:
            feeds = arrays[0]
        else:
            feeds = {name: np.concatenate([a[name] for a in arrays]) for name in self._inputs}
        outputs = self._session.run(self._outputs, feeds)
        answers, start = [], 0
        for a in arrays:
            end = start + len(a[self._inputs[0]])
            answers.append([array[start:end] for array in outputs])
            start = end
        return answers

    def _response(self, outputs: list):  # type: ignore[no-untyped-def,type-arg]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in zip(self._outputs, outputs, strict=True)]
        )
