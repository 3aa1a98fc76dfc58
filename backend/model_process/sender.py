"""Answers one request, once, whatever its answer is.

An attempt to send closes Triton's response sender, also one that fails: nothing can be sent after it, and the client
would wait for ever. So an answer is laid down where Triton takes it from before anything is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from backend.model_process.shared_memory import lay_down
from backend.tensors import Array


class Sender:
    """The way back to a client. answered: nothing can be sent any more."""

    __slots__ = ("_id", "_triton", "answered")

    def __init__(self, request: Any) -> None:
        self._triton, self._id = request.get_response_sender(), request.request_id()
        self.answered = False

    def send(self, outputs: Sequence[tuple[str, Array]]) -> None:
        """Raises AnswerError, before anything is sent, where they do not fit."""
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs]
        lay_down(tensors, [array for _, array in outputs])
        self._send(pb_utils.InferenceResponse(tensors))

    def refuse(self, sentence: str, code: int) -> None:
        """Send an error. It names the request as Triton's own errors do: on a stream nothing else does."""
        named = f"[request id: {self._id}] {sentence}" if self._id else sentence
        self._send(pb_utils.InferenceResponse(error=pb_utils.TritonError(named, code)))

    def is_cancelled(self) -> bool:
        """Whether the client gave up, as far as Triton knows: over gRPC. About 34 µs: not for the way to a launch."""
        return bool(self._triton.is_cancelled())

    def _send(self, response: Any) -> None:
        self.answered = True
        self._triton.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
