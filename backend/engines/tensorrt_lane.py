"""One lane of a plan: its streams, buffers, contexts and graphs, and a batch's way through them.

Everything here belongs to one batch at a time; lanes share only the plan's weights and the GPU.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from backend.engines.parts import join_into, joined_shape
from backend.engines.plan_layout import choose_profile, size_bytes
from backend.engines.plan_runtime import Address, Context, Device, Event, Graph, Plan, PlanTensor, Shape, Shapes, Stream
from backend.engines.protocol import Array, Feeds, Ran
from backend.errors import EngineError

T = TypeVar("T")
_log = logging.getLogger("isochrone")


@dataclass(frozen=True)
class Timings:
    """Of one batch on the GPU, between events. What it took beyond their sum was waiting, queueing and Python."""

    copy_in_ns: int
    execution_ns: int
    copy_out_ns: int


@dataclass(frozen=True)
class _Buffer:
    """A tensor's place on the device, and pinned host memory beside it that the copies go through."""

    tensor: PlanTensor
    device: Address
    pinned: Address
    bytes: Array

    def holds(self, shape: Shape) -> bool:
        return -1 not in shape and size_bytes(self.tensor, shape) <= len(self.bytes)

    def view(self, shape: Shape) -> Array:
        """The pinned memory as an array of this shape."""
        return self.bytes[: size_bytes(self.tensor, shape)].view(self.tensor.datatype.numpy).reshape(shape)


@dataclass(frozen=True)
class _Stage:
    """A stream of its own, with events around what a batch does there."""

    stream: Stream
    begin: Event
    end: Event


@dataclass(frozen=True)
class _Prepared:
    """How batches of certain input shapes run, and the outputs' shapes then."""

    enqueue: Callable[[Stream], None]
    outputs: Shapes


class Lane:
    """capacities: bytes that each tensor takes at most. Raises EngineError; nothing is left on the device then."""

    def __init__(self, plan: Plan, device: Device, capacities: Mapping[str, int]) -> None:
        self.timings: Timings | None = None
        """Of the last batch that ended well."""
        self._plan, self._device = plan, device
        self._inputs = [tensor.name for tensor in plan.tensors if tensor.is_input]
        self._graphs: dict[tuple[Shape, ...], _Prepared] = {}
        with ExitStack() as owned:
            self._in, self._run, self._out = self._stages = [self._stage(owned) for _ in range(3)]
            self._buffers = {t.name: self._buffer(owned, t, capacities[t.name]) for t in plan.tensors}
            memory = self._device_memory(owned, plan.activation_bytes)
            self._contexts = [self._context(index, memory) for index in range(len(plan.profiles))]
            owned.callback(self._contexts.clear)
            device.drain(self._run.stream)
            self._owned = owned.pop_all()

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> Ran:
        """One batch, to its end. Raises EngineError; the lane takes the next batch unless the device is lost."""
        shapes = {name: joined_shape(feeds[name]) for name in self._inputs}
        with self._settled():
            prepared = self._graphs.get(_key(shapes)) or self._prepare(shapes)
            self._copy_in(feeds, shapes)
            with self._timed(self._run, after=self._in):
                prepared.enqueue(self._run.stream)
            self._copy_out(outputs, prepared.outputs)
            self._device.synchronize(self._out.end)
        timings = self.timings = Timings(*(self._device.elapsed_ns(stage.begin, stage.end) for stage in self._stages))
        found = [self._buffers[name].view(prepared.outputs[name]).copy() for name in outputs]
        return Ran(found, max(1, timings.execution_ns), timings.copy_in_ns, timings.copy_out_ns)

    def capture(self, shapes: Shapes) -> bool:
        """Keep a CUDA graph for batches of these shapes; False, with the reason in the log, where there can be none."""
        stream = self._run.stream
        try:
            with self._settled():
                prepared = self._prepare(shapes)
                self._copy_in(self._zeros(shapes), shapes)  # what lies in fresh memory could be indices to anywhere
                self._device.drain(self._in.stream)
                prepared.enqueue(stream)  # with new shapes TensorRT has things to finish that are not for a graph
                self._device.drain(stream)
                graph = self._captured(prepared)
        except EngineError as error:
            if self._device.lost:
                raise
            _log.warning("isochrone: no CUDA graph for a batch with inputs %s: %s", dict(shapes), error)
            return False
        self._owned.callback(_quietly, self._device.destroy_graph, graph)
        self._graphs[_key(shapes)] = _Prepared(partial(self._device.launch, graph), prepared.outputs)
        return True

    def close(self) -> None:
        """Give everything back; no batch is under way."""
        self._graphs.clear()
        self._owned.close()

    # A batch

    def _prepare(self, shapes: Shapes) -> _Prepared:
        context = self._contexts[choose_profile(self._plan.profiles, shapes)]
        for name, shape in shapes.items():
            context.set_shape(name, shape)
        outputs = {tensor.name: context.shape(tensor.name) for tensor in self._plan.tensors if not tensor.is_input}
        for name, shape in (*shapes.items(), *outputs.items()):
            if not self._buffers[name].holds(shape):
                raise EngineError(f"'{name}' has shape {list(shape)} in this batch, more than it can have by the plan")
        return _Prepared(context.enqueue, outputs)

    def _zeros(self, shapes: Shapes) -> dict[str, list[Array]]:
        return {name: [np.zeros(shape, self._buffers[name].tensor.datatype.numpy)] for name, shape in shapes.items()}

    def _copy_in(self, feeds: Feeds, shapes: Shapes) -> None:
        """shapes: of the joined inputs, which come together in the pinned memory."""
        for name, shape in shapes.items():
            join_into(self._buffers[name].view(shape), feeds[name])
        with self._timed(self._in):
            for name, shape in shapes.items():
                buffer = self._buffers[name]
                if size := size_bytes(buffer.tensor, shape):
                    self._device.copy_in(buffer.device, buffer.pinned, size, self._in.stream)

    def _copy_out(self, outputs: Sequence[str], shapes: Shapes) -> None:
        with self._timed(self._out, after=self._run):
            for name in outputs:
                buffer = self._buffers[name]
                if size := size_bytes(buffer.tensor, shapes[name]):
                    self._device.copy_out(buffer.pinned, buffer.device, size, self._out.stream)

    def _captured(self, prepared: _Prepared) -> Graph:
        stream = self._run.stream
        self._device.begin_capture(stream)
        try:
            prepared.enqueue(stream)
        except EngineError:
            with suppress(EngineError):  # the reason is the first error
                self._device.destroy_graph(self._device.end_capture(stream))
            raise
        return self._device.end_capture(stream)

    @contextmanager
    def _timed(self, stage: _Stage, after: _Stage | None = None) -> Iterator[None]:
        if after:
            self._device.wait(stage.stream, after.end)
        self._device.record(stage.begin, stage.stream)
        yield
        self._device.record(stage.end, stage.stream)

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """After an error, wait for what was enqueued before it: the next batch uses the same memory."""
        try:
            yield
        except BaseException:
            for stage in self._stages:
                with suppress(EngineError):
                    self._device.drain(stage.stream)
            raise

    # What a lane owns

    def _stage(self, owned: ExitStack) -> _Stage:
        device = self._device
        stream = device.create_stream()
        owned.callback(_quietly, device.destroy_stream, stream)
        begin = device.create_event()
        owned.callback(_quietly, device.destroy_event, begin)
        end = device.create_event()
        owned.callback(_quietly, device.destroy_event, end)
        return _Stage(stream, begin, end)

    def _buffer(self, owned: ExitStack, tensor: PlanTensor, capacity: int) -> _Buffer:
        size = max(capacity, 1)  # an empty tensor needs an address, too
        on_device = self._device_memory(owned, size)
        pinned = self._device.allocate_pinned(size)
        owned.callback(_quietly, self._device.free_pinned, pinned)
        return _Buffer(tensor, on_device, pinned, _bytes_at(pinned, size))

    def _device_memory(self, owned: ExitStack, size: int) -> Address:
        address = self._device.allocate(max(size, 1))
        owned.callback(_quietly, self._device.free, address)
        return address

    def _context(self, profile: int, memory: Address) -> Context:
        """One per profile: a context's graphs are not to outlive a change of its profile."""
        context = self._plan.context(profile, self._run.stream)
        context.set_memory(memory)
        for name, buffer in self._buffers.items():
            context.set_address(name, buffer.device)
        return context


def _quietly(give_back: Callable[[T], None], what: T) -> None:
    """What a lost device holds cannot be given back, and is gone with the process."""
    with suppress(EngineError):
        give_back(what)


def _key(shapes: Shapes) -> tuple[Shape, ...]:
    return tuple(shapes.values())


def _bytes_at(address: Address, size: int) -> Array:
    return np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))
