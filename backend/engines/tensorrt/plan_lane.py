"""One lane of a plan: its buffers on the device, contexts and graphs; `lane_streams` copies in and out.

Everything here belongs to one batch at a time; lanes share only the plan's weights and the GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

from backend.engines.gpu.device import Address, CudaGraph, GpuDevice, Shape, Shapes, Stream
from backend.engines.gpu.lane_streams import DeviceTensor, LaneStreams, quietly
from backend.engines.protocol import BatchResult
from backend.engines.tensorrt.plan_layout import choose_profile
from backend.engines.tensorrt.plan_runtime import LoadedPlan, PlanContext
from backend.errors import EngineError
from backend.tensors import Feeds, joined_shape

_log = logging.getLogger("isochrone")


@dataclass(frozen=True)
class _Prepared:
    """Call that runs batches of certain input shapes, and the shapes of their outputs."""

    enqueue: Callable[[Stream], None]
    outputs: Shapes


class PlanLane:
    """capacities: largest size of each tensor in bytes. priority: of its kernels.

    Raises EngineError; nothing is left on the device then.
    """

    def __init__(self, plan: LoadedPlan, device: GpuDevice, capacities: Mapping[str, int], priority: int) -> None:
        self._plan, self._device, self._capacities = plan, device, capacities
        self._tensors = {tensor.name: tensor for tensor in plan.tensors}
        self._inputs = [tensor.name for tensor in plan.tensors if tensor.is_input]
        self._graphs: dict[tuple[Shape, ...], _Prepared] = {}
        with ExitStack() as owned:
            self._streams = LaneStreams(device, priority)
            owned.callback(self._streams.close)
            for tensor in plan.tensors:
                self._streams.reserve(tensor.name, capacities[tensor.name], is_input=tensor.is_input)
            self._addresses = {name: self._device_memory(owned, size) for name, size in capacities.items()}
            self._memory = self._device_memory(owned, plan.activation_bytes)
            self._contexts = [self._context(index) for index in range(len(plan.profiles))]
            owned.callback(self._contexts.clear)
            self._captured: list[PlanContext] = []
            owned.callback(self._captured.clear)
            device.drain(self._streams.execution)
            self._owned = owned.pop_all()

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> BatchResult:
        """Run one batch to its end. Raises EngineError; the lane takes the next batch unless the device is lost."""
        shapes = {name: joined_shape(feeds[name]) for name in self._inputs}
        prepared = self._graphs.get(_key(shapes)) or self._prepare(self._contexts[self._profile(shapes)], shapes)

        def execute(stream: Stream) -> list[DeviceTensor]:
            prepared.enqueue(stream)
            return self._placed((name, prepared.outputs[name]) for name in outputs)

        return self._streams.run(feeds, self._placed(shapes.items()), execute)

    def capture(self, feeds: Feeds) -> bool:
        """Capture a CUDA graph for batches of these shapes; False where that is impossible, which is logged.

        feeds: run once before, so indices among them must be valid.

        A graph leans on what its context holds, which a change of shapes would change, so each has a context of its own
        (TensorRT's developers in its issue 3798).
        """
        stream, shapes = self._streams.execution, {name: joined_shape(feeds[name]) for name in self._inputs}
        try:
            with self._streams.draining_on_error():
                context = self._context(self._profile(shapes))
                prepared = self._prepare(context, shapes)
                self._streams.copy_in(feeds, self._placed(shapes.items()))
                prepared.enqueue(stream)  # with new shapes TensorRT has things to finish that are not for a graph
                self._device.drain(stream)
                graph = self._capture(prepared)
        except EngineError as error:
            if self._device.lost:
                raise
            _log.warning("isochrone: no CUDA graph for a batch with inputs %s: %s", shapes, error)
            return False
        self._captured.append(context)
        self._owned.callback(quietly, self._device.destroy_graph, graph)
        self._graphs[_key(shapes)] = _Prepared(partial(self._device.launch, graph), prepared.outputs)
        return True

    def close(self) -> None:
        """Free everything; no batch is under way."""
        self._graphs.clear()
        self._owned.close()

    # A batch

    def _profile(self, shapes: Shapes) -> int:
        return choose_profile(self._plan.profiles, shapes)

    def _prepare(self, context: PlanContext, shapes: Shapes) -> _Prepared:
        for name, shape in shapes.items():
            context.set_shape(name, shape)
        outputs = {tensor.name: context.shape(tensor.name) for tensor in self._plan.tensors if not tensor.is_input}
        for place in self._placed((*shapes.items(), *outputs.items())):
            if -1 in place.shape or place.size_bytes > self._capacities[place.name]:
                raise EngineError(
                    f"'{place.name}' has shape {list(place.shape)} in this batch, more than it can have by the plan"
                )
        return _Prepared(context.enqueue, outputs)

    def _placed(self, shapes: Iterable[tuple[str, Shape]]) -> list[DeviceTensor]:
        return [
            DeviceTensor(name, self._tensors[name].datatype, shape, self._addresses[name]) for name, shape in shapes
        ]

    def _capture(self, prepared: _Prepared) -> CudaGraph:
        stream = self._streams.execution
        self._device.begin_capture(stream)
        try:
            prepared.enqueue(stream)
        except EngineError:
            with suppress(EngineError):  # the reason is the first error
                self._device.destroy_graph(self._device.end_capture(stream))
            raise
        return self._device.end_capture(stream)

    # Memory and contexts

    def _device_memory(self, owned: ExitStack, size: int) -> Address:
        address = self._device.allocate(max(size, 1))  # an empty tensor needs an address, too
        owned.callback(quietly, self._device.free, address)
        return address

    def _context(self, profile: int) -> PlanContext:
        """Create a context in the lane's memory, which its contexts use in turn."""
        context = self._plan.context(profile, self._streams.execution)
        context.set_memory(self._memory)
        for name, address in self._addresses.items():
            context.set_address(name, address)
        return context


def _key(shapes: Shapes) -> tuple[Shape, ...]:
    return tuple(shapes.values())
