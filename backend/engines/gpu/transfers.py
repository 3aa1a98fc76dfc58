"""A lane's way onto the GPU and back: a stream each for copies in, execution and copies out, each timed between events.

What is executed is the caller's. Everything here belongs to one batch at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from backend.engines.gpu.runtime import Address, Device, Event, Shape, Stream
from backend.engines.protocol import Ran
from backend.errors import EngineError
from backend.tensors import Array, Datatype, Feeds, join_into

T = TypeVar("T")


@dataclass(frozen=True)
class Placed:
    """A tensor in device memory."""

    name: str
    datatype: Datatype
    shape: Shape
    address: Address

    @property
    def size_bytes(self) -> int:
        return self.datatype.size_bytes(self.shape)


@dataclass(frozen=True)
class Timings:
    """Of one batch on the GPU, between events. What it took beyond their sum was waiting, queueing and Python."""

    copy_in_ns: int
    execution_ns: int
    copy_out_ns: int


class Room:
    """Memory for one tensor, as large as it was ever asked to be; nobody may use it while it grows."""

    def __init__(self, allocate: Callable[[int], Address], free: Callable[[Address], None]) -> None:
        self._allocate, self._free = allocate, free
        self._address: Address | None = None
        self._size_bytes = 0

    def of(self, size_bytes: int) -> Address:
        """So many bytes at least; an empty tensor has an address, too. Raises EngineError."""
        if self._address is None or size_bytes > self._size_bytes:
            self.close()
            self._size_bytes = max(size_bytes, 1)
            self._address = self._allocate(self._size_bytes)
        return self._address

    def close(self) -> None:
        """Give it back."""
        if self._address is not None:
            quietly(self._free, self._address)
            self._address = None


@dataclass(frozen=True)
class _Stage:
    """A stream of its own, with events around what a batch does there."""

    stream: Stream
    begin: Event
    end: Event


class Transfers:
    """priority: of the kernels, see `Device.create_stream`; copies have none. `timings`: of the last batch that ended
    well. Raises EngineError; nothing is left on the device then.
    """

    def __init__(self, device: Device, priority: int) -> None:
        self.timings: Timings | None = None
        self._device = device
        self._incoming: dict[str, Room] = {}
        self._outgoing: dict[str, Room] = {}
        with ExitStack() as owned:
            self._in, self._run, self._out = self._stages = [self._stage(owned, of) for of in (None, priority, None)]
            owned.callback(self._close_rooms)
            self._owned = owned.pop_all()

    @property
    def stream(self) -> Stream:
        """On which batches are executed."""
        return self._run.stream

    def reserve(self, name: str, size_bytes: int, *, is_input: bool) -> None:
        """Pin memory for a tensor before a batch needs it."""
        self._room(self._incoming if is_input else self._outgoing, name).of(size_bytes)

    def run(self, feeds: Feeds, places: Sequence[Placed], execute: Callable[[Stream], Sequence[Placed]]) -> Ran:
        """One batch, to its end. places: where the inputs go. execute: enqueues, and says where the outputs will lie.

        Raises EngineError; the next batch may come unless the device is lost.
        """
        with self.settled():
            self.bring(feeds, places)
            with self._timed(self._run):
                outputs = execute(self._run.stream)
            staged = self._fetch(outputs)
            self._device.synchronize(self._out.end)
        timings = self.timings = Timings(*(self._device.elapsed_ns(stage.begin, stage.end) for stage in self._stages))
        found = [array.copy() for array in staged]
        return Ran(found, max(1, timings.execution_ns), timings.copy_in_ns, timings.copy_out_ns)

    def bring(self, feeds: Feeds, places: Sequence[Placed]) -> None:
        """Enqueue the inputs' copies; what `stream` is given next begins once they are there."""
        staged = [(place, self._room(self._incoming, place.name).of(place.size_bytes)) for place in places]
        for place, pinned in staged:
            join_into(array_at(pinned, place), feeds[place.name])
        with self._timed(self._in):
            for place, pinned in staged:
                if place.size_bytes:
                    self._device.copy_in(place.address, pinned, place.size_bytes, self._in.stream)
        self._device.wait(self._run.stream, self._in.end)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """After an error, wait for what was enqueued before it: the next batch uses the same memory."""
        try:
            yield
        except BaseException:
            for stage in self._stages:
                with suppress(EngineError):
                    self._device.drain(stage.stream)
            raise

    def close(self) -> None:
        """Give everything back; no batch is under way."""
        self._owned.close()

    def _fetch(self, outputs: Sequence[Placed]) -> list[Array]:
        """Enqueue the outputs' copies; the arrays hold them once that is done, and until the next batch."""
        staged = [self._room(self._outgoing, place.name).of(place.size_bytes) for place in outputs]
        self._device.wait(self._out.stream, self._run.end)
        with self._timed(self._out):
            for place, pinned in zip(outputs, staged, strict=True):
                if place.size_bytes:
                    self._device.copy_out(pinned, place.address, place.size_bytes, self._out.stream)
        return [array_at(pinned, place) for place, pinned in zip(outputs, staged, strict=True)]

    @contextmanager
    def _timed(self, stage: _Stage) -> Iterator[None]:
        self._device.record(stage.begin, stage.stream)
        yield
        self._device.record(stage.end, stage.stream)

    def _room(self, rooms: dict[str, Room], name: str) -> Room:
        return rooms.setdefault(name, Room(self._device.allocate_pinned, self._device.free_pinned))

    def _close_rooms(self) -> None:
        for room in (*self._incoming.values(), *self._outgoing.values()):
            room.close()

    def _stage(self, owned: ExitStack, priority: int | None) -> _Stage:
        device = self._device
        stream = device.create_stream(priority)
        owned.callback(quietly, device.destroy_stream, stream)
        begin = device.create_event()
        owned.callback(quietly, device.destroy_event, begin)
        end = device.create_event()
        owned.callback(quietly, device.destroy_event, end)
        return _Stage(stream, begin, end)


def quietly(give_back: Callable[[T], None], what: T) -> None:
    """What a lost device holds cannot be given back, and is gone with the process."""
    with suppress(EngineError):
        give_back(what)


def array_at(address: Address, tensor: Placed) -> Array:
    """Host memory as an array of the tensor's type and shape."""
    if not tensor.size_bytes:
        return np.empty(tensor.shape, tensor.datatype.numpy)
    memory = (ctypes.c_ubyte * tensor.size_bytes).from_address(address)
    return np.ctypeslib.as_array(memory).view(tensor.datatype.numpy).reshape(tensor.shape)
