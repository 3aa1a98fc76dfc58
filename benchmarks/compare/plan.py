"""Plan of the comparison: models, loads and servers; the whole of it, and a quick form for tests."""

from __future__ import annotations

import msgspec

from benchmarks.compare.servers import OURS, RECORDING, SERVERS
from benchmarks.harness.loads import LOADS

LOST_MAX = 0.03
"""Share of the CPU that the host may take during a load before it is taken once more."""
_LEFT_OUT = ("in order", "isochrone, no prediction")
"""Servers that the full comparison leaves out, since it takes most of an hour as it is."""
CLOSE = ("edf", "naive", "isochrone, gpulets", "isochrone, RLS", OURS)
"""Servers that differ by little: more repeats are needed to tell them apart."""
TRACE = "benchmarks/traces/azure_code_2023.csv"


class ComparisonPlan(msgspec.Struct, frozen=True):
    """loads: of the measured capacity. seconds: of each load. arrivals: poisson, trace. repeats: each with its seed;
    close_repeats: of those that are `CLOSE`.

    attempts: at a load that the machine's host disturbs.
    """

    models: tuple[str, ...] = ("convnext_base", "resnet50", "roberta_base", "vgg19", "vit_b16", "yolov8n")
    servers: tuple[str, ...] = tuple(name for name in SERVERS if name not in _LEFT_OUT)
    loads: tuple[float, ...] = LOADS
    arrivals: tuple[str, ...] = ("poisson", "trace")
    repeats: int = 3
    close_repeats: int = 5
    attempts: int = 3
    seconds: float = 4.0
    seed: int = 1
    profile_seconds: float = 1.2
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    capacity_seconds: float = 4.0

    def taking(self, repeat: int) -> list[str]:
        """Servers that take part in a repeat, counted from 0."""
        return [s for s in self.servers if repeat < (self.close_repeats if s in CLOSE else self.repeats)]

    @property
    def most_repeats(self) -> int:
        return max(self.repeats, self.close_repeats)


FULL = ComparisonPlan()
QUICK = ComparisonPlan(
    models=("resnet50", "yolov8n"),
    servers=("stock, rate limiter", "naive", OURS, RECORDING),
    loads=(0.7, 1.1),
    arrivals=("poisson",),
    repeats=1,
    close_repeats=1,
    attempts=1,
    seconds=1.0,
    profile_seconds=0.3,
    batch_sizes=(1, 8),
    capacity_seconds=1.0,
)
