"""Plan of the comparison of routers: the fleet, loads, snapshots and seeds; the whole, and a quick form."""

from __future__ import annotations

import msgspec

from benchmarks.fleet.fleet_run import SnapshotTiming
from benchmarks.fleet.oracle import OracleRouter
from benchmarks.fleet.routers import ROUTERS, FleetRouter

ORACLE = "oracle"
ALL_ROUTERS: dict[str, type[FleetRouter]] = {**ROUTERS, ORACLE: OracleRouter}
POISSON, BURSTS = "poisson", "bursty"


class FleetPlan(msgspec.Struct, frozen=True):
    """All that figures depend on, but for the code.

    device_count, model_count: of a fleet; lanes: of each device; seconds: counted of each run after warm_s, in which
    learners learn too; answers count until grace_s after the last request. timing: of the snapshots; others: that ours
    is held against, at other_loads. signs: seeds in which a difference must have its sign to count. at_load: of the
    bursts. fewer_seeds: of the other snapshots, where only ours runs, and of the bursts, which no goal goes by.
    """

    routers: tuple[str, ...] = tuple(ALL_ROUTERS)
    device_count: int = 100
    model_count: int = 200
    lanes: int = 2
    seeds: int = 20
    signs: int = 18
    loads: tuple[float, ...] = (0.7, 1.0, 1.3)
    at_load: float = 1.0
    other_loads: tuple[float, ...] = (1.0, 1.3)
    fewer_seeds: int = 6
    seconds: float = 3.0
    warm_s: float = 2.0
    grace_s: float = 1.5
    timing: SnapshotTiming = SnapshotTiming(100.0)
    others: tuple[SnapshotTiming, ...] = (SnapshotTiming(20.0), SnapshotTiming(500.0), SnapshotTiming(100.0, 0.1))

    @property
    def models(self) -> tuple[str, ...]:
        """Models of a repository: none."""
        return ()

    def with_seeds(self, seeds: int | None) -> FleetPlan:
        """The same of fewer seeds; None: of all."""
        if seeds is None or seeds >= self.seeds:
            return self
        return msgspec.structs.replace(
            self, seeds=seeds, signs=min(self.signs, seeds), fewer_seeds=min(self.fewer_seeds, seeds)
        )


FULL = FleetPlan()
QUICK = FleetPlan(
    device_count=8,
    model_count=12,
    seeds=2,
    signs=2,
    fewer_seeds=2,
    loads=(1.0, 1.3),
    seconds=0.4,
    warm_s=0.2,
    grace_s=0.5,
    others=(SnapshotTiming(500.0), SnapshotTiming(100.0, 0.1)),
)
