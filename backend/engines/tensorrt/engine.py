"""A loaded plan as an engine: a lane of its own for each batch that may run at a time. Imports nothing of NVIDIA's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from backend.device import mps
from backend.engines.gpu.lanes import GpuLanes
from backend.engines.gpu.runtime import Device
from backend.engines.gpu.transfers import Timings
from backend.engines.protocol import EngineOptions, Ran
from backend.engines.ready_batches import ready_batches
from backend.engines.tensorrt.lane import Lane
from backend.engines.tensorrt.plan_layout import admits, check_batches, largest_shapes, specs
from backend.engines.tensorrt.plan_memory import Budget, check_budget
from backend.engines.tensorrt.plan_runtime import Plan
from backend.errors import ConfigError, EngineError
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.tensors import Feeds


class TensorRtEngine:
    """See `Engine`. `run` may be called from several threads at once, for different lanes.

    file: for what is said of it. Raises ConfigError, and leaves nothing on the device then.
    """

    def __init__(self, plan: Plan, device: Device, file: Path, options: EngineOptions) -> None:
        self._plan, self._device, self._file, self._options = plan, device, file, options
        check_batches(file, plan.tensors, plan.profiles, options.max_batch_size)
        self.inputs = specs(plan.tensors, inputs=True)
        self.outputs = specs(plan.tensors, inputs=False)
        self._capacities = _capacities(plan, device, file, options.max_batch_size)
        self._copies: list[Plan] = []
        self._has_graphs = True
        check_budget(self._budget(options.lanes, options.lanes - 1), file, device.index, device.memory())
        with ExitStack() as undone:
            undone.callback(self._close_copies)
            self._lanes = GpuLanes(device, self._lane, options.lanes)
            undone.pop_all()
        graphs = f"{'with' if self._has_graphs else 'without'} CUDA graphs"
        self.identity = ", ".join(filter(None, (f"tensorrt {plan.version}", graphs, mps.stated_share())))

    @property
    def lost(self) -> str | None:
        """See `Engine.lost`."""
        return self._device.lost

    def run(
        self,
        lane: int,
        feeds: Feeds,
        outputs: Sequence[str],
        priority: ExecutionPriority = ORDINARY_PRIORITY,
        *,
        exclusive: bool = False,  # noqa: ARG002
    ) -> Ran:
        """See `Engine.run`."""
        with priority:
            return self._lanes.run(lane, feeds, outputs)

    def timings(self, lane: int) -> Timings | None:
        """Of the last batch that ended well on a lane; for the thread that ran it."""
        return self._lanes.timings(lane)

    def close(self) -> None:
        """See `Engine.close`."""
        self._lanes.close()
        self._close_copies()
        self._plan.close()

    def _close_copies(self) -> None:
        for copy in self._copies:
            copy.close()
        self._copies.clear()

    def _lane(self, index: int) -> Lane:
        """Raises ConfigError where it does not fit."""
        budget, memory = self._budget(1, min(index, 1)), self._device.memory()
        check_budget(budget, self._file, self._device.index, memory)
        with ExitStack() as undone:
            plan = self._plan
            if index > 0 and not plan.shares_profiles:
                plan = plan.again()
                undone.callback(plan.close)
            try:
                lane = Lane(plan, self._device, self._capacities, self._options.priority)
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

    def _budget(self, lanes: int, copies: int) -> Budget:
        weights_bytes = 0 if self._plan.shares_profiles else copies * self._plan.weights_bytes
        return Budget(weights_bytes, self._plan.activation_bytes + sum(self._capacities.values()), lanes)

    def _capture(self, lane: Lane) -> bool:
        """Graphs for the batch sizes that decide all shapes; False where some of them has none.

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


def _capacities(plan: Plan, device: Device, file: Path, max_batch_size: int) -> dict[str, int]:
    """Bytes that each tensor takes at most, over all profiles. Raises ConfigError where only the data decide."""
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
