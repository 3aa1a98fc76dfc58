"""One lane of ONNX Runtime on a GPU: a session that runs on the lane's stream, and device memory for its inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from backend.engines.gpu.device import GpuDevice, Stream
from backend.engines.gpu.lane_streams import DeviceTensor, GrowingBuffer, LaneStreams
from backend.engines.onnxruntime.bound_session import BoundSession
from backend.engines.protocol import BatchResult
from backend.errors import EngineError
from backend.tensors import Array, Feeds, joined, joined_shape

_log = logging.getLogger("isochrone")


class OnnxCudaLane:
    """priority: of its kernels. Raises what `open_session` raises; nothing is left on the device then."""

    def __init__(self, open_session: Callable[[Stream], BoundSession], device: GpuDevice, priority: int) -> None:
        self._device = device
        with ExitStack() as owned:
            self._streams = LaneStreams(device, priority)
            owned.callback(self._streams.close)
            self.session = open_session(self._streams.execution)
            owned.callback(self.session.close)
            self._datatypes = {spec.name: spec.datatype for spec in self.session.inputs}
            self._buffers = {name: GrowingBuffer(device.allocate, device.free) for name in self.session.on_device}
            for buffer in self._buffers.values():
                owned.callback(buffer.close)
            self._owned = owned.pop_all()

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> BatchResult:
        """Run one batch to its end. Raises EngineError; the lane takes the next batch unless the device is lost."""
        inputs = [self._device_tensor(name, parts) for name, parts in feeds.items() if name in self._buffers]
        self.session.bind(inputs, {name: joined(parts) for name, parts in feeds.items() if name not in self._buffers})
        return self._streams.run(feeds, inputs, lambda _: self.session.run(outputs))

    def warm_up(self, feeds: Feeds) -> None:
        """Run a batch and drop its outputs: kernels are chosen and memory is allocated here, not in serving."""
        try:
            self.run(feeds, [spec.name for spec in self.session.outputs])
        except EngineError as error:
            if self._device.lost:
                raise
            shapes = {name: joined_shape(parts) for name, parts in feeds.items()}
            _log.warning("isochrone: a batch of zeros with inputs %s does not run: %s", shapes, error)

    def close(self) -> None:
        """Free everything; no batch is under way."""
        self._owned.close()

    def _device_tensor(self, name: str, parts: Sequence[Array]) -> DeviceTensor:
        shape, datatype = joined_shape(parts), self._datatypes[name]
        return DeviceTensor(name, datatype, shape, self._buffers[name].of(datatype.size_bytes(shape)))
