"""The least that answers late: a queue, a thread per lane, one that answers. It decides nothing and checks nothing.

What any backend costs that, in Triton's Python backend, hands requests in before their batch is formed and answers them
afterwards, one by one. Copied into a model repository as `model.py`; runs inside Triton's stub.
"""

import json
import os
import threading
import time
from pathlib import Path
from queue import SimpleQueue

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

_GATHER_S = 0.001


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._waiting: list = []  # type: ignore[type-arg]
        self._arrived = threading.Condition()
        self._answers: SimpleQueue = SimpleQueue()  # type: ignore[type-arg]
        self._most = json.loads(args["model_config"])["max_batch_size"]
        for target in (*[self._lane] * len(os.sched_getaffinity(0)), self._answer):
            threading.Thread(target=target, daemon=True).start()

    def execute(self, requests: list) -> None:  # type: ignore[type-arg]
        taken = [
            (
                request.get_response_sender(),
                {n: pb_utils.get_input_tensor_by_name(request, n).as_numpy().copy() for n in self._inputs},
            )
            for request in requests
        ]
        with self._arrived:
            self._waiting += taken
            self._arrived.notify(len(taken))
        if len(self._waiting) >= self._most:
            time.sleep(_GATHER_S)

    def _lane(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting)
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            feeds = {name: np.concatenate([arrays[name] for _, arrays in batch]) for name in self._inputs}
            outputs = self._session.run(self._outputs, feeds)
            start = 0
            for sender, arrays in batch:
                end = start + len(arrays[self._inputs[0]])
                self._answers.put((sender, [array[start:end] for array in outputs]))
                start = end

    def _answer(self) -> None:
        while True:
            sender, outputs = self._answers.get()
            tensors = [pb_utils.Tensor(name, array) for name, array in zip(self._outputs, outputs, strict=True)]
            sender.send(pb_utils.InferenceResponse(tensors), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
