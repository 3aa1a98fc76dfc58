"""The lanes of a model on one GPU, whatever the engine: made ahead, and one more when a batch comes for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Generic, Protocol, TypeVar

from backend.engines.gpu.runtime import Device
from backend.engines.gpu.transfers import Timings
from backend.engines.protocol import Ran
from backend.errors import ConfigError, EngineError
from backend.tensors import Feeds


class LaneOnGpu(Protocol):
    """Runs one batch at a time."""

    @property
    def timings(self) -> Timings | None:
        """Of the last batch that ended well."""

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> Ran:
        """See `Engine.run`."""

    def close(self) -> None:
        """Give everything back; no batch is under way."""


L = TypeVar("L", bound=LaneOnGpu)


class GpuLanes(Generic[L]):
    """`run` may be called from several threads at once, for different lanes.

    make: of a lane's number; raises ConfigError or EngineError, and leaves nothing on the device then, as this does.
    """

    def __init__(self, device: Device, make: Callable[[int], L], count: int) -> None:
        self._device, self._make = device, make
        self._lanes: dict[int, L] = {}
        self._growing = threading.Lock()
        with ExitStack() as undone:
            undone.callback(self._close_all)
            for index in range(count):
                self._lanes[index] = make(index)
            undone.pop_all()

    @property
    def first(self) -> L:
        """The lane 0."""
        return self._lanes[0]

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
        """No batch is under way."""
        if not self._device.lost:
            self._device.activate()
        self._close_all()

    def _close_all(self) -> None:
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def _one_more(self, index: int) -> L:
        """The device's scheduler runs more lanes than this model was told of."""
        with self._growing:
            try:
                lane = self._lanes[index] = self._make(index)
            except ConfigError as error:
                raise EngineError(f"there is no room for lane {index}: {error}") from None
            return lane
