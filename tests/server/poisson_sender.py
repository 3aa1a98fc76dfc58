"""A thread that sends at its own times, whatever the server does: exponential gaps, and a count of what is in flight.

Knows no client and keeps no account: whoever uses it sends, and tells it of each answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from numpy.random import Generator


class PoissonSender:
    """Calls `send` at `rate_per_s` from `start` to `stop`, and `withhold` in its place while `in_flight_max` are out.

    random: draws the gaps. Each call of `send` is to be followed by one of `answered`, from any thread.
    """

    def __init__(
        self,
        name: str,
        rate_per_s: float,
        random: Generator,
        in_flight_max: int,
        send: Callable[[], None],
        withhold: Callable[[], None],
    ) -> None:
        self._rate_per_s, self._random, self._in_flight_max = rate_per_s, random, in_flight_max
        self._send, self._withhold = send, withhold
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Send the first one at once."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()
        self._thread.join()

    def answered(self) -> None:
        """Note that one is out no longer: it has an answer, or an error."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until none is out, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight == 0, timeout_s)

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            (self._send if self._reserve() else self._withhold)()
            due_s += self._random.exponential(1 / self._rate_per_s)

    def _reserve(self) -> bool:
        """Count one more in flight; False where there are as many as may be."""
        with self._changed:
            if self._in_flight >= self._in_flight_max:
                return False
            self._in_flight += 1
            return True
