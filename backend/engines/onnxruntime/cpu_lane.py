"""One lane of ONNX Runtime on a GPU: a session that runs on the lane's stream, and memory for its inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from backend.engines.gpu.runtime import Device, Stream
from backend.engines.gpu.transfers import Placed, Room, Timings, Transfers
from backend.engines.onnxruntime.bound_session import BoundSession
from backend.engines.protocol import Ran
from backend.errors import EngineError
from backend.tensors import Array, Feeds, joined, joined_shape

_log = logging.getLogger("isochrone")


class OnnxLane:
    """priority: of its kernels. Raises what `open_session` raises; nothing is left on the device then."""

    def __init__(self, open_session: Callable[[Stream], BoundSession], device: Device, priority: int) -> None:
        self._device = device
        with ExitStack() as owned:
            self._transfers = Transfers(device, priority)
            owned.callback(self._transfers.close)
            self.session = open_session(self._transfers.stream)
            owned.callback(self.session.close)
            self._datatypes = {spec.name: spec.datatype for spec in self.session.inputs}
            self._rooms = {name: Room(device.allocate, device.free) for name in self.session.on_device}
            for room in self._rooms.values():
                owned.callback(room.close)
            self._owned = owned.pop_all()

    @property
    def timings(self) -> Timings | None:
        """Of the last batch that ended well."""
        return self._transfers.timings

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> Ran:
        """One batch, to its end. Raises EngineError; the lane takes the next batch unless the device is lost."""
        places = [self._place(name, parts) for name, parts in feeds.items() if name in self._rooms]
        self.session.bind(places, {name: joined(parts) for name, parts in feeds.items() if name not in self._rooms})
        return self._transfers.run(feeds, places, lambda _: self.session.run(outputs))

    def warm_up(self, feeds: Feeds) -> None:
        """Run a batch whose answer nobody wants: kernels are chosen and memory is taken by now, not in serving."""
        try:
            self.run(feeds, [spec.name for spec in self.session.outputs])
            self._transfers.timings = None
        except EngineError as error:
            if self._device.lost:
                raise
            shapes = {name: joined_shape(parts) for name, parts in feeds.items()}
            _log.warning("isochrone: a batch of zeros with inputs %s does not run: %s", shapes, error)

    def close(self) -> None:
        """Give everything back; no batch is under way."""
        self._owned.close()

    def _place(self, name: str, parts: Sequence[Array]) -> Placed:
        shape, datatype = joined_shape(parts), self._datatypes[name]
        return Placed(name, datatype, shape, self._rooms[name].of(datatype.size_bytes(shape)))
