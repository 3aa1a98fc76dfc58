"""All that a router knows: its endpoints, the last snapshot of each of their devices, and the requests on their way.

Pure: time is an argument, in nanoseconds of one clock that never goes back (Unix time, where servers tell theirs); no
socket in here. An endpoint is a server, which may have several devices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from backend.fleet.decisions import Picked, RouteRequest
from backend.fleet.device_estimate import DeviceEstimate, ModelKey, rank_of
from backend.fleet.device_table import FRESH_UNTIL, STALE_NS, DeviceTable
from backend.fleet.in_flight import InFlight, RequestCost, SentRequest
from backend.fleet.model_table import HELD, NOT, PERHAPS, ModelTable
from backend.fleet.snapshot import MAX_MODELS, DeviceSnapshot, ModelState

_ALL_SHOWN = MAX_MODELS // 4
"""A snapshot of fewer models shows all that its device holds; a longer one may have had no place for some."""


NO_BATCH = (0, inf)
"""Rows and rank of a batch to join where there is none."""


@dataclass(frozen=True)
class Endpoint:
    """A server. address: "IP:PORT", as Envoy has it; state_addresses: of its devices' publishers."""

    name: str
    address: str
    state_addresses: tuple[str, ...] = ()


@dataclass
class _Device:
    """A device by its last snapshot. models: under version "" what a request without one gets."""

    endpoint: int
    publisher: str = ""
    sequence: int = -1
    arrivals: dict[ModelKey, int] = field(default_factory=dict)
    models: dict[ModelKey, ModelState] = field(default_factory=dict)
    snapshot: DeviceSnapshot | None = None
    at: float = 0.0
    estimate: DeviceEstimate | None = None
    opened: dict[ModelKey, tuple[int, float]] = field(default_factory=dict)
    """Rows and rank of the batch that a request of a model would join, as the tables have it."""


class Fleet:
    """State of the router. Raises ValueError where two endpoints have one name."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._numbers = {endpoint.name: i for i, endpoint in enumerate(self.endpoints)}
        if len(self._numbers) < len(self.endpoints):
            names = [endpoint.name for endpoint in self.endpoints]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two endpoints are named '{twice}'; each needs a name of its own")
        self.table = DeviceTable()
        self.names: list[str] = []
        """Name of the endpoint, by device number."""
        self.in_flight = InFlight()
        self.picks = 0
        """Requests picked so far."""
        self._devices: dict[tuple[int, str], int] = {}
        self._known: list[_Device] = []
        self._models: dict[ModelKey, ModelTable] = {}
        self._epoch_ns: int | None = None
        self._told = False
        """Somebody says when requests have their answers."""

    # What is told

    def observe(self, endpoint: str, snapshot: DeviceSnapshot, now_ns: int) -> None:
        """Take in a snapshot; one that is older than the last of its device changes nothing.

        Raises KeyError where no endpoint has that name.
        """
        device = self._device(self._numbers[endpoint], snapshot.device)
        known = self._known[device]
        restarted = snapshot.publisher != known.publisher
        if not restarted and snapshot.sequence <= known.sequence:
            return
        if restarted:
            known.arrivals = {}
        known.publisher, known.sequence = snapshot.publisher, snapshot.sequence
        now = self.instant(now_ns)
        at = self.instant(snapshot.at_ns)
        if not now - STALE_NS <= at <= now:  # of a clock that is wrong
            at = now
        known.snapshot, known.at = snapshot, at
        self.table.refresh(device, now)
        self._observe_models(device, known, snapshot, restarted)
        self._estimate(device, known)

    def lost(self, endpoint: str, now_ns: int, device: str | None = None) -> None:  # noqa: ARG002 - the contract's call
        """Count an endpoint, or one of its devices, as stale until its next snapshot: the connection has ended."""
        owner = self._numbers[endpoint]
        for (number, name), found in self._devices.items():
            if number == owner and device in (None, name):
                self.table.lose(found)
                self._known[found].sequence = -1

    def answered(self, pick: Picked, now_ns: int) -> None:
        """Note that a request has its answer, whatever it is; once more changes nothing."""
        now, self._told = self.instant(now_ns), True
        request = self.in_flight.answered(pick.number, now)
        if request is None:
            return
        estimate = self._known[request.device].estimate
        if estimate is not None:
            estimate.answered(request.number, now)
            self._write(request.device, estimate)

    def sent(self, device: int, request: RouteRequest, cost: RequestCost, now_ns: int) -> int:
        """Note a request that is picked for a device, with what it costs there. Returns its number."""
        self.picks += 1
        version = self._models[request.model, request.version].states[device].version
        place = (self.names[device], request.model, version)
        due = inf if request.deadline_ns is None else self.instant(request.deadline_ns)
        now = self.instant(now_ns)
        rank = rank_of(due, request.priority, now)
        found = SentRequest(self.picks, place, device, request.rows, rank, now, due, cost)
        self.in_flight.add(found)
        if (estimate := self._known[device].estimate) is not None:
            estimate.add(found)
            self._write(device, estimate)
        return self.picks

    def expire(self, now_ns: int) -> None:
        """Forget requests that never arrived."""
        for device in self.in_flight.expire(self.instant(now_ns)):
            self._estimate(device, self._known[device])

    # What is known

    def instant(self, time_ns: int) -> float:
        """A time as the tables have it."""
        if self._epoch_ns is None:
            self._epoch_ns = time_ns
        return float(time_ns - self._epoch_ns)

    def model(self, name: str, version: str = "") -> ModelTable | None:
        """A model on all devices that ever held it; None: no endpoint has shown it. version: "" for any."""
        return self._models.get((name, version))

    def name_of(self, device: int) -> str:
        """Name of a device's endpoint."""
        return self.names[device]

    def is_fresh(self, endpoint: str, now_ns: int) -> bool:
        """True for an endpoint of which a device has sent a snapshot of late. Raises KeyError where there is none."""
        return self._numbers[endpoint] in self._fresh(now_ns)

    def fresh_count(self, now_ns: int) -> int:
        """Number of endpoints that are fresh."""
        return len(self._fresh(now_ns))

    def models(self) -> list[ModelKey]:
        """Models, with their versions, that devices hold, by their last snapshots."""
        return sorted({key for known in self._known for key in known.models})

    # Inside

    def _fresh(self, now_ns: int) -> set[int]:
        now = self.instant(now_ns)
        until = self.table.facts[FRESH_UNTIL]
        return {owner for device, owner in enumerate(known.endpoint for known in self._known) if until[device] >= now}

    def _device(self, owner: int, name: str) -> int:
        """Number of a device; one that is new gets the next."""
        number = self._devices.get((owner, name))
        if number is None:
            number = self._devices[owner, name] = self.table.add()
            self._known.append(_Device(owner))
            self.names.append(self.endpoints[owner].name)
        return number

    def _observe_models(self, device: int, known: _Device, snapshot: DeviceSnapshot, restarted: bool) -> None:
        models: dict[ModelKey, ModelState] = {}
        for state in snapshot.models:
            models[state.name, state.version] = state
            latest = models.get((state.name, ""))
            if latest is None or _is_higher(state.version, latest.version):
                models[state.name, ""] = state
        for key, state in models.items():
            if not restarted and state == known.models.get(key):
                continue
            if (table := self._models.get(key)) is None:
                table = self._models[key] = ModelTable()
            table.observe(device, state)
            if key[1]:
                self._arrive(device, known, key, state.arrivals)
        for key in known.models.keys() - models.keys():
            self._miss(device, key, NOT if len(snapshot.models) < _ALL_SHOWN else PERHAPS)
        known.models = models

    def _miss(self, device: int, key: ModelKey, held: float) -> None:
        """Note that a device no longer shows a model; one that no device holds is forgotten."""
        self._models[key].miss(device, held)
        if held == NOT:
            self._known[device].arrivals.pop(key, None)
            if not self._models[key].facts[HELD].any():
                del self._models[key]

    def _arrive(self, device: int, known: _Device, key: ModelKey, arrivals: int) -> None:
        """Take those that arrived since the last snapshot from those on their way."""
        more = arrivals - known.arrivals.get(key, 0)
        known.arrivals[key] = arrivals
        if more > 0:
            for other in self.in_flight.arrived((self.name_of(device), *key), more, known.at) - {device}:
                self._estimate(other, self._known[other])

    def _estimate(self, device: int, known: _Device) -> None:
        """Begin anew with the last snapshot, and take in what was sent since."""
        if known.snapshot is None:
            return
        name, in_flight = self.name_of(device), self.in_flight
        shown: list[SentRequest] = []

        def shown_of(key: ModelKey) -> Iterable[SentRequest]:
            for request in in_flight.shown((name, *key), known.at):
                shown.append(request)
                yield request

        estimate = known.estimate = DeviceEstimate(known.snapshot, known.models, known.at, shown_of, told=self._told)
        unseen = in_flight.unseen(device)
        events: list[tuple[float, int, SentRequest | None]] = [(r.sent, r.number, r) for r in unseen]
        answers = ((in_flight.answer_of(r.number), r.number) for r in (*shown, *unseen))
        events += [(at, number, None) for at, number in answers if at is not None]
        for at, number, sent in sorted(events, key=lambda event: event[:2]):
            if sent is None:
                estimate.answered(number, at)
            else:
                estimate.add(sent)
        self._write(device, estimate)

    def _write(self, device: int, estimate: DeviceEstimate) -> None:
        """Put an estimate into the tables."""
        self.table.write(device, estimate)
        known, opened = self._known[device], estimate.open_batches()
        for key in known.opened.keys() | opened.keys():
            if (batch := opened.get(key, NO_BATCH)) != known.opened.get(key, NO_BATCH):
                for table in (self._models.get(key), self._models.get((key[0], ""))):
                    if table is not None:
                        table.join(device, *batch)
        known.opened = opened

    def check(self) -> None:
        """Assert what holds between any two events."""
        self.in_flight.check()
        assert len(self._known) == self.table.count
        assert (self.table.queue[1, :, : self.table.count] >= 0.0).all()
        for key, table in self._models.items():
            assert (table.facts[HELD] >= NOT).all(), key


def _is_higher(version: str, other: str) -> bool:
    """Order of versions: by number where both are one."""
    if version.isdecimal() and other.isdecimal():
        return int(version) > int(other)
    return version > other
