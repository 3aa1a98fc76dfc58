"""ONNX Runtime on a GPU without a GPU: made up, or the real library on the CPU in a fake GPU's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from backend.engines.gpu.device import Address, Shape, Stream
from backend.engines.gpu.lane_streams import DeviceTensor, array_at, quietly
from backend.engines.onnxruntime.bound_session import BoundSession
from backend.engines.onnxruntime.session import CPU
from backend.errors import EngineError
from backend.tensors import Array, TensorSpec
from tests.fakes.fake_gpu import RUN_NS, FakeDevice


class _DeviceOutputs:
    """Device memory for the outputs of a run, until the next one."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._addresses: list[Address] = []

    def place(self, spec: TensorSpec, shape: Shape) -> DeviceTensor:
        address = self._device.allocate(max(1, spec.datatype.size_bytes(shape)))
        self._addresses.append(address)
        return DeviceTensor(spec.name, spec.datatype, shape, address)

    def clear(self) -> None:
        while self._addresses:
            quietly(self._device.free, self._addresses.pop())


class FakeSession(BoundSession):
    """A made-up session. compute: the outputs, from the inputs. refuses: name of a call → what it raises, once."""

    def __init__(
        self,
        device: FakeDevice,
        stream: Stream,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        shapes: Callable[[Mapping[str, Shape]], Mapping[str, Shape]],
        compute: Callable[[Mapping[str, Array]], Mapping[str, Array]],
        *,
        on_host: Sequence[str] = (),
    ) -> None:
        self.device, self.stream = device, stream
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.on_device = frozenset(spec.name for spec in inputs) - frozenset(on_host)
        self.output_shapes, self.compute = shapes, compute
        self.refuses: dict[str, EngineError] = {}
        self.ran: list[dict[str, Array]] = []
        self._results = _DeviceOutputs(device)
        self._bound: dict[str, DeviceTensor] = {}
        self._host: dict[str, Array] = {}

    def bind(self, places: Sequence[DeviceTensor], host: Mapping[str, Array]) -> None:
        self._refused("bind")
        assert all(place.name in self.on_device for place in places)
        self._bound, self._host = {place.name: place for place in places}, dict(host)
        self._results.clear()

    def run(self, outputs: Sequence[str]) -> list[DeviceTensor]:
        self._refused("run")
        bound, host = self._bound, self._host
        shapes = self.output_shapes({n: p.shape for n, p in bound.items()} | {n: a.shape for n, a in host.items()})
        specs = {spec.name: spec for spec in self.outputs}
        placed = [self._results.place(specs[name], shapes[name]) for name in outputs]
        arrays = {place.name: self.device.array(place) for place in (*bound.values(), *placed)}

        def kernel() -> None:
            fed = {name: arrays[name].copy() for name in bound} | host
            self.ran.append(fed)
            results = self.compute(fed)
            for name in outputs:
                arrays[name][...] = results[name]

        self.device.put(self.stream, kernel, RUN_NS)
        return placed

    def close(self) -> None:
        self._results.clear()

    def _refused(self, call: str) -> None:
        if error := self.refuses.pop(call, None):
            raise error


class HostSession(BoundSession):
    """The real session on the CPU. It runs when it is called, not later: what the stream holds happens before."""

    def __init__(self, path: Path, device: FakeDevice, stream: Stream) -> None:
        super().__init__(path, [CPU], "cpu", 0)
        self._device, self._stream = device, stream
        self._results = _DeviceOutputs(device)

    def bind(self, places: Sequence[DeviceTensor], host: Mapping[str, Array]) -> None:
        self._results.clear()
        super().bind(places, host)

    def run(self, outputs: Sequence[str]) -> list[DeviceTensor]:
        self._device.drain(self._stream)
        specs = {spec.name: spec for spec in self.outputs}
        placed = []
        for found in super().run(outputs):
            place = self._results.place(specs[found.name], found.shape)
            np.copyto(self._device.array(place), array_at(found.address, found))
            placed.append(place)
        self._device.put(self._stream, lambda: None, RUN_NS)
        return placed

    def close(self) -> None:
        self._results.clear()
        super().close()
