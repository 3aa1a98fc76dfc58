"""Records next to a closed loop, a file per turn of a server, so that an interrupted comparison goes on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from backend.load.outcomes import percentile
from benchmarks.closed_loop.plan import ClosedLoopPlan
from benchmarks.compare.servers import lanes_of
from benchmarks.harness.records import RecordFolder
from benchmarks.models.lane_repositories import lane_repositories


class LoopTurn(NamedTuple):
    """One server, every number outstanding, once."""

    repeat: int
    server: str

    @property
    def file(self) -> str:
        """Name of its record in the folder."""
        return f"turns/{self.server.replace(', ', '-').replace(' ', '-')}-{self.repeat}.json"


class Phase(msgspec.Struct, frozen=True):
    """Latencies of the high class next to so many outstanding requests of the low one, and its answers per second.

    unanswered: high ones, in the client's time limit, which then counts as their latency; late_ms: p99 of how late
    they left; lost: share of the CPU that the host took.
    """

    outstanding: int
    high_ms: list[float]
    unanswered: int
    low_per_s: float
    late_ms: float
    lost: float

    @property
    def p99_ms(self) -> float:
        return percentile(self.high_ms, 99)


class LoopRecord(msgspec.Struct, frozen=True):
    """Phases of a turn, that without a loop first."""

    phases: list[Phase]

    def phase(self, outstanding: int) -> Phase:
        return next(p for p in self.phases if p.outstanding == outstanding)

    def ratio(self, outstanding: int) -> float:
        """p99 next to the loop over p99 alone."""
        return self.phase(outstanding).p99_ms / self.phase(0).p99_ms


class ClosedLoopRecords(RecordFolder[ClosedLoopPlan]):
    """Records of `plan`, in `folder`."""

    def repositories(self) -> dict[int, Path]:
        """Repositories by the number of lanes that a server has."""
        most = self.manifest.cores
        return lane_repositories(self.folder, (lanes_of(s, most) for s in self.plan.servers), most)

    def turns(self) -> list[LoopTurn]:
        """Turns in their order: every server before the next repeat, another one first each time."""
        names = self.plan.servers
        return [
            LoopTurn(repeat, names[(i + repeat) % len(names)])
            for repeat in range(self.plan.repeats)
            for i in range(len(names))
        ]

    def recorded(self) -> dict[LoopTurn, LoopRecord]:
        """Every turn that is there."""
        found = {turn: self.read(turn.file, LoopRecord) for turn in self.turns()}
        return {turn: record for turn, record in found.items() if record is not None}
