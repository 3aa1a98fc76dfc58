"""Streams of a lane on a GPU: one each for copies in, execution and copies out, each timed between two events.

The caller says what is executed. Everything here belongs to one batch at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from backend.engines.gpu.device import Address, Event, GpuDevice, Shape, Stream
from backend.engines.protocol import BatchResult
from backend.errors import EngineError
from backend.tensors import Array, Datatype, Feeds, join_into

T = TypeVar("T")


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor in device memory."""

    name: str
    datatype: Datatype
    shape: Shape
    address: Address

    @property
    def size_bytes(self) -> int:
        return self.datatype.size_bytes(self.shape)


class GrowingBuffer:
    """Memory for one tensor, as large as the largest so far; not in use while it grows."""

    def __init__(self, allocate: Callable[[int], Address], free: Callable[[Address], None]) -> None:
        self._allocate, self._free = allocate, free
        self._address: Address | None = None
        self._size_bytes = 0

    def of(self, size_bytes: int) -> Address:
        """Address of at least `size_bytes`; an empty tensor has one, too. Raises EngineError."""
        if self._address is None or size_bytes > self._size_bytes:
            self.close()
            self._size_bytes = max(size_bytes, 1)
            self._address = self._allocate(self._size_bytes)
        return self._address

    def close(self) -> None:
        """Free the memory."""
        if self._address is not None:
            quietly(self._free, self._address)
            self._address = None


@dataclass(frozen=True)
class _TimedStream:
    """A stream with events around a batch's work on it."""

    stream: Stream
    begin: Event
    end: Event


class LaneStreams:
    """priority: of the kernels, see `GpuDevice.create_stream`; copies have none.

    Raises EngineError; nothing is left on the device then.
    """

    def __init__(self, device: GpuDevice, priority: int) -> None:
        self._device = device
        self._inputs: dict[str, GrowingBuffer] = {}
        self._outputs: dict[str, GrowingBuffer] = {}
        with ExitStack() as owned:
            self._h2d, self._run, self._d2h = self._all = [self._open(owned, p) for p in (None, priority, None)]
            owned.callback(self._close_buffers)
            self._owned = owned.pop_all()

    @property
    def execution(self) -> Stream:
        """Stream on which batches are executed."""
        return self._run.stream

    def reserve(self, name: str, size_bytes: int, *, is_input: bool) -> None:
        """Pin host memory for a tensor before a batch needs it."""
        self._pinned(self._inputs if is_input else self._outputs, name).of(size_bytes)

    def run(
        self, feeds: Feeds, places: Sequence[DeviceTensor], execute: Callable[[Stream], Sequence[DeviceTensor]]
    ) -> BatchResult:
        """Run one batch to its end. places: where the inputs go. execute: enqueues; returns where the outputs will lie.

        What the batch takes beyond the sum of its three times is waiting, queueing and Python. Raises EngineError; the
        next batch may come unless the device is lost.
        """
        with self.draining_on_error():
            self.copy_in(feeds, places)
            with self._timed(self._run):
                outputs = execute(self._run.stream)
            staged = self._copy_out(outputs)
            self._device.synchronize(self._d2h.end)
        h2d_ns, execution_ns, d2h_ns = (self._device.elapsed_ns(each.begin, each.end) for each in self._all)
        return BatchResult([array.copy() for array in staged], max(1, execution_ns), h2d_ns, d2h_ns)

    def copy_in(self, feeds: Feeds, places: Sequence[DeviceTensor]) -> None:
        """Enqueue the inputs' copies; what is enqueued on `execution` next begins once they have arrived."""
        staged = [(place, self._pinned(self._inputs, place.name).of(place.size_bytes)) for place in places]
        for place, pinned in staged:
            join_into(array_at(pinned, place), feeds[place.name])
        with self._timed(self._h2d):
            for place, pinned in staged:
                if place.size_bytes:
                    self._device.copy_in(place.address, pinned, place.size_bytes, self._h2d.stream)
        self._device.wait(self._run.stream, self._h2d.end)

    @contextmanager
    def draining_on_error(self) -> Iterator[None]:
        """Wait, after an error, for what was enqueued before it: the next batch uses the same memory."""
        try:
            yield
        except BaseException:
            for each in self._all:
                with suppress(EngineError):
                    self._device.drain(each.stream)
            raise

    def close(self) -> None:
        """Free everything; no batch is under way."""
        self._owned.close()

    def _copy_out(self, outputs: Sequence[DeviceTensor]) -> list[Array]:
        """Enqueue the outputs' copies to pinned arrays, which hold them once done and until the next batch."""
        staged = [self._pinned(self._outputs, place.name).of(place.size_bytes) for place in outputs]
        self._device.wait(self._d2h.stream, self._run.end)
        with self._timed(self._d2h):
            for place, pinned in zip(outputs, staged, strict=True):
                if place.size_bytes:
                    self._device.copy_out(pinned, place.address, place.size_bytes, self._d2h.stream)
        return [array_at(pinned, place) for place, pinned in zip(outputs, staged, strict=True)]

    @contextmanager
    def _timed(self, timed: _TimedStream) -> Iterator[None]:
        self._device.record(timed.begin, timed.stream)
        yield
        self._device.record(timed.end, timed.stream)

    def _pinned(self, buffers: dict[str, GrowingBuffer], name: str) -> GrowingBuffer:
        return buffers.setdefault(name, GrowingBuffer(self._device.allocate_pinned, self._device.free_pinned))

    def _close_buffers(self) -> None:
        for buffer in (*self._inputs.values(), *self._outputs.values()):
            buffer.close()

    def _open(self, owned: ExitStack, priority: int | None) -> _TimedStream:
        device = self._device
        stream = device.create_stream(priority)
        owned.callback(quietly, device.destroy_stream, stream)
        begin = device.create_event()
        owned.callback(quietly, device.destroy_event, begin)
        end = device.create_event()
        owned.callback(quietly, device.destroy_event, end)
        return _TimedStream(stream, begin, end)


def quietly(free: Callable[[T], None], what: T) -> None:
    """Free something; on a lost device nothing can be freed, and all of it ends with the process."""
    with suppress(EngineError):
        free(what)


def array_at(address: Address, tensor: DeviceTensor) -> Array:
    """Host memory as an array of the tensor's dtype and shape."""
    if not tensor.size_bytes:
        return np.empty(tensor.shape, tensor.datatype.numpy)
    memory = (ctypes.c_ubyte * tensor.size_bytes).from_address(address)
    return np.ctypeslib.as_array(memory).view(tensor.datatype.numpy).reshape(tensor.shape)
