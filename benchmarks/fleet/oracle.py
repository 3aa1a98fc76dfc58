"""A router that sees every device as it is at this moment, and knows the law of means: what better snapshots and a
better predictor could bring. It knows neither chance nor the requests to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from backend.fleet.decisions import RouteRequest
from backend.fleet.pick import MISS_NS, OTHERS
from backend.scheduler.core import Scheduler
from backend.scheduler.source import Source
from backend.scheduler.waiting import CLASS_NS
from backend.simulation.gpu_device import SimulatedGpu
from backend.simulation.gpu_law import GpuLaw, KernelDemand
from benchmarks.fleet.layout import BATCH_MAX, OVERHEAD_NS, FleetLayout
from benchmarks.fleet.routers import EPOCH_NS, FleetRouter


class _Running(NamedTuple):
    """A batch that runs. slack_ns: its deadline less its end if nothing changes."""

    demand: KernelDemand
    left_ns: float
    rows: int
    slack_ns: float


class OracleRouter(FleetRouter):
    """See the top; it weighs finish and harm as the production router does."""

    what = "sees all devices as they are now, and knows the law of means"
    needs_snapshots: ClassVar[bool] = False

    def __init__(self, layout: FleetLayout) -> None:
        super().__init__(layout)
        self._laws = [layout.mean_law(device) for device in range(len(layout.gpus))]
        self._schedulers: Sequence[Scheduler] = ()
        self._gpus: Sequence[SimulatedGpu] = ()

    def watch(self, schedulers: Sequence[Scheduler], gpus: Sequence[SimulatedGpu]) -> None:
        self._schedulers, self._gpus = schedulers, gpus

    def choose(self, request: RouteRequest, now_ns: int) -> int:
        assert request.deadline_ns is not None
        slack_ns = request.deadline_ns - now_ns
        found = [(*self._forecast(d, request, now_ns - EPOCH_NS, slack_ns), d) for d in self.by_turns(request.model)]
        if min(finish_ns for finish_ns, *_ in found) > slack_ns:
            return min(found, key=lambda f: f[1] + f[2])[-1]
        return min(found, key=lambda f: f[0] + OTHERS * (f[1] + f[2]) + MISS_NS * _chance(f[0], slack_ns))[-1]

    def _forecast(self, device: int, request: RouteRequest, now_ns: int, slack_ns: float) -> tuple[float, float, float]:
        """(finish, harm, work) in nanoseconds from now on."""
        model, gpu, law = self.layout.by_name[request.model], self.layout.gpus[device], self._laws[device]
        scheduler = self._schedulers[device]
        running = self._running(device, now_ns)
        rank_ns = now_ns + slack_ns + (request.priority - 1) * CLASS_NS
        before_ns = all_ns = waiting = 0.0
        joined = 0
        concurrent = 1.0 + 0.3 * (scheduler.device.lanes - 1)
        for source in scheduler.sources.values():
            if not (count := len(source.queue)):
                continue
            other = self.layout.by_name[source.join.model]
            waiting += count
            if other is model:
                joined = count % BATCH_MAX
                continue
            ahead = _ranked_before(source, rank_ns)
            all_ns += concurrent * _lane_ns(other.solo_ns(gpu, min(count, BATCH_MAX)), count)
            before_ns += concurrent * _lane_ns(other.solo_ns(gpu, min(max(ahead, 1), BATCH_MAX)), ahead)
        wait_ns = _wait_ns([r.left_ns for r in running], scheduler.device.lanes, before_ns)
        batch_ns, own = model.demand(gpu, joined + 1)
        beside = [r for r in running if r.left_ns > wait_ns]
        overlaps = [min(1.0, (r.left_ns - wait_ns) / batch_ns) for r in beside]
        slowdown = 1.0
        if beside:
            full = law.slowdown(own, [r.demand for r in beside])
            slowdown = 1.0 + (full - 1.0) * sum(overlaps) / len(overlaps)
        joined_ns = model.solo_ns(gpu, joined) if joined else 0.0
        work_ns = (batch_ns - joined_ns) * slowdown + OVERHEAD_NS
        harm_ns = sum(_harm_ns(law, own, r, [o for o in beside if o is not r], batch_ns, wait_ns) for r in beside)
        harm_ns += waiting * work_ns / scheduler.device.lanes
        return wait_ns + batch_ns * slowdown + OVERHEAD_NS, harm_ns, work_ns

    def _running(self, device: int, now_ns: int) -> list[_Running]:
        batches = self._schedulers[device].device.running
        found = []
        for key, demand, left_ns in self._gpus[device].under_way(now_ns):
            if (batch := batches.get(key)) is not None:
                found.append(_Running(demand, left_ns, batch.rows, batch.deadline_ns - now_ns - left_ns))
        return found


def _harm_ns(
    law: GpuLaw, own: KernelDemand, to: _Running, others: Sequence[_Running], batch_ns: float, wait_ns: float
) -> float:
    """Latency that a batch adds to one that runs."""
    demands = [r.demand for r in others]
    ratio = law.slowdown(to.demand, [*demands, own]) / law.slowdown(to.demand, demands) - 1.0
    added_ns = max(0.0, ratio) * min(to.left_ns - wait_ns, batch_ns)
    missed = min(1.0, added_ns / to.slack_ns) if to.slack_ns > 0.0 else 0.0
    return to.rows * (added_ns + MISS_NS * missed**2)


def _chance(finish_ns: float, slack_ns: float) -> float:
    return min(1.0, max(0.0, finish_ns / max(slack_ns, 1.0) - 0.5)) ** 2


def _ranked_before(source: Source, rank_ns: float) -> int:
    return sum(source.queue.rank(request) <= rank_ns for request in source.queue.by_rank())


def _lane_ns(batch_ns: float, rows: int) -> float:
    """Lane time of so many rows, in full batches. batch_ns: of one of them."""
    return batch_ns * -(-rows // BATCH_MAX) if rows else 0.0


def _wait_ns(left_ns: Sequence[float], lanes: int, queued_ns: float) -> float:
    """Wait for a lane, behind so much lane time that is queued."""
    ends = sorted([0.0] * (lanes - len(left_ns)) + list(left_ns))
    total, found = queued_ns, float("inf")
    for count, end_ns in enumerate(ends, 1):
        total += end_ns
        found = min(found, total / count)
    return found
