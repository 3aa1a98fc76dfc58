"""Calls of gRPC beside the main thread, so that Ctrl-C cannot break them off half-way.

The exception that a signal raises may strike between the taking of a lock and the `with` that would give it back; once
a lock of gRPC's is lost so, closing the channel waits for ever. Signals reach the main thread only, which here does
nothing but sleep and look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
_NAP_S = 0.02
_STOP_S = 10.0  # for requests in flight to be called off


class Interruption:
    """Work sleeps by it, or looks at `asked` every few hundredths of a second, and returns early once that is set."""

    asked = False

    def sleep(self, seconds: float) -> None:
        """Sleeps to the microsecond, or until an interrupt is asked for."""
        end_s = time.monotonic() + seconds
        while not self.asked and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _NAP_S))


def interruptible(work: Callable[[Interruption], T]) -> T:
    """Returns what `work` returns, or raises what it raises, from a thread of its own.

    An interrupt meanwhile is raised once that has ended, or what `work` raises of it is.
    """
    interruption = Interruption()
    ended: list[Future[T]] = []

    def run() -> None:
        outcome: Future[T] = Future()
        try:
            outcome.set_result(work(interruption))
        except BaseException as error:  # the caller's, whatever it is
            outcome.set_exception(error)
        ended.append(outcome)

    try:
        Thread(target=run, name="load", daemon=True).start()
        while not ended:
            time.sleep(_NAP_S)
    except KeyboardInterrupt:
        interruption.asked = True
        stop_s = time.monotonic() + _STOP_S
        while not ended and time.monotonic() < stop_s:
            time.sleep(_NAP_S)
        for outcome in ended:
            outcome.result()
        raise
    return ended[0].result()
