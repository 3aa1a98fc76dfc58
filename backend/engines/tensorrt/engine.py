"""TensorRT as an engine: a loaded plan, and a lane per batch that may run at a time. Imports nothing of NVIDIA's."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from backend.device import mps
from backend.engines.gpu.device import GpuDevice
from backend.engines.gpu.engine import GpuEngine
from backend.engines.protocol import EngineOptions
from backend.engines.ready_batches import ready_batches
from backend.engines.tensorrt.plan_lane import PlanLane
from backend.engines.tensorrt.plan_layout import admits, check_batches, largest_shapes, specs
from backend.engines.tensorrt.plan_memory import MemoryBudget, check_budget
from backend.engines.tensorrt.plan_runtime import LoadedPlan
from backend.errors import ConfigError, EngineError


class TensorRtEngine(GpuEngine[PlanLane]):
    """See `Engine`. file: for error messages. Raises ConfigError, and leaves nothing on the device then."""

    def __init__(self, plan: LoadedPlan, device: GpuDevice, file: Path, options: EngineOptions) -> None:
        self._plan, self._device, self._file, self._options = plan, device, file, options
        check_batches(file, plan.tensors, plan.profiles, options.max_batch_size)
        self.inputs = specs(plan.tensors, inputs=True)
        self.outputs = specs(plan.tensors, inputs=False)
        self._capacities = _capacities(plan, device, file, options.max_batch_size)
        self._copies: list[LoadedPlan] = []
        self._has_graphs = True
        check_budget(self._budget(options.lanes, options.lanes - 1), file, device.index, device.memory())
        with ExitStack() as undone:
            undone.callback(self._close_copies)
            super().__init__(device, self._open_lane, options.lanes)
            undone.pop_all()
        graphs = f"{'with' if self._has_graphs else 'without'} CUDA graphs"
        self.identity = ", ".join(filter(None, (f"tensorrt {plan.version}", graphs, mps.stated_share())))

    def close(self) -> None:
        """See `Engine.close`."""
        super().close()
        self._close_copies()
        self._plan.close()

    def _close_copies(self) -> None:
        for copy in self._copies:
            copy.close()
        self._copies.clear()

    def _open_lane(self, index: int) -> PlanLane:
        """Open a lane, with a copy of the plan where each can have one context per profile only. Raises ConfigError."""
        budget, memory = self._budget(1, min(index, 1)), self._device.memory()
        check_budget(budget, self._file, self._device.index, memory)
        with ExitStack() as undone:
            plan = self._plan
            if index > 0 and not plan.shares_profiles:
                plan = plan.again()
                undone.callback(plan.close)
            try:
                lane = PlanLane(plan, self._device, self._capacities, self._options.priority)
            except EngineError as error:
                raise ConfigError(
                    f"lane {index} of '{self._file}' cannot be had: {error}; "
                    + budget.sentence(self._file, self._device.index, memory)
                ) from None
            undone.callback(lane.close)
            self._has_graphs &= self._capture(lane)
            undone.pop_all()
        if plan is not self._plan:
            self._copies.append(plan)
        return lane

    def _budget(self, lanes: int, copies: int) -> MemoryBudget:
        weights_bytes = 0 if self._plan.shares_profiles else copies * self._plan.weights_bytes
        return MemoryBudget(weights_bytes, self._plan.activation_bytes + sum(self._capacities.values()), lanes)

    def _capture(self, lane: PlanLane) -> bool:
        """Capture graphs for the batch sizes that decide all shapes; False where one of them has none.

        A graph needs a context of its own beside the one that its profile has for other shapes.
        """
        captured = False
        if not self._plan.shares_profiles:
            return captured
        for feeds in ready_batches(self.inputs, self._options.max_batch_size):
            captured = lane.capture(feeds)
            if not captured:
                break
        return captured


def _capacities(plan: LoadedPlan, device: GpuDevice, file: Path, max_batch_size: int) -> dict[str, int]:
    """Largest size of each tensor in bytes, over all profiles. Raises ConfigError where only the data decide it."""
    most = {tensor.name: 0 for tensor in plan.tensors}
    stream = device.create_stream()
    try:
        for index, profile in enumerate(plan.profiles):
            shapes = largest_shapes(profile, max_batch_size)
            if not admits(profile, shapes):  # it is for batches above max_batch_size
                continue
            context = plan.context(index, stream)
            for name, shape in shapes.items():
                context.set_shape(name, shape)
            for tensor in plan.tensors:
                shape = shapes[tensor.name] if tensor.is_input else context.shape(tensor.name)
                if -1 in shape:
                    raise ConfigError(
                        f"output '{tensor.name}' of '{file}' has shape {list(shape)}, which the data decide; "
                        "that cannot be served from a plan, use a model.onnx"
                    )
                most[tensor.name] = max(most[tensor.name], tensor.datatype.size_bytes(shape))
        device.drain(stream)
    finally:
        device.destroy_stream(stream)
    return most
