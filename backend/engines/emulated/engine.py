"""Engine of a model on an emulated GPU: its batches take the time that the law says, and their outputs are zeros."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backend.engines.emulated.device import DEVICES, EmulatedDevices
from backend.engines.emulated.spec import read_spec
from backend.engines.protocol import BatchResult, EngineOptions
from backend.errors import ConfigError, EngineError
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.tensors import Feeds, joined_shape

_WHOLE = 100


class EmulatedEngine:
    """See `Engine`. `run` may be called from several threads at once. Raises ConfigError."""

    lost = None

    def __init__(self, file: Path, options: EngineOptions, devices: EmulatedDevices = DEVICES) -> None:
        self._spec = read_spec(file, options.emulated)
        if options.max_batch_size > self._spec.max_batch_size:
            raise ConfigError(
                f"max_batch_size is {options.max_batch_size} in config.pbtxt, but '{file}' has latencies up to "
                f"max_batch_size {self._spec.max_batch_size}"
            )
        self._model = file.absolute().parent.parent.name
        self.inputs, self.outputs = self._spec.specs.inputs, self._spec.specs.outputs
        self._priority, self._share = options.priority, (options.mps_percent or _WHOLE) / _WHOLE
        dilated = "" if options.time_dilation == 1.0 else f", time dilated {options.time_dilation:g} times"
        limited = "" if options.mps_percent is None else f", {options.mps_percent} % of the multiprocessors"
        self.identity = f"emulated, by its specification{dilated}{limited}"
        self._outputs = {spec.name: spec for spec in self.outputs}
        self._lease = devices.lease(self._spec.device, options.time_dilation, file)

    def run(
        self,
        lane: int,  # noqa: ARG002 - any number of batches runs at a time
        feeds: Feeds,
        outputs: Sequence[str],
        priority: ExecutionPriority = ORDINARY_PRIORITY,
        *,
        exclusive: bool = False,  # noqa: ARG002 - the calling thread only sleeps
    ) -> BatchResult:
        """See `Engine.run`."""
        shapes = [joined_shape(feeds[spec.name]) for spec in self.inputs]
        rows = shapes[0][0] if self._spec.max_batch_size else 1
        if rows > self._limit:
            raise EngineError(f"the batch has {rows} rows, but the emulated model has latencies up to {self._limit}")
        bytes_in = sum(spec.datatype.size_bytes(shape) for spec, shape in zip(self.inputs, shapes, strict=True))
        found = [
            np.zeros(tuple(rows if d == -1 else d for d in spec.shape), spec.datatype.numpy)
            for spec in map(self._outputs.__getitem__, outputs)
        ]
        solo_ns, demand = self._spec.demand(self._model, rows, self._share, self._priority)
        with priority:
            times = self._lease.device.run(demand, solo_ns, bytes_in, sum(array.nbytes for array in found))
        return BatchResult(
            found,
            max(1, round(times.executed_ns - times.started_ns)),
            round(times.started_ns - times.submitted_ns),
            round(times.finished_ns - times.executed_ns),
        )

    def close(self) -> None:
        """See `Engine.close`."""
        self._lease.release()

    @property
    def _limit(self) -> int:
        return max(1, self._spec.max_batch_size)
