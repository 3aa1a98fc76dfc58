"""Routers that are compared, over one and the same fleet: each sees the requests, and some of them the snapshots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import ClassVar

from backend.fleet.decisions import Picked, RouteRequest
from backend.fleet.endpoints import Endpoint, Fleet
from backend.fleet.pick import pick
from backend.fleet.snapshot import DeviceSnapshot
from backend.scheduler.core import Scheduler
from backend.simulation.gpu_device import SimulatedGpu
from benchmarks.fleet.layout import FleetLayout

OURS, ORACLE = "isochrone", "oracle"
ROUND_ROBIN, LEAST_REQUEST = "round robin", "least request"
TWO_CHOICES, QUEUE_RULE, DEGREE = "two choices", "queue length", "co-location degree"


EPOCH_NS = 10**18
"""Unix time at the start of the virtual clock."""


class FleetRouter:
    """A router in virtual time; those below differ by `choose`. needs_snapshots: False of one that goes by its own
    requests alone. what: words for the report.
    """

    needs_snapshots: ClassVar[bool] = False
    what: ClassVar[str] = ""

    def __init__(self, layout: FleetLayout) -> None:
        self.layout = layout
        self.outstanding = [0] * len(layout.gpus)
        """Requests without an answer, by device."""
        self._turns: defaultdict[str, int] = defaultdict(int)

    def watch(self, schedulers: Sequence[Scheduler], gpus: Sequence[SimulatedGpu]) -> None:
        """Takes note of the devices themselves: only the oracle looks at them."""

    def observe(self, device: int, snapshot: DeviceSnapshot, now_ns: int) -> None:
        """Takes in a snapshot that arrives."""

    def route(self, number: int, request: RouteRequest, now_ns: int) -> int:  # noqa: ARG002 - some need the number
        """Chooses a device for a request, which has this number from then on."""
        found = self.choose(request, now_ns)
        self.outstanding[found] += 1
        return found

    def over(self, number: int, device: int, now_ns: int) -> None:  # noqa: ARG002
        """Notes that a request is answered or rejected."""
        self.outstanding[device] -= 1

    def choose(self, request: RouteRequest, now_ns: int) -> int:  # noqa: ARG002
        """Chooses a device: by turns."""
        return self.by_turns(request.model)[0]

    def by_turns(self, model: str) -> Sequence[int]:
        """Devices that hold a model, from the next one's turn on: of equal ones the first is to be taken."""
        held = self.layout.holders_of[model]
        turn = self._turns[model] = (self._turns[model] + 1) % len(held)
        return [*held[turn:], *held[:turn]]


class RoundRobin(FleetRouter):
    """Turns."""

    what = "by turns over the devices that hold the model"


class LeastRequest(FleetRouter):
    """Its own count."""

    what = "fewest of the router's own requests without an answer"

    def choose(self, request: RouteRequest, now_ns: int) -> int:  # noqa: ARG002
        return min(self.by_turns(request.model), key=self.outstanding.__getitem__)


class TwoChoices(FleetRouter):
    """Its own count, of two."""

    what = "the better of two at random by that count (Envoy's least request)"

    def __init__(self, layout: FleetLayout) -> None:
        super().__init__(layout)
        self._stream = Random(layout.seed)

    def choose(self, request: RouteRequest, now_ns: int) -> int:  # noqa: ARG002
        held = self.layout.holders_of[request.model]
        return min(self._stream.sample(held, min(2, len(held))), key=self.outstanding.__getitem__)


class QueueLength(FleetRouter):
    """Others' count, as old as it is."""

    what = "fewest waiting requests by the last snapshot (llm-d's queue scorer)"
    needs_snapshots = True

    def __init__(self, layout: FleetLayout) -> None:
        super().__init__(layout)
        self._waiting = [0] * len(layout.gpus)

    def observe(self, device: int, snapshot: DeviceSnapshot, now_ns: int) -> None:  # noqa: ARG002
        self._waiting[device] = sum(state.waiting_requests for state in snapshot.models)

    def choose(self, request: RouteRequest, now_ns: int) -> int:  # noqa: ARG002
        return min(self.by_turns(request.model), key=self._waiting.__getitem__)


class CoLocationDegree(FleetRouter):
    """After Mendoza et al., EuroMLSys'21: one predictor of the latency degradation over machine types and co-location
    degrees, here a mean per (type, degree) of what was answered there, over solo latency. A degree is the number of
    requests on a device: those that run or wait by the last snapshot, or the router's own ones if they are more.
    """

    what = "least latency as predicted from machine type and number of co-located requests (after Mendoza et al.)"
    needs_snapshots = True
    _WEIGHT, _PRIOR = 0.02, 0.3

    def __init__(self, layout: FleetLayout) -> None:
        super().__init__(layout)
        self._shown = [0] * len(layout.gpus)
        self._degradation: dict[tuple[str, int], float] = {}
        self._sent: dict[int, tuple[str, int, int]] = {}

    def observe(self, device: int, snapshot: DeviceSnapshot, now_ns: int) -> None:  # noqa: ARG002
        running = sum(batch.rows for batch in snapshot.running)
        self._shown[device] = running + sum(state.waiting_requests for state in snapshot.models)

    def route(self, number: int, request: RouteRequest, now_ns: int) -> int:
        found = self.choose(request, now_ns)
        self._sent[number] = request.model, self._degree(found), now_ns
        self.outstanding[found] += 1
        return found

    def over(self, number: int, device: int, now_ns: int) -> None:
        super().over(number, device, now_ns)
        model, degree, sent_ns = self._sent.pop(number)
        gpu = self.layout.gpus[device]
        measured = (now_ns - sent_ns) / self.layout.by_name[model].solo_ns(gpu)
        known = self._expected(gpu, degree)
        self._degradation[gpu, degree] = known + self._WEIGHT * (measured - known)

    def choose(self, request: RouteRequest, now_ns: int) -> int:  # noqa: ARG002
        model, gpus = self.layout.by_name[request.model], self.layout.gpus

        def latency_ns(device: int) -> float:
            return model.solo_ns(gpus[device]) * self._expected(gpus[device], self._degree(device))

        return min(self.by_turns(request.model), key=latency_ns)

    def _degree(self, device: int) -> int:
        return max(self._shown[device], self.outstanding[device])

    def _expected(self, gpu: str, degree: int) -> float:
        return self._degradation.get((gpu, degree), 1.0 + self._PRIOR * degree)


class IsochroneRouter(FleetRouter):
    """The production router's core. As in `isochrone route` nobody tells it of answers."""

    what = "predicted finish, and harm to others"
    needs_snapshots = True

    def __init__(self, layout: FleetLayout) -> None:
        super().__init__(layout)
        self._names = [f"d{i}" for i in range(len(layout.gpus))]
        self._numbers = {name: i for i, name in enumerate(self._names)}
        self.fleet = Fleet([Endpoint(name, name) for name in self._names])

    def observe(self, device: int, snapshot: DeviceSnapshot, now_ns: int) -> None:
        self.fleet.observe(self._names[device], snapshot, now_ns)

    def choose(self, request: RouteRequest, now_ns: int) -> int:
        found = pick(self.fleet, request, now_ns)
        if isinstance(found, Picked):
            return self._numbers[found.endpoints[0]]
        return self.by_turns(request.model)[0]  # before the first snapshots


ROUTERS: dict[str, type[FleetRouter]] = {
    ROUND_ROBIN: RoundRobin,
    LEAST_REQUEST: LeastRequest,
    TWO_CHOICES: TwoChoices,
    QUEUE_RULE: QueueLength,
    DEGREE: CoLocationDegree,
    OURS: IsochroneRouter,
}
"""All but the oracle, which sees more than requests and snapshots."""
