"""Hands each request of a model to one of its devices: where it is predicted to end first, as their schedulers told.

`submit` runs on Triton's thread, the only one that asks and decides; all else may be called from any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from queue import Empty

from backend.model_process.devices.forecast import DeviceForecast, choose
from backend.model_process.dispatcher import Dispatcher
from backend.model_process.request import Pending

_ANSWERS_WITHIN_S = 0.002
"""Wait for schedulers that are asked as their devices' loads are too old to decide by."""


@dataclass(frozen=True)
class Member:
    """One device of the model. is_away: its engine is gone, for good or until it is back."""

    dispatcher: Dispatcher
    forecast: DeviceForecast
    is_away: Callable[[], bool]


class DeviceGroup:
    """Several dispatchers as one, see `Dispatcher`; each request is in exactly one.

    turns: so many calls of `submit` come first that hand requests out by turns, for warming up.
    """

    def __init__(self, members: Sequence[Member], turns: int = 0) -> None:
        self._members, self._turns = members, turns
        self._next = 0

    def __len__(self) -> int:
        return sum(len(member.dispatcher) for member in self._members)

    def submit(self, requests: Sequence[Pending]) -> None:
        """Queue requests, oldest first, each on its device."""
        by_turns = self._turns > 0
        self._turns -= by_turns
        self._refresh(requests[0].priority)
        parts: list[list[Pending]] = [[] for _ in self._members]
        for request in requests:
            chosen = self._next if by_turns else self._choose(request)
            self._next = (chosen + 1) % len(self._members)
            self._members[chosen].forecast.send(request.rows, time.monotonic_ns())
            parts[chosen].append(request)
        for member, part in zip(self._members, parts, strict=True):
            if part:
                member.dispatcher.submit(part)
        for member in self._members:  # so that the answers have these requests, and are here for the next ones
            self._ask(member, requests[0].priority)

    def waiting_since(self, before_ns: int, after: int, limit: int) -> list[Pending]:
        """See `Dispatcher.waiting_since`."""
        found = [r for m in self._members for r in m.dispatcher.waiting_since(before_ns, after, limit)]
        return list(islice(sorted(found, key=lambda r: r.id), limit))

    def cancel(self, request: Pending) -> bool:
        """See `Dispatcher.cancel`."""
        return any(member.dispatcher.cancel(request) for member in self._members)

    def close(self) -> list[Pending]:
        """See `Dispatcher.close`."""
        return [request for member in self._members for request in member.dispatcher.close()]

    def _choose(self, request: Pending) -> int:
        now_ns = time.monotonic_ns()
        ends_ns, gone = [], []
        for member in self._members:
            alone = not member.dispatcher.connected
            end_ns = member.forecast.end_ns(request.rows, now_ns)
            if alone:  # no scheduler tells what others run there; what this model does is known
                end_ns = member.forecast.alone_ns(request.rows) * (1 + member.dispatcher.under_way)
            ends_ns.append(end_ns)
            gone.append(alone or member.forecast.is_silent(now_ns) or member.is_away())
        return choose(ends_ns, gone, self._next)

    def _refresh(self, priority: int) -> None:
        """Take answers over; ask where what is known is too old to decide by, and wait for that, but not for long."""
        now_ns = time.monotonic_ns()
        asked = []
        for member in self._members:
            self._take_answers(member, 0.0)
            if member.forecast.is_stale(now_ns) and self._ask(member, priority):
                asked.append(member)
        until_s = time.monotonic() + _ANSWERS_WITHIN_S
        for member in asked:
            while member.forecast.awaits and (left_s := until_s - time.monotonic()) > 0.0:
                self._take_answers(member, left_s)

    def _take_answers(self, member: Member, within_s: float) -> None:
        """Take over what was answered, or the first answer within this time."""
        with suppress(Empty):
            while True:
                load = member.dispatcher.loads.get(within_s > 0.0, within_s)
                member.forecast.tell(load)
                within_s = 0.0

    def _ask(self, member: Member, priority: int) -> bool:
        """Ask for a device's load if it is time to; False where nobody is there to answer."""
        if not member.dispatcher.connected:
            member.forecast.forget()
            return False
        asks = member.forecast.ask(time.monotonic_ns())
        return asks is not None and member.dispatcher.ask(asks, priority)
