"""Time that our server's requests spent where during one load, and how busy its lanes were: from its own /metrics."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

import msgspec

from backend.load.outcomes import Outcome
from backend.load.server_metrics import MetricCounts


class TimeBreakdown(msgspec.Struct, frozen=True):
    """Means over the answered requests, in ms: they add up to the client's latency. lanes_busy: a share of their time.

    outside: gRPC, tritonserver and the client; around: of the backend's own, beside the queue and the execution.
    """

    load: float
    outside_ms: float
    queue_ms: float
    execution_ms: float
    around_ms: float
    lanes_busy: float

    @property
    def latency_ms(self) -> float:
        return self.outside_ms + self.queue_ms + self.execution_ms + self.around_ms


def time_breakdown(
    load: float, outcomes: Iterable[Outcome], counts: MetricCounts, lane_s: float
) -> TimeBreakdown | None:
    """counts: what was added during the load; lane_s: time of all lanes. None where nothing was answered."""
    answered = [o.latency_ms for o in outcomes if o.status == "ok"]
    if not answered or not counts.total("isochrone_request_latency_us_count"):
        return None
    inside_ms = counts.mean("isochrone_request_latency_us") / 1e3
    queue_ms, execution_ms = counts.mean("isochrone_queue_us") / 1e3, counts.mean("isochrone_execution_us") / 1e3
    busy_s = counts.total("isochrone_execution_us_sum") / 1e6
    around_ms = inside_ms - queue_ms - execution_ms
    return TimeBreakdown(load, fmean(answered) - inside_ms, queue_ms, execution_ms, around_ms, busy_s / lane_s)
