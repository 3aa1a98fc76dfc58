"""ONNX Runtime on a GPU as an engine: a session, and with it the weights, for each batch that may run at a time.

A session runs on one stream; were it shared, batches of one model would wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from backend.device import mps
from backend.engines.gpu.lanes import GpuLanes
from backend.engines.gpu.runtime import Device, Stream
from backend.engines.gpu.transfers import Timings
from backend.engines.onnxruntime.bound_session import BoundSession
from backend.engines.onnxruntime.cpu_lane import OnnxLane
from backend.engines.protocol import EngineOptions, Ran
from backend.engines.ready_batches import ready_batches
from backend.errors import ConfigError
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.tensors import Feeds


class OnnxCudaEngine:
    """See `Engine`. `run` may be called from several threads at once, for different lanes.

    open_session: for a lane's stream. version: of ONNX Runtime. file: for what is said of it.
    Raises ConfigError or EngineError, and leaves nothing on the device then.
    """

    def __init__(
        self,
        open_session: Callable[[Stream], BoundSession],
        device: Device,
        file: Path,
        options: EngineOptions,
        *,
        version: str,
    ) -> None:
        self._open_session, self._device, self._file = open_session, device, file
        self._options = options
        self._lanes = GpuLanes(device, self._lane, options.lanes)
        session = self._lanes.first.session
        self.inputs, self.outputs = session.inputs, session.outputs
        runs_in = f"onnxruntime {version} CUDAExecutionProvider{options.onnx.unusual}"
        self.identity = ", ".join(filter(None, (runs_in, mps.stated_share())))

    @property
    def lost(self) -> str | None:
        """See `Engine.lost`."""
        return self._device.lost

    def run(
        self,
        lane: int,
        feeds: Feeds,
        outputs: Sequence[str],
        priority: ExecutionPriority = ORDINARY_PRIORITY,
        *,
        exclusive: bool = False,  # noqa: ARG002
    ) -> Ran:
        """See `Engine.run`."""
        with priority:
            return self._lanes.run(lane, feeds, outputs)

    def timings(self, lane: int) -> Timings | None:
        """Of the last batch that ended well on a lane; for the thread that ran it."""
        return self._lanes.timings(lane)

    def close(self) -> None:
        """See `Engine.close`."""
        self._lanes.close()

    def _lane(self, index: int) -> OnnxLane:  # noqa: ARG002 - all lanes are alike
        lane = OnnxLane(self._open_session, self._device, self._options.priority)
        try:
            self._check_types(lane.session)
            for feeds in ready_batches(lane.session.inputs, self._options.max_batch_size):
                lane.warm_up(feeds)
        except BaseException:
            lane.close()
            raise
        return lane

    def _check_types(self, session: BoundSession) -> None:
        for spec in (*session.inputs, *session.outputs):
            if spec.datatype.numpy.hasobject:
                raise ConfigError(
                    f"'{spec.name}' of '{self._file}' is {spec.datatype.config}, which cannot lie in a GPU's memory; "
                    "use KIND_CPU"
                )
