"""Requests that a router has sent: those that no snapshot shows yet, and those that one has shown.

A snapshot's count of arrivals tells how many of the former it shows. Without them every request between two snapshots
would go where the last one showed room; by the latter a snapshot's waiting requests get their deadlines back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

EXPIRE_NS = 2_000_000_000
"""A request that no snapshot has shown by then never arrived."""
_SHOWN_MAX = 256
"""Shown requests that are kept per place: more than wait, where answers are not told."""

Place = tuple[str, str, str]
"""(endpoint, model, version)."""


class RequestCost(NamedTuple):
    """Figures of a request where it was sent. duration: of its batch, on a lane; work: lane time that it adds;
    pressure, suffers: as in `LaneBatch`; batch_max: rows of a batch of its model.
    """

    duration: float
    work: float
    pressure: float
    suffers: float
    batch_max: int


class SentRequest(NamedTuple):
    """A request that was sent to an endpoint. device: its number, where it is expected to run; rank: by which it is
    served, see `rank_of`; sent, due: instants.
    """

    number: int
    place: Place
    device: int
    rows: int
    rank: float
    sent: float
    due: float
    cost: RequestCost

    @property
    def key(self) -> tuple[str, str]:
        """Model and version."""
        return self.place[1:]


class InFlight:
    """All of a router's, in the order of their picks."""

    def __init__(self) -> None:
        self._unseen: dict[int, SentRequest] = {}
        self._shown: dict[int, SentRequest] = {}
        self._answered: dict[int, float] = {}
        """Instants, of requests that are kept."""
        self._unseen_at: dict[Place, dict[int, SentRequest]] = {}
        self._shown_at: dict[Place, dict[int, SentRequest]] = {}
        self._devices: dict[int, dict[int, SentRequest]] = {}
        """Requests that are not shown, by device."""

    def __len__(self) -> int:
        """Requests without an answer that no snapshot shows."""
        return sum(number not in self._answered for number in self._unseen)

    def unseen(self, device: int) -> list[SentRequest]:
        """Requests sent to a device that no snapshot shows, with and without an answer, in their order."""
        return list(self._devices.get(device, {}).values())

    def shown(self, place: Place, at: float) -> Iterator[SentRequest]:
        """Requests that a snapshot has shown and that had no answer at that instant, the newest first."""
        for number, request in reversed(self._shown_at.get(place, {}).items()):
            if self._answered.get(number, at) >= at:
                yield request

    def answer_of(self, number: int) -> float | None:
        """Instant of a request's answer; None: it has none yet."""
        return self._answered.get(number)

    def add(self, request: SentRequest) -> None:
        """Note a request; numbers ascend."""
        self._unseen[request.number] = request
        self._unseen_at.setdefault(request.place, {})[request.number] = request
        self._devices.setdefault(request.device, {})[request.number] = request

    def answered(self, number: int, now: float) -> SentRequest | None:
        """Note an answer. Returns the request; None where it has one already, or is not known any more."""
        request = self._unseen.get(number) or self._shown.get(number)
        if request is None or number in self._answered:
            return None
        self._answered[number] = now
        return request

    def arrived(self, place: Place, count: int, at: float) -> set[int]:
        """A snapshot of that instant shows the oldest of a place, so many more, perhaps of others too. Forgets those
        that had their answer before. Returns the devices that they were sent to.
        """
        devices, shown = set(), self._shown_at.setdefault(place, {})
        for number in list(self._unseen_at.get(place, {}))[:count]:
            request = self._drop_unseen(number)
            devices.add(request.device)
            self._shown[number] = shown[number] = request
        over = len(shown) - _SHOWN_MAX
        for number in [n for i, n in enumerate(shown) if i < over or self._answered.get(n, at) < at]:
            del shown[number], self._shown[number]
            self._answered.pop(number, None)
        if not shown:
            del self._shown_at[place]
        return devices

    def expire(self, now: float) -> set[int]:
        """Forget those that no snapshot has shown for `EXPIRE_NS`. Returns the devices that they were sent to."""
        devices, old = set(), []
        for number, request in self._unseen.items():
            if request.sent + EXPIRE_NS > now:
                break
            old.append(number)
        for number in old:
            devices.add(self._drop_unseen(number).device)
            self._answered.pop(number, None)
        return devices

    def _drop_unseen(self, number: int) -> SentRequest:
        request = self._unseen.pop(number)
        for of, key in ((self._unseen_at, request.place), (self._devices, request.device)):
            del of[key][number]  # type: ignore[index]
            if not of[key]:  # type: ignore[index]
                del of[key]  # type: ignore[arg-type]
        return request

    def check(self) -> None:
        """Assert what holds between any two events."""
        assert sorted(n for at in self._unseen_at.values() for n in at) == sorted(self._unseen)
        assert sorted(n for at in self._devices.values() for n in at) == sorted(self._unseen)
        assert sorted(n for at in self._shown_at.values() for n in at) == sorted(self._shown)
        assert not self._unseen.keys() & self._shown.keys()
        assert self._answered.keys() <= self._unseen.keys() | self._shown.keys()
