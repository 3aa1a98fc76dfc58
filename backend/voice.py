"""Speaks to Triton: answers requests, exports metrics, asks which requests were cancelled.

Answers may overlap; every other call goes alone. A metrics call beside an answer aborts tritonserver 2.51.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import triton_python_backend_utils as pb_utils

from backend.engines.protocol import Array
from backend.exporter import Exporter
from backend.request import Pending

ANSWERING_THREADS = 3
"""An answer waits for the server to take it over, so one thread would bound the rate at some 2,000 a second."""
_STEP_S = 0.05
_METRIC_CALLS_PER_STEP = 4
_log = logging.getLogger("isochrone")


@dataclass(frozen=True, slots=True)
class Answer:
    """outputs, or the sentence and Triton's code of why there are none. told: called once it is sent."""

    sender: Any
    outputs: Sequence[tuple[str, Array]] = ()
    error: str | None = None
    code: int = 0
    told: Callable[[int], None] | None = None


class Voice:
    """A few threads that answer; the first of them also keeps the metrics and looks for cancellations.

    idle_work: called alone, about every 50 ms, for whatever else must talk to Triton.
    """

    def __init__(self, exporter: Exporter, idle_work: Callable[[], None]) -> None:
        self._exporter, self._idle_work = exporter, idle_work
        self._queue: SimpleQueue[Answer | None] = SimpleQueue()
        self._gate = _Gate()
        self._closing = False
        targets = [self._answer_and_keep, *[self._answer_only] * (ANSWERING_THREADS - 1)]
        self._threads = [
            threading.Thread(target=target, name=f"isochrone-voice-{i}", daemon=True)
            for i, target in enumerate(targets)
        ]
        for thread in self._threads:
            thread.start()

    def say(self, answer: Answer) -> None:
        """Send an answer soon, from one of the threads."""
        self._queue.put(answer)

    def close(self) -> None:
        """Send what is queued, export the last counts."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=30.0)
        self._exporter.flush()

    def _answer_only(self) -> None:
        while (answer := self._queue.get()) is not None:
            self._send(answer)

    def _answer_and_keep(self) -> None:
        next_step = time.monotonic() + _STEP_S
        while True:
            try:
                answer = self._queue.get(timeout=max(0.0, next_step - time.monotonic()))
                if answer is None:
                    return
                self._send(answer)
            except Empty:
                pass
            if time.monotonic() >= next_step:
                self._keep()
                next_step = time.monotonic() + _STEP_S

    def _keep(self) -> None:
        with self._gate.alone():
            try:
                self._exporter.step(_METRIC_CALLS_PER_STEP)
                self._idle_work()
            except Exception:
                _log.exception("isochrone: metrics or cancellations could not be kept")

    def _send(self, answer: Answer) -> None:
        try:
            with self._gate.beside_others():
                answer.sender.send(_response(answer), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # the client is gone, or Triton refuses: the other answers go on
            _log.warning("isochrone: an answer could not be sent: %s", error)
        if answer.told is not None:
            answer.told(time.monotonic_ns())


def _response(answer: Answer) -> Any:
    if answer.error is not None:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(answer.error, answer.code))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in answer.outputs])


def cancelled(requests: Sequence[Pending]) -> list[Pending]:
    """Those whose clients gave up. About 34 µs each: not for the way to a launch."""
    return [r for r in requests if r.sender.is_cancelled()]


class _Gate:
    """Answers pass beside each other, everything else alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answers = 0
        self._alone = False

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._answers += 1
        try:
            yield
        finally:
            with self._changed:
                self._answers -= 1
                if self._answers == 0:
                    self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True  # no new answers, then wait for those on their way
            while self._answers:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
