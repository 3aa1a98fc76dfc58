"""ONNX Runtime on a GPU as an engine: a session, and with it the weights, for each batch that may run at a time.

A session runs on one stream; were it shared, batches of one model would wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backend.device import mps
from backend.engines.gpu.device import GpuDevice, Stream
from backend.engines.gpu.engine import GpuEngine
from backend.engines.onnxruntime.bound_session import BoundSession
from backend.engines.onnxruntime.cuda_lane import OnnxCudaLane
from backend.engines.protocol import EngineOptions
from backend.engines.ready_batches import ready_batches
from backend.errors import ConfigError


class OnnxCudaEngine(GpuEngine[OnnxCudaLane]):
    """See `Engine`. open_session: on a lane's stream. file: for error messages. version: of ONNX Runtime.

    Raises ConfigError or EngineError, and leaves nothing on the device then.
    """

    def __init__(
        self,
        open_session: Callable[[Stream], BoundSession],
        device: GpuDevice,
        file: Path,
        options: EngineOptions,
        *,
        version: str,
    ) -> None:
        self._open_session, self._file, self._options = open_session, file, options
        super().__init__(device, self._open_lane, options.lanes)
        session = self._lanes[0].session
        self.inputs, self.outputs = session.inputs, session.outputs
        runtime = f"onnxruntime {version} CUDAExecutionProvider{options.onnx.deviations}"
        self.identity = ", ".join(filter(None, (runtime, mps.stated_share())))

    def _open_lane(self, _index: int) -> OnnxCudaLane:
        lane = OnnxCudaLane(self._open_session, self._device, self._options.priority)
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
