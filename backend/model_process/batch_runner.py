"""Runs a batch and answers each request with its own outputs: no answer shows what its request shared a batch with.

A batch that fails runs again in halves, so that only the request that fails by itself does. One whose outputs have
other rows than it has runs again request by request, and the model's requests share no batch from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backend.config.model_config import ModelConfig
from backend.engines.protocol import Engine
from backend.errors import EngineError, EngineLostError
from backend.linux.execution_priority import ExecutionPriority
from backend.model_process import batch as batches
from backend.model_process.batch import Answered, Batch, RowsError
from backend.model_process.request import Pending
from backend.scheduler.messages import Reject
from backend.tensors import Array

if TYPE_CHECKING:  # it imports Triton
    from backend.model_process.responder import Responder

_log = logging.getLogger("isochrone")


class BatchRunner:
    """Runs batches on a model's engine and answers them, for several lanes at once; see `dispatcher.Runner`."""

    def __init__(self, config: ModelConfig, engine: Engine, responder: Responder) -> None:
        self._config, self._engine, self._responder = config, engine, responder
        self._shapes = {spec.name: spec.shape for spec in config.outputs}
        self.separate = False

    def run(self, batch: Batch, executing: ExecutionPriority) -> list[Answered]:
        """Outputs or an error for each of the batch's requests, in their order. No request's error is raised."""
        requests = batch.requests
        if self.separate and len(requests) > 1:
            return self._one_by_one(batch, requests, executing)
        return self._parts(batch, requests, executing)

    def answer(self, batch: Batch, answers: Sequence[Answered]) -> None:
        """Send the answers; those of a leased batch at once."""
        for request, answer in zip(batch.requests, answers, strict=True):
            if isinstance(answer, Exception):
                self._responder.refuse(request.sender, self._sentence(answer), "INTERNAL", "failed")
            else:
                self._responder.send(request, answer, at_once=batch.leased)

    def reject(self, request: Pending, reject: Reject) -> None:
        """Send the refusal of a request that the scheduler rejected."""
        sentence = (
            f"the request cannot meet its deadline: {reject.predicted_ns / 1e6:.1f} ms predicted from arrival "
            f"to answer, {reject.allowed_ns / 1e6:.1f} ms allowed"
        )
        self._responder.refuse(request.sender, self._sentence(sentence), "UNAVAILABLE", "rejected")

    def _sentence(self, what: object) -> str:
        return f"model '{self._config.name}': {what}"

    def _parts(self, batch: Batch, requests: Sequence[Pending], executing: ExecutionPriority) -> list[Answered]:
        """Run as one batch, else in halves: at most twice as many runs as there are requests."""
        try:
            return list(self._together(batch, requests, executing))
        except RowsError as error:
            self._set_separate(error)
            return self._one_by_one(batch, requests, executing)
        except Exception as error:  # the library's, or memory that is short: fewer rows may do
            if len(requests) == 1 or isinstance(error, EngineLostError) or self._engine.lost is not None:
                return [error] * len(requests)
        batch.rerun = True
        half = len(requests) // 2
        return [answer for part in (requests[:half], requests[half:]) for answer in self._parts(batch, part, executing)]

    def _one_by_one(self, batch: Batch, requests: Sequence[Pending], executing: ExecutionPriority) -> list[Answered]:
        batch.rerun = True
        return [answer for request in requests for answer in self._parts(batch, (request,), executing)]

    def _together(
        self, batch: Batch, requests: Sequence[Pending], executing: ExecutionPriority
    ) -> list[list[tuple[str, Array]]]:
        names = batches.wanted(requests)
        given = batches.feeds(requests)
        ran = self._engine.run(batch.lane, given, names, executing, exclusive=batch.leased)
        batch.ran(ran, given)
        outputs: Sequence[Array] = ran.outputs
        try:
            if self._config.reshaped:
                outputs = [self._reshaped(name, array) for name, array in zip(names, outputs, strict=True)]
            return batches.split(requests, names, outputs)
        except RowsError:
            raise
        except ValueError as error:
            raise EngineError(str(error)) from error

    def _reshaped(self, name: str, array: Array) -> Array:
        """Output in the dimensions of config.pbtxt; its dynamic ones are the model's, in order."""
        dims = self._config.reshaped.get(name)
        if dims is None:
            return array
        lead = 1 if self._config.max_batch_size > 0 else 0
        dynamic = (a for a, b in zip(array.shape[lead:], self._shapes[name], strict=False) if b == -1)
        return array.reshape((*array.shape[:lead], *(next(dynamic, -1) if d == -1 else d for d in dims)))

    def _set_separate(self, error: RowsError) -> None:
        if self.separate:
            return
        self.separate = True
        _log.warning(
            "isochrone: model '%s' cannot be batched: %s; from now on each of its requests runs by itself, as with "
            "max_batch_size: 0 in config.pbtxt",
            *(self._config.name, error),
        )
