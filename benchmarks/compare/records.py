"""Records of the comparison, a file per turn of a server, so that an interrupted one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from backend.load.outcomes import MeasuredLoad
from benchmarks.compare.plan import ComparisonPlan
from benchmarks.compare.servers import lanes_of
from benchmarks.compare.time_breakdown import TimeBreakdown
from benchmarks.harness.records import RecordFolder
from benchmarks.models.lane_repositories import lane_repositories
from predictor.samples import Sample, read_samples


class ServerTurn(NamedTuple):
    """One server, all loads, once."""

    repeat: int
    arrivals: str
    server: str

    @property
    def round(self) -> tuple[int, str]:
        """Every server once, with the same requests."""
        return self.repeat, self.arrivals

    @property
    def file(self) -> str:
        """Name of its record in the folder."""
        server = self.server.replace(", ", "-").replace(" ", "-")
        return f"turns/{self.arrivals}-{server}-{self.repeat}.json"


class TurnRecord(msgspec.Struct, frozen=True):
    """Results of a turn. capacity_per_s: load 1 of its round.

    Per load, lost: `CpuSteal.lost`; scheduler_cpu_shares: of one core, where there is one; breakdowns: of `RECORDING`.
    """

    measured: list[MeasuredLoad]
    lost: list[float]
    capacity_per_s: float
    scheduler_cpu_shares: list[float] = []
    breakdowns: list[TimeBreakdown] = []


class ComparisonRecords(RecordFolder[ComparisonPlan]):
    """Records of `plan`, in `folder`."""

    def repositories(self) -> dict[int, Path]:
        """Repositories by the number of lanes that a server has: `models` or another one with profiles for so many."""
        most = self.manifest.cores
        return lane_repositories(self.folder, (lanes_of(s, most) for s in self.plan.servers), most)

    def turns(self) -> list[ServerTurn]:
        """Turns in their order: every server before the next repeat, another one first each time."""
        plan = self.plan
        return [
            ServerTurn(repeat, arrivals, taking[(i + repeat) % len(taking)])
            for repeat in range(plan.most_repeats)
            for arrivals in plan.arrivals
            for taking in [plan.taking(repeat)]
            for i in range(len(taking))
        ]

    def missing(self) -> list[ServerTurn]:
        """Turns that were never taken."""
        return [turn for turn in self.turns() if not self.has(turn.file)]

    def recorded(self) -> dict[ServerTurn, TurnRecord]:
        """Every turn that is there."""
        found = {turn: self.read(turn.file, TurnRecord) for turn in self.turns()}
        return {turn: record for turn, record in found.items() if record is not None}

    def samples_path(self, turn: ServerTurn) -> Path:
        """File to which our server records the batches of a turn."""
        return (self.folder / turn.file).with_suffix(".jsonl")

    def samples(self) -> tuple[Sample, ...]:
        """Every batch that our server recorded, in the order of their start."""
        found = [
            s for turn in self.turns() if (p := self.samples_path(turn)).is_file() for s in read_samples(p).samples
        ]
        return tuple(sorted(found, key=lambda s: s.start_ns))
