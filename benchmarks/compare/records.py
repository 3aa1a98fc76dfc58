"""What the comparison has recorded so far, a file per turn of a server, so that an interrupted one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from backend.linux.cpu_topology import cores
from backend.load.outcomes import MeasuredLoad
from benchmarks.compare.plan import ComparisonPlan
from benchmarks.compare.servers import lanes_of
from benchmarks.compare.time_breakdown import TimeBreakdown
from benchmarks.harness.profiles import read_profiles, unprofiled
from benchmarks.harness.run_manifest import take_up
from predictor.samples import Sample, read_samples
from profiler.host import cpu_name
from profiler.profile_file import ProfileFile

MACHINE = "machine.json"
"""In the folder: `Machine`."""
MODELS = "models"


class Round(NamedTuple):
    """Every server once, with the same requests."""

    repeat: int
    arrivals: str


class ServerTurn(NamedTuple):
    """One server, all loads, once."""

    repeat: int
    arrivals: str
    server: str

    @property
    def round(self) -> Round:
        return Round(self.repeat, self.arrivals)


class TurnRecord(msgspec.Struct, frozen=True):
    """What came of a turn. capacity_per_s: load 1 of its round.

    Per load, lost: `Steal.lost`; scheduler_cpu_shares: of one core, where there is one; spent: of `RECORDING`.
    """

    measured: list[MeasuredLoad]
    lost: list[float]
    capacity_per_s: float
    scheduler_cpu_shares: list[float] = []
    spent: list[TimeBreakdown] = []


class Machine(msgspec.Struct, frozen=True):
    """Where it was recorded."""

    cpu: str
    cores: int


def models_on(lanes: int, most: int) -> str:
    """The folder of the models and their profiles where there are so many lanes; most: a core to each."""
    return MODELS if lanes == most else f"{MODELS}-{lanes}-lane"


class ComparisonRecords:
    """Of `plan`, in `folder`."""

    def __init__(self, plan: ComparisonPlan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.machine = Machine(cpu_name(), len(cores()))

    def begin(self) -> None:
        """Take up the folder. Raises BenchmarkError where it holds the records of another plan or machine."""
        take_up(self.folder, (self.plan, self.machine), "plan or machine")
        (self.folder / MACHINE).write_bytes(msgspec.json.encode(self.machine))

    @property
    def models(self) -> Path:
        """A repository of links to the models, with their profiles."""
        return self.folder / MODELS

    def repositories(self) -> dict[int, Path]:
        """By the number of lanes that a server has, `models` or another one with profiles for so many."""
        most = self.machine.cores
        return {n: self.folder / models_on(n, most) for n in {most, *(lanes_of(s, most) for s in self.plan.servers)}}

    def unprofiled(self) -> int:
        """Batch sizes that no profile has yet, over all models."""
        plan = self.plan
        return sum(unprofiled(models, plan.models, plan.batch_sizes) for models in self.repositories().values())

    def profiles(self) -> dict[str, ProfileFile]:
        return read_profiles(self.models, self.plan.models)

    def turns(self) -> list[ServerTurn]:
        """In the order in which they are taken: every server before the next repeat, each time another one first."""
        plan = self.plan
        return [
            ServerTurn(repeat, arrivals, taking[(i + repeat) % len(taking)])
            for repeat in range(plan.most_repeats)
            for arrivals in plan.arrivals
            for taking in [plan.taking(repeat)]
            for i in range(len(taking))
        ]

    def missing(self) -> list[ServerTurn]:
        """Those that were never taken."""
        return [turn for turn in self.turns() if not self._path(turn).is_file()]

    def keep(self, turn: ServerTurn, recorded: TurnRecord) -> None:
        path = self._path(turn)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.encode(recorded))

    def recorded(self) -> dict[ServerTurn, TurnRecord]:
        """Every turn that is there."""
        return {
            turn: msgspec.json.decode(self._path(turn).read_bytes(), type=TurnRecord)
            for turn in self.turns()
            if self._path(turn).is_file()
        }

    def samples_path(self, turn: ServerTurn) -> Path:
        """Where our server records the batches of a turn."""
        return self._path(turn).with_suffix(".jsonl")

    def samples(self) -> tuple[Sample, ...]:
        """Every batch that our server recorded, in the order of their start."""
        found = [
            s for turn in self.turns() if (p := self.samples_path(turn)).is_file() for s in read_samples(p).samples
        ]
        return tuple(sorted(found, key=lambda s: s.start_ns))

    def _path(self, turn: ServerTurn) -> Path:
        server = turn.server.replace(", ", "-").replace(" ", "-")
        return self.folder / "turns" / f"{turn.arrivals}-{server}-{turn.repeat}.json"
