"""Runs a batch and hands each request its own outputs: no answer shows what its request shared a batch with.

A batch that fails runs again in halves, so that only the request that fails by itself does. One whose outputs have
other rows than it has runs again request by request, and the model's requests share no batch from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from backend.config.model_config import ModelConfig
from backend.engines.protocol import Engine
from backend.errors import EngineError, EngineLostError
from backend.linux.execution_priority import ExecutionPriority
from backend.model_process import batch as batches
from backend.model_process.batch import Answered, Batch, RowsError
from backend.model_process.request import Pending
from backend.tensors import Array

_log = logging.getLogger("isochrone")


class BatchRunner:
    """Of one model; `run` may be called on several lanes at once.

    on_separate: told once, when the model is found to answer otherwise in batches.
    """

    def __init__(self, config: ModelConfig, engine: Engine, on_separate: Callable[[], None]) -> None:
        self._config, self._engine, self._on_separate = config, engine, on_separate
        self._shapes = {spec.name: spec.shape for spec in config.outputs}
        self._separate = False

    def run(self, batch: Batch, executing: ExecutionPriority) -> list[Answered]:
        """In the order of the batch's requests. Raises nothing that one of them alone is to blame for."""
        requests = batch.requests
        if self._separate and len(requests) > 1:
            return self._one_by_one(batch, requests, executing)
        return self._parts(batch, requests, executing)

    def _parts(self, batch: Batch, requests: Sequence[Pending], executing: ExecutionPriority) -> list[Answered]:
        """As one batch, else in halves: at most twice as many runs as there are requests."""
        try:
            return list(self._together(batch, requests, executing))
        except RowsError as error:
            self._separate_from_now_on(error)
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
                outputs = [self._as_stated(name, array) for name, array in zip(names, outputs, strict=True)]
            return batches.split(requests, names, outputs)
        except RowsError:
            raise
        except ValueError as error:
            raise EngineError(str(error)) from error

    def _as_stated(self, name: str, array: Array) -> Array:
        """An output in the dimensions of config.pbtxt; its dynamic ones are the model's, in order."""
        dims = self._config.reshaped.get(name)
        if dims is None:
            return array
        lead = 1 if self._config.max_batch_size > 0 else 0
        dynamic = (a for a, b in zip(array.shape[lead:], self._shapes[name], strict=False) if b == -1)
        return array.reshape((*array.shape[:lead], *(next(dynamic, -1) if d == -1 else d for d in dims)))

    def _separate_from_now_on(self, error: RowsError) -> None:
        if self._separate:
            return
        self._separate = True
        _log.warning(
            "isochrone: model '%s' cannot be batched: %s; from now on each of its requests runs by itself, as with "
            "max_batch_size: 0 in config.pbtxt",
            *(self._config.name, error),
        )
        self._on_separate()
