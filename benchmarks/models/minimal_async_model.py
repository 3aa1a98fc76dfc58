"""Minimal asynchronous backend: a queue, a thread per lane, one that answers. It decides nothing and checks nothing.

Its cost is that of any backend that hands requests in before their batch is formed and answers them afterwards, one by
one, in Triton's Python backend. Copied into a model repository as `model.py`, beside the blocking one that it runs as;
runs inside Triton's stub.
"""

import json
import os
import threading
import time
from queue import SimpleQueue

import blocking_model  # type: ignore[import-not-found]
import triton_python_backend_utils as pb_utils

_GATHER_S = 0.001


class TritonPythonModel(blocking_model.TritonPythonModel):  # type: ignore[misc]
    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self._most = json.loads(args["model_config"])["max_batch_size"]
        self._waiting: list = []  # type: ignore[type-arg]
        self._arrived = threading.Condition()
        self._answers: SimpleQueue = SimpleQueue()  # type: ignore[type-arg]
        for target in (*[self._lane] * len(os.sched_getaffinity(0)), self._answer):
            threading.Thread(target=target, daemon=True).start()

    def execute(self, requests: list) -> None:  # type: ignore[type-arg]
        taken = [
            (request.get_response_sender(), {name: array.copy() for name, array in self._arrays(request).items()})
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
            answers = self._run([arrays for _, arrays in batch])
            for (sender, _), outputs in zip(batch, answers, strict=True):
                self._answers.put((sender, outputs))

    def _answer(self) -> None:
        while True:
            sender, outputs = self._answers.get()
            sender.send(self._response(outputs), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
