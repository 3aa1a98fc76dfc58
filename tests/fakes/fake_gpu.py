"""A GPU and a plan without either: nothing on a stream happens before somebody waits, and then only what that needs.

So a copy that is read too early, or a stream that does not wait for another, gives wrong answers, as it may on a GPU.
Time is counted, not passed: each copy and each run takes what the test says.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backend.engines.gpu.device import Address, CudaGraph, Event, GpuMemory, Shape, Stream
from backend.engines.gpu.lane_streams import DeviceTensor
from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.errors import EngineError
from backend.tensors import BY_CONFIG, Array

GARBAGE = 0xA5
COPY_NS_PER_BYTE = 2
RUN_NS = 1_000_000
GIB = 1 << 30

Outputs = Mapping[str, Array]


@dataclass
class _Op:
    """Something on a stream. after: the stream and length of it that must have happened before."""

    action: Callable[[], None]
    duration_ns: int = 0
    after: tuple[Stream, int] | None = None


@dataclass
class _Queue:
    ops: list[_Op] = field(default_factory=list)
    done: int = 0
    now_ns: int = 0


class FakeDevice:
    """See `gpu_runtime.Device`. failures: name of a call → what it raises, once."""

    def __init__(self, *, memory_bytes: int = GIB, index: int = 0) -> None:
        self.index = index
        self.lost: str | None = None
        self.failures: dict[str, EngineError] = {}
        self.memory_bytes = memory_bytes
        self._allocated: dict[Address, ctypes.Array[ctypes.c_ubyte]] = {}
        self._pinned: dict[Address, ctypes.Array[ctypes.c_ubyte]] = {}
        self._queues: dict[Stream, _Queue] = {}
        self._events: dict[Event, tuple[Stream, int] | None] = {}
        self._times: dict[Event, int] = {}
        self._capturing: dict[Stream, list[_Op]] = {}
        self._graphs: dict[CudaGraph, list[_Op]] = {}
        self._handles = 0
        self.launched = 0
        self.priorities: dict[Stream, int | None] = {}
        """Of all streams that there ever were."""

    @property
    def held(self) -> dict[str, int]:
        """What was asked for and not given back."""
        kinds = {
            "bytes": sum(map(len, self._allocated.values())),
            "pinned": len(self._pinned),
            "streams": len(self._queues),
            "events": len(self._events),
            "graphs": len(self._graphs),
        }
        return {kind: count for kind, count in kinds.items() if count}

    @property
    def streams(self) -> list[Stream]:
        """Those that there are."""
        return list(self._queues)

    def activate(self) -> None:
        self._called("activate")

    def memory(self) -> GpuMemory:
        self._called("memory")
        return GpuMemory(self.memory_bytes - self.held.get("bytes", 0), self.memory_bytes)

    def allocate(self, size_bytes: int) -> Address:
        self._called("allocate")
        if size_bytes > self.memory().free_bytes:
            raise EngineError(f"GPU {self.index}: allocating {size_bytes} bytes failed: out of memory")
        return _bytes(self._allocated, size_bytes)

    def free(self, address: Address) -> None:
        self._called("free")
        del self._allocated[address]

    def allocate_pinned(self, size_bytes: int) -> Address:
        self._called("allocate_pinned")
        return _bytes(self._pinned, size_bytes)

    def free_pinned(self, address: Address) -> None:
        self._called("free_pinned")
        del self._pinned[address]

    def create_stream(self, priority: int | None = None) -> Stream:
        self._called("create_stream")
        stream = Stream(self._handle())
        self.priorities[stream] = priority
        self._queues[stream] = _Queue()
        return stream

    def destroy_stream(self, stream: Stream) -> None:
        self._called("destroy_stream")
        del self._queues[stream]

    def drain(self, stream: Stream) -> None:
        self._called("drain")
        self._happen(stream, len(self._queues[stream].ops))

    def create_event(self) -> Event:
        self._called("create_event")
        event = Event(self._handle())
        self._events[event] = None
        return event

    def destroy_event(self, event: Event) -> None:
        self._called("destroy_event")
        del self._events[event]

    def record(self, event: Event, stream: Stream) -> None:
        self._called("record")
        queue = self._queues[stream]

        def stamp() -> None:
            self._times[event] = queue.now_ns

        self.put(stream, stamp, 0)
        self._events[event] = (stream, len(queue.ops))

    def wait(self, stream: Stream, event: Event) -> None:
        self._called("wait")
        self._queues[stream].ops.append(_Op(lambda: None, after=self._events[event]))

    def synchronize(self, event: Event) -> None:
        self._called("synchronize")
        recorded = self._events[event]
        if recorded:
            self._happen(*recorded)

    def elapsed_ns(self, start: Event, end: Event) -> int:
        self._called("elapsed_ns")
        return self._times[end] - self._times[start]

    def copy_in(self, target: Address, source: Address, size_bytes: int, stream: Stream) -> None:
        self._called("copy_in")
        self._copy(_whole(self._allocated, target), _whole(self._pinned, source), size_bytes, stream)

    def copy_out(self, target: Address, source: Address, size_bytes: int, stream: Stream) -> None:
        self._called("copy_out")
        self._copy(_whole(self._pinned, target), _whole(self._allocated, source), size_bytes, stream)

    def begin_capture(self, stream: Stream) -> None:
        self._called("begin_capture")
        self._capturing[stream] = []

    def end_capture(self, stream: Stream) -> CudaGraph:
        ops = self._capturing.pop(stream)
        self._called("end_capture")
        graph = CudaGraph(self._handle())
        self._graphs[graph] = ops
        return graph

    def launch(self, graph: CudaGraph, stream: Stream) -> None:
        self._called("launch")
        self.launched += 1
        self._queues[stream].ops.extend(self._graphs[graph])

    def destroy_graph(self, graph: CudaGraph) -> None:
        self._called("destroy_graph")
        del self._graphs[graph]

    def put(self, stream: Stream, action: Callable[[], None], duration_ns: int) -> None:
        """What a kernel does: on the stream, or in the graph that is being captured there."""
        self._capturing.get(stream, self._queues[stream].ops).append(_Op(action, duration_ns))

    def captures(self, stream: Stream) -> bool:
        """Whether what is put there goes into a graph."""
        return stream in self._capturing

    def array(self, place: DeviceTensor) -> Array:
        """A tensor in device memory. Fails where it would not fit."""
        size, memory = place.size_bytes, _whole(self._allocated, place.address)
        assert size <= len(memory), f"'{place.name}' of {size} bytes in {len(memory)}: a GPU would write past the end"
        return memory[:size].view(place.datatype.numpy).reshape(place.shape)

    def _copy(self, target: Array, source: Array, size_bytes: int, stream: Stream) -> None:
        assert size_bytes <= min(len(target), len(source)), "a copy past the end"

        def copy() -> None:
            target[:size_bytes] = source[:size_bytes]

        self.put(stream, copy, size_bytes * COPY_NS_PER_BYTE)

    def _happen(self, stream: Stream, count: int) -> None:
        queue = self._queues[stream]
        while queue.done < count:
            op = queue.ops[queue.done]
            if op.after:
                self._happen(*op.after)
                queue.now_ns = max(queue.now_ns, self._queues[op.after[0]].now_ns)
            queue.done += 1
            queue.now_ns += op.duration_ns
            try:
                op.action()
            except EngineError as error:
                self.lost = str(error)
                raise

    def _called(self, name: str) -> None:
        if self.lost:
            raise EngineError(f"GPU {self.index}: {name} failed: {self.lost}")
        if error := self.failures.pop(name, None):
            raise error

    def _handle(self) -> int:
        self._handles += 1
        return self._handles


class FakePlan:
    """See `plan_runtime.Plan`. compute: the outputs of a batch, from its inputs. refuses: name of a call → once."""

    version = "10.0"

    def __init__(
        self,
        device: FakeDevice,
        tensors: Sequence[PlanTensor],
        profiles: Sequence[OptimizationProfile],
        shapes: Callable[[Mapping[str, Shape]], Mapping[str, Shape]],
        compute: Callable[[Mapping[str, Array]], Outputs],
        *,
        activation_bytes: int = 4096,
        shares_profiles: bool = True,
    ) -> None:
        self.device, self.tensors, self.profiles = device, tensors, profiles
        self.output_shapes, self.compute = shapes, compute
        self.activation_bytes, self.weights_bytes = activation_bytes, 1 << 20
        self.shares_profiles = shares_profiles
        self.copies: list[FakePlan] = []
        self._contexts: weakref.WeakValueDictionary[int, FakeContext] = weakref.WeakValueDictionary()
        """By profile, the last that is in use."""
        self.refuses: dict[str, EngineError] = {}
        self.closed = False

    def again(self) -> FakePlan:
        self.refused("again")
        copy = FakePlan(
            *(self.device, self.tensors, self.profiles, self.output_shapes, self.compute),
            activation_bytes=self.activation_bytes,
            shares_profiles=self.shares_profiles,
        )
        self.copies.append(copy)
        return copy

    def context(self, profile: int, stream: Stream) -> FakeContext:
        self.refused("context")
        if profile in self._contexts and not self.shares_profiles:
            raise EngineError(f"Profile {profile} has been chosen by another IExecutionContext")
        self._contexts[profile] = context = FakeContext(self, self.profiles[profile], stream)
        return context

    def close(self) -> None:
        self.closed = True

    def refused(self, call: str) -> None:
        if error := self.refuses.pop(call, None):
            raise error


class FakeContext:
    """See `plan_runtime.Context`."""

    def __init__(self, plan: FakePlan, profile: OptimizationProfile, stream: Stream) -> None:
        self._plan, self._profile = plan, profile
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, Address] = {}
        self._memory: Address | None = None
        plan.device.put(stream, lambda: None, 0)

    def set_memory(self, address: Address) -> None:
        self._memory = address

    def set_shape(self, name: str, shape: Shape) -> None:
        low, high = self._profile.smallest[name], self._profile.largest[name]
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            raise EngineError(f"{shape} of '{name}' is not in the profile")
        self._shapes[name] = shape

    def shape(self, name: str) -> Shape:
        return self._plan.output_shapes(self._shapes)[name]

    def set_address(self, name: str, address: Address) -> None:
        self._addresses[name] = address

    def enqueue(self, stream: Stream) -> None:
        self._plan.refused("enqueue")
        assert self._memory is not None, "a run without memory to work in"
        device, plan, inputs = self._plan.device, self._plan, dict(self._shapes)
        outputs = plan.output_shapes(inputs)
        arrays = {
            t.name: device.array(
                DeviceTensor(t.name, t.datatype, (inputs if t.is_input else outputs)[t.name], self._addresses[t.name])
            )
            for t in plan.tensors
        }

        captured = device.captures(stream)

        def kernel() -> None:
            if captured and self._shapes != inputs:  # a graph leans on what its context holds of these shapes
                for name in outputs:
                    arrays[name].view(np.uint8)[...] = GARBAGE
                return
            for name, result in plan.compute({name: arrays[name].copy() for name in inputs}).items():
                arrays[name][...] = result

        device.put(stream, kernel, RUN_NS)


def tensor(name: str, shape: Shape, config: str = "TYPE_FP32", *, is_input: bool) -> PlanTensor:
    return PlanTensor(name, BY_CONFIG[config], shape, is_input)


def _bytes(owners: dict[Address, ctypes.Array[ctypes.c_ubyte]], size_bytes: int) -> Address:
    assert size_bytes > 0, "no bytes have no address"
    memory = (ctypes.c_ubyte * size_bytes)()
    ctypes.memset(memory, GARBAGE, size_bytes)
    address = Address(ctypes.addressof(memory))
    owners[address] = memory
    return address


def _whole(owners: dict[Address, ctypes.Array[ctypes.c_ubyte]], address: Address) -> Array:
    return np.ctypeslib.as_array(owners[address])
