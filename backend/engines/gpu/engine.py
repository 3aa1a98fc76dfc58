"""Base of the engines on one GPU: the lanes of a model, made as it is loaded, or when a batch comes for one more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Generic, Protocol, TypeVar

from backend.engines.gpu.device import GpuDevice
from backend.engines.protocol import BatchResult
from backend.errors import ConfigError, EngineError
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.tensors import Feeds


class GpuLane(Protocol):
    """Runs one batch at a time."""

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> BatchResult:
        """See `Engine.run`."""

    def close(self) -> None:
        """Free everything; no batch is under way."""


L = TypeVar("L", bound=GpuLane)


class GpuEngine(Generic[L]):
    """`run` may be called from several threads at once, for different lanes.

    make_lane: from a lane's number; raises ConfigError or EngineError, and leaves nothing on the device then, as this
    does.
    """

    def __init__(self, device: GpuDevice, make_lane: Callable[[int], L], lanes: int) -> None:
        self._device, self._make_lane = device, make_lane
        self._lanes: dict[int, L] = {}
        self._growing = threading.Lock()
        with ExitStack() as undone:
            undone.callback(self._close_lanes)
            for index in range(lanes):
                self._lanes[index] = make_lane(index)
            undone.pop_all()

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
        exclusive: bool = False,  # noqa: ARG002 - the calling thread only waits for the GPU
    ) -> BatchResult:
        """See `Engine.run`."""
        with priority:
            if self._device.lost:
                raise EngineError(
                    f"GPU {self._device.index} failed while this process used it ({self._device.lost}) and is lost to "
                    "it; unload the model and load it again"
                )
            self._device.activate()
            return (self._lanes.get(lane) or self._add_lane(lane)).run(feeds, outputs)

    def close(self) -> None:
        """See `Engine.close`."""
        if not self._device.lost:
            self._device.activate()
        self._close_lanes()

    def _close_lanes(self) -> None:
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def _add_lane(self, index: int) -> L:
        """Make a lane beyond those at load: the device's scheduler may run more than this model was configured for."""
        with self._growing:
            try:
                lane = self._lanes[index] = self._make_lane(index)
            except ConfigError as error:
                raise EngineError(f"there is no room for lane {index}: {error}") from None
            return lane
