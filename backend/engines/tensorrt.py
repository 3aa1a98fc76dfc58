"""A loaded plan as an engine: a lane of its own for each batch that may run at a time. Imports nothing of NVIDIA's."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from backend.device import mps
from backend.engines.plan_layout import (
    admits,
    batch_shapes,
    check_batches,
    graph_sizes,
    largest_shapes,
    size_bytes,
    specs,
)
from backend.engines.plan_memory import Budget, check_budget
from backend.engines.plan_runtime import Device, Plan
from backend.engines.protocol import Feeds, Ran
from backend.engines.tensorrt_lane import Lane, Timings
from backend.errors import ConfigError, EngineError


class TensorRtEngine:
    """See `Engine`. `run` may be called from several threads at once, for different lanes.

    file: for what is said of it. lanes: to be had at once; one more is made when a batch comes for it.
    max_batch_size: 0 where the model does not batch. Raises ConfigError, and leaves nothing on the device then.
    """

    def __init__(self, plan: Plan, device: Device, file: Path, *, lanes: int, max_batch_size: int) -> None:
        self._plan, self._device, self._file = plan, device, file
        check_batches(file, plan.tensors, plan.profiles, max_batch_size)
        self.inputs = specs(plan.tensors, inputs=True)
        self.outputs = specs(plan.tensors, inputs=False)
        self._capacities = _capacities(plan, device, file, max_batch_size)
        self._graph_sizes = graph_sizes(max_batch_size)
        self._has_graphs = False
        self._lanes: dict[int, Lane] = {}
        self._growing = threading.Lock()
        with ExitStack() as undone:
            undone.callback(self._close_lanes)
            self._add_lanes(range(lanes))
            undone.pop_all()
        share = mps.share_percent()
        self.identity = ", ".join(
            [
                f"tensorrt {plan.version}",
                f"{'with' if self._has_graphs else 'without'} CUDA graphs",
                *([f"{share} % of the multiprocessors"] if share else []),
            ]
        )

    def run(self, lane: int, feeds: Feeds, outputs: Sequence[str]) -> Ran:
        """See `Engine.run`."""
        if self._device.lost:
            raise EngineError(
                f"GPU {self._device.index} failed while this process used it ({self._device.lost}) and is lost to it; "
                "unload the model and load it again"
            )
        self._device.activate()
        return (self._lanes.get(lane) or self._one_more(lane)).run(feeds, outputs)

    def timings(self, lane: int) -> Timings | None:
        """Of the last batch that ended well on a lane; for the thread that ran it."""
        found = self._lanes.get(lane)
        return found.timings if found else None

    def close(self) -> None:
        """See `Engine.close`."""
        if not self._device.lost:
            self._device.activate()
        self._close_lanes()
        self._plan.close()

    def _one_more(self, index: int) -> Lane:
        """The device's scheduler runs more lanes than this model was told of."""
        with self._growing:
            try:
                self._add_lanes([index])
            except ConfigError as error:
                raise EngineError(f"there is no room for lane {index}: {error}") from None
            return self._lanes[index]

    def _add_lanes(self, indices: Sequence[int]) -> None:
        """Raises ConfigError where they do not fit."""
        budget = Budget(0, self._plan.activation_bytes + sum(self._capacities.values()), len(indices))
        memory = self._device.memory()
        check_budget(budget, self._file, self._device.index, memory)
        for index in indices:
            try:
                lane = self._lanes[index] = Lane(self._plan, self._device, self._capacities)
            except EngineError as error:
                raise ConfigError(
                    f"lane {index} of '{self._file}' cannot be had: {error}; "
                    + budget.sentence(self._file, self._device.index, memory)
                ) from None
            self._has_graphs = self._capture(lane)

    def _capture(self, lane: Lane) -> bool:
        """Graphs for the batch sizes that decide all shapes; False where some of them has none."""
        shapes = (batch_shapes(self._plan.tensors, size) for size in self._graph_sizes)
        return all(known is not None and lane.capture(known) for known in shapes)

    def _close_lanes(self) -> None:
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()


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
                most[tensor.name] = max(most[tensor.name], size_bytes(tensor, shape))
        device.drain(stream)
    finally:
        device.destroy_stream(stream)
    return most
