"""Answers requests, exports metrics and looks for cancelled requests: all calls of Triton once a model serves.

A metrics call beside an answer aborts tritonserver 2.51 (boost lock_exception in its shared memory), so calls are made
one at a time: on the responder's own thread, or, where that is idle, on one with a single answer. Each answer waits
until the server has taken it over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

import triton_python_backend_utils as pb_utils

from backend.errors import AnswerError
from backend.model_process import shared_memory
from backend.model_process.export_pace import ExportPace
from backend.model_process.exporter import Exporters
from backend.model_process.metrics import Metrics
from backend.model_process.request import Pending
from backend.tensors import Array

_IDLE_WORK_EVERY_S = 0.05
_METRIC_CALLS_PER_STEP = 4
_log = logging.getLogger("isochrone")
Code = Literal["INVALID_ARG", "UNAVAILABLE", "INTERNAL", "CANCELLED"]
"""Triton's error codes, as far as requests are answered with them."""


class Sender:
    """Triton's response sender of one request. answered: nothing can be sent any more.

    An attempt to send closes Triton's response sender, also one that fails, and a client without an answer waits for
    ever. So outputs get their shared memory before anything is sent.
    """

    __slots__ = ("_id", "_triton", "answered")

    def __init__(self, request: Any) -> None:
        self._triton, self._id = request.get_response_sender(), request.request_id()
        self.answered = False

    def send(self, outputs: Sequence[tuple[str, Array]]) -> None:
        """Send outputs. Raises AnswerError, before anything is sent, where they do not fit."""
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs]
        shared_memory.place(tensors, [array for _, array in outputs])
        self._send(pb_utils.InferenceResponse(tensors))

    def refuse(self, sentence: str, code: Code) -> None:
        """Send an error. It names the request as Triton's own errors do: on a stream nothing else does."""
        named = f"[request id: {self._id}] {sentence}" if self._id else sentence
        self._send(pb_utils.InferenceResponse(error=pb_utils.TritonError(named, getattr(pb_utils.TritonError, code))))

    def is_cancelled(self) -> bool:
        """True where Triton knows that the client gave up: over gRPC. About 34 µs: not for the way to a launch."""
        return bool(self._triton.is_cancelled())

    def _send(self, response: Any) -> None:
        self.answered = True
        self._triton.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Outputs of a request that was served."""

    sender: Sender
    request: Pending
    outputs: Sequence[tuple[str, Array]]
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Error for a request without outputs. outcome: its label in the metrics."""

    sender: Sender
    sentence: str
    code: Code
    outcome: str
    metrics: Metrics


class Responder:
    """Answers each request once, in the order given, and counts how it ended; a second answer is dropped."""

    def __init__(self, model: str, metrics: Metrics) -> None:
        self._model, self._metrics = model, metrics
        self._queue: SimpleQueue[_Outputs | _Refusal | None] = SimpleQueue()
        self._calling_triton = threading.Lock()
        self._pace = ExportPace()

    def start(self, exporter: Exporters, idle_work: Callable[[], None]) -> None:
        """Start the responder's thread. idle_work: called on it about every 50 ms, for other calls of Triton."""
        self._exporter, self._idle_work = exporter, idle_work
        self._thread = threading.Thread(target=self._run, name="isochrone-responder", daemon=True)
        self._thread.start()

    def counting(self, metrics: Metrics) -> Responder:
        """The same responder for those whose answers count there."""
        same = copy(self)
        same._metrics = metrics
        return same

    def send(self, request: Pending, outputs: Sequence[tuple[str, Array]], *, at_once: bool = False) -> None:
        """Send a request's outputs soon. at_once: on the calling thread, which spares a switch of threads, if idle."""
        answer = _Outputs(request.sender, request, outputs, self._metrics)
        if not (at_once and self._queue.empty() and self._calling_triton.acquire(blocking=False)):
            self._queue.put(answer)
            return
        try:
            self._answer(answer)
        finally:
            self._calling_triton.release()

    def refuse(self, sender: Sender, sentence: str, code: Code, outcome: str) -> None:
        """Send an error soon. outcome: the request's label in the metrics."""
        self._queue.put(_Refusal(sender, sentence, code, outcome, self._metrics))

    def close(self) -> None:
        """Send what is queued, export the last counts."""
        self._queue.put(None)
        self._thread.join(timeout=30.0)
        self._exporter.flush()

    def _run(self) -> None:
        idle_work_s = time.monotonic() + _IDLE_WORK_EVERY_S
        while True:
            try:
                answer = self._queue.get(timeout=max(0.0, idle_work_s - time.monotonic()))
                if answer is None:
                    return
                with self._calling_triton:
                    self._answer(answer)
            except Empty:
                pass
            if (now_s := time.monotonic()) >= idle_work_s:
                with self._calling_triton:
                    self._do_idle_work(now_s)
                idle_work_s = time.monotonic() + _IDLE_WORK_EVERY_S

    def _do_idle_work(self, now_s: float) -> None:
        try:
            if self._pace.take(now_s):
                self._exporter.step(_METRIC_CALLS_PER_STEP)
            self._idle_work()
            shared_memory.measure_free()
        except Exception:
            _log.exception("isochrone: metrics could not be exported, or cancelled requests not be looked for")

    def _answer(self, answer: _Outputs | _Refusal) -> None:
        if answer.sender.answered:
            return
        try:
            sent = self._send(answer)
            now_ns = time.monotonic_ns()
            self._pace.answered(now_ns / 1e9)
            if isinstance(answer, _Refusal):
                answer.metrics.count("isochrone_requests_total", answer.outcome)
            elif sent:
                answer.metrics.request_served(answer.request, now_ns)
            else:
                answer.metrics.count("isochrone_requests_total", "failed")
        except Exception:  # a bug of ours: the other answers go on
            _log.exception("isochrone: model '%s': an answer could not be recorded", self._model)

    def _send(self, answer: _Outputs | _Refusal) -> bool:
        """Send the answer; False where an error was sent instead, by Triton itself where it had taken the answer."""
        sender = answer.sender
        try:
            if isinstance(answer, _Refusal):
                sender.refuse(answer.sentence, answer.code)
            else:
                sender.send(answer.outputs)
            return True
        except Exception as error:
            why = str(error) if isinstance(error, AnswerError) else f"its answer could not be sent: {error!r}"
            sentence = f"model '{self._model}': {why}"
        _log.warning("isochrone: %s", sentence)
        if not sender.answered:
            try:
                sender.refuse(sentence, "INTERNAL")
            except Exception as error:
                _log.warning("isochrone: model '%s': nor could the request be refused: %s", self._model, error)
        return False
