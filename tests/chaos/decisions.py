"""A subscriber to the device's published state that notes when the scheduler decided for which model."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

_AGAIN_S = 0.05
_READ_S = 1.0
_KEPT_S = 300.0
_HELLO = b'{"type": "subscribe", "protocol": 1}\n'


@dataclass(frozen=True)
class Seen:
    """One snapshot: requests received by model, and models that have a batch running."""

    at_s: float
    publisher: str
    arrivals: dict[str, int]
    running: frozenset[str]


class Decisions:
    """A context manager; follows the device's scheduler from one process of it to the next."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._closing = threading.Event()
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="chaos-decisions", daemon=True)

    def __enter__(self) -> Decisions:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=5.0)

    def resumed_after_s(self, since_s: float, models: Collection[str]) -> float | None:
        """Time from `since_s` until one scheduler had received requests of all these models and run a batch of each."""
        with self._lock:
            seen = [one for one in self._seen if one.at_s >= since_s]
        last_s = {publisher: resumed_s(seen, publisher, models) for publisher in {one.publisher for one in seen}}
        found = [at_s - since_s for at_s in last_s.values() if at_s is not None]
        return min(found, default=None)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with socket.create_connection(self._address, timeout=_READ_S) as connection:
                    connection.sendall(_HELLO)
                    with connection.makefile("rb") as lines:
                        self._follow(lines)
            except OSError:
                pass
            self._closing.wait(_AGAIN_S)

    def _follow(self, lines: Any) -> None:
        for line in lines:
            message = json.loads(line)
            if self._closing.is_set() or message["type"] != "snapshot":
                return
            self._note(message)

    def _note(self, snapshot: dict[str, Any]) -> None:
        arrivals = {model["name"]: int(model["arrivals"]) for model in snapshot["models"]}
        running = frozenset(batch["model"] for batch in snapshot["running"])
        now_s = time.monotonic()
        with self._lock:
            self._seen.append(Seen(now_s, snapshot["publisher"], arrivals, running))
            if self._seen[0].at_s < now_s - 2 * _KEPT_S:
                self._seen = [one for one in self._seen if one.at_s >= now_s - _KEPT_S]


def resumed_s(seen: list[Seen], publisher: str, models: Collection[str]) -> float | None:
    """Time at which this scheduler had decided for the last of the models.

    A batch that it adopted runs too, so requests must have come before the batch that counts.
    """
    first: dict[str, int] = {}
    left = set(models)
    for one in seen:
        if one.publisher != publisher:
            continue
        for model in list(left):
            if model not in one.arrivals:
                continue
            before = first.setdefault(model, one.arrivals[model])
            if one.arrivals[model] > before and model in one.running:
                left.remove(model)
        if not left:
            return one.at_s
    return None
