"""Speaks to Triton: answers requests, exports metrics, asks which requests were cancelled. One at a time, nobody else.

A metrics call beside an answer aborts tritonserver 2.51 (boost lock_exception in its shared memory), so whatever talks
to Triton does so in turn: its own thread, or, where that is idle, one with a single answer. Each answer waits until the
server has taken it over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import triton_python_backend_utils as pb_utils

from backend.errors import AnswerError
from backend.model_process import shared_memory
from backend.model_process.export_pace import ExportPace
from backend.model_process.exporter import Exporter
from backend.model_process.request import Pending
from backend.model_process.sender import Sender
from backend.tensors import Array

_LOOK_S = 0.05
_METRIC_CALLS_PER_STEP = 4
_log = logging.getLogger("isochrone")


@dataclass(frozen=True, slots=True)
class Answer:
    """outputs, or the sentence and Triton's code of why there are none.

    told: called when the request has its answer, with the time and whether it was this one: where outputs cannot be
    sent, it is an error instead. Never called for an answer to a request that has one.
    """

    sender: Sender
    outputs: Sequence[tuple[str, Array]] = ()
    error: str | None = None
    code: int = 0
    told: Callable[[int, bool], None] = field(kw_only=True)


class Voice:
    """Answers in the order of `say`; in between it keeps the metrics and looks for cancellations.

    idle_work: called on the voice's thread, about every 50 ms, for whatever else must talk to Triton.
    """

    def __init__(self, model: str, exporter: Exporter, idle_work: Callable[[], None]) -> None:
        self._model, self._exporter, self._idle_work = model, exporter, idle_work
        self._queue: SimpleQueue[Answer | None] = SimpleQueue()
        self._floor = threading.Lock()
        self._pace = ExportPace()
        self._thread = threading.Thread(target=self._run, name="isochrone-voice", daemon=True)
        self._thread.start()

    def say(self, answer: Answer) -> None:
        """Send an answer soon."""
        self._queue.put(answer)

    def say_now(self, answer: Answer) -> None:
        """Send an answer on the calling thread, which spares a change of threads; soon, where somebody speaks."""
        if not self._queue.empty() or not self._floor.acquire(blocking=False):
            self.say(answer)
            return
        try:
            self._send(answer)
        finally:
            self._floor.release()

    def close(self) -> None:
        """Send what is queued, export the last counts."""
        self._queue.put(None)
        self._thread.join(timeout=30.0)
        self._exporter.flush()

    def _run(self) -> None:
        next_look_s = time.monotonic() + _LOOK_S
        while True:
            try:
                answer = self._queue.get(timeout=max(0.0, next_look_s - time.monotonic()))
                if answer is None:
                    return
                with self._floor:
                    self._send(answer)
            except Empty:
                pass
            if (now_s := time.monotonic()) >= next_look_s:
                with self._floor:
                    self._keep(now_s)
                next_look_s = time.monotonic() + _LOOK_S

    def _keep(self, now_s: float) -> None:
        try:
            if self._pace.take(now_s):
                self._exporter.step(_METRIC_CALLS_PER_STEP)
            self._idle_work()
            shared_memory.look()
        except Exception:
            _log.exception("isochrone: metrics or cancellations could not be kept")

    def _send(self, answer: Answer) -> None:
        if answer.sender.answered:
            return
        try:
            sent = self._sent(answer)
            now_ns = time.monotonic_ns()
            self._pace.answered(now_ns / 1e9)
            answer.told(now_ns, sent)
        except Exception:  # a bug of ours: the other answers go on
            _log.exception("isochrone: model '%s': an answer could not be noted", self._model)

    def _sent(self, answer: Answer) -> bool:
        """Whether it was sent. Else an error was; where Triton had taken the answer, Triton sent one itself."""
        sender = answer.sender
        try:
            if answer.error is not None:
                sender.refuse(answer.error, answer.code)
            else:
                sender.send(answer.outputs)
            return True
        except Exception as error:
            sentence = f"model '{self._model}': {_why(error)}"
        _log.warning("isochrone: %s", sentence)
        if not sender.answered:
            try:
                sender.refuse(sentence, pb_utils.TritonError.INTERNAL)
            except Exception as error:
                _log.warning("isochrone: model '%s': a request could not be told so: %s", self._model, error)
        return False


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, AnswerError) else f"its answer could not be sent: {error!r}"


def cancelled(requests: Sequence[Pending]) -> list[Pending]:
    """Those whose clients gave up. About 34 µs each: not for the way to a launch."""
    return [r for r in requests if r.sender.is_cancelled()]
