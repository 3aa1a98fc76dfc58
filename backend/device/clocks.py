"""Throttling of a device's clocks, for those who record what ran on it; never asked for while a batch waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from backend.device.facts import open_gpu
from backend.errors import ConfigError

ASK_EVERY_S = 1.0
Throttled = Callable[[], bool | None]
"""True: the device is throttled by heat or power. None: unknown."""
_log = logging.getLogger("isochrone.scheduler")


def throttled_of(device: str) -> Throttled:
    """Throttling of a device by its name, "cpu" or "gpu-0"; a GPU that cannot be asked is logged as a warning."""
    kind, _, index = device.partition("-")
    if kind != "gpu" or not index.isdecimal():
        return lambda: None
    try:
        gpu = open_gpu(int(index))
    except ConfigError as error:
        _log.warning("samples do not tell whether the clocks of %s were throttled: %s", device, error)
        return lambda: None

    def ask() -> bool | None:
        causes = gpu.slowed_by()
        return None if causes is None else bool(causes)

    return CachedAnswer(ask)


class CachedAnswer:
    """A driver's last answer, asked for again once it is `ASK_EVERY_S` old. For one thread."""

    def __init__(self, ask: Throttled, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._asked_s = float("-inf")
        self._answer: bool | None = None

    def __call__(self) -> bool | None:
        if self._clock() - self._asked_s >= ASK_EVERY_S:
            self._asked_s, self._answer = self._clock(), self._ask()
        return self._answer
