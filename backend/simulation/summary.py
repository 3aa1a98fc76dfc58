"""The figures of some requests: how many met their deadline, and how long they took."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from backend.simulation.simulator import Served


class Summary(msgspec.Struct, frozen=True):
    """requests = met + missed + rejected. Latencies are of the answered, 0 without any."""

    requests: int
    met: int
    missed: int
    rejected: int
    met_share: float
    p50_ms: float
    p99_ms: float
    goodput_per_s: float


def summarise(requests: Sequence[Served], seconds: float) -> Summary:
    """`seconds`: how long the load lasted."""
    latencies_ms = [(r.answered_s - r.arrival.at_s) * 1e3 for r in requests if r.answered_s is not None]
    met = sum(r.met for r in requests)
    p50, p99 = np.percentile(latencies_ms, (50, 99)).tolist() if latencies_ms else (0.0, 0.0)
    count, answered = len(requests), len(latencies_ms)
    return Summary(count, met, answered - met, count - answered, met / max(1, count), p50, p99, met / seconds)
