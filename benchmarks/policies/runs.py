"""One rival at one load in virtual time: the same requests on the same device for each.

The device's interference is learned from batches that a real server recorded (`make study`, `make bench`), so nothing
here depends on how busy this machine is: the same records and seed give the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backend.load.arrivals import Arrival, poisson
from backend.load.figures import MeasuredPoint, points
from backend.load.outcomes import MeasuredLoad, Outcome
from backend.simulation.contention import Truth, learned
from backend.simulation.device import VirtualDevice
from backend.simulation.simulator import SimulatedModel, simulate
from benchmarks.compare.servers import OURS
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.loads import equal_traffic, solo_latencies_s
from benchmarks.harness.records import MODELS, read_manifest
from benchmarks.models.lane_repositories import lane_repository
from benchmarks.models.profiles import read_profiles
from benchmarks.rivals import RIVALS
from predictor.samples import Sample, SamplesError, read_samples
from profiler.profile_file import NAME, ProfileFile


@dataclass(frozen=True)
class RecordedDevice:
    """A device as it was recorded, and the contention that follows."""

    name: str
    samples: Sequence[Sample]
    profiles: Mapping[str, ProfileFile]
    truth: Truth
    lanes: int
    whole: Mapping[str, ProfileFile] | None = None
    """The models' profiles where all cores make one lane; None: nobody measured any."""

    def models(self, *, rejects: bool, one_lane: bool = False) -> list[SimulatedModel]:
        profiles = self.whole or self.profiles if one_lane else self.profiles
        return [
            SimulatedModel(model, file.profile(), rejects=rejects, preemptible_lanes=self.lanes)
            for model, file in profiles.items()
        ]

    def plan(self, load: float, seconds: float, seed: int) -> tuple[Arrival, ...]:
        """Every model at the same rate. A load of 1 keeps every lane busy with batches of one, solo."""
        rate = load * self.lanes / sum(solo_latencies_s(self.profiles).values())
        return poisson(equal_traffic(self.profiles, rate), seconds, seed)


def read_device(folder: Path, lanes: int) -> RecordedDevice:
    """Raises BenchmarkError where neither `make study` nor `make bench` has recorded it with so many lanes."""
    name, files = f"test-set-3-{lanes}-lanes", [folder / "logs" / f"test-set-3-{lanes}-lanes.jsonl"]
    manifest = read_manifest(folder)
    if not files[0].is_file() and manifest is not None and manifest.cores == lanes:  # `make bench`: a lane per core
        name, files = "make bench", sorted((folder / "turns").glob(f"*-{OURS}-*.jsonl"))
    try:
        samples = sorted((s for file in files for s in read_samples(file).samples), key=lambda s: s.start_ns)
    except SamplesError as error:
        raise BenchmarkError(f"{error}; run `make study`") from None
    profiles, whole = _profiles(folder / MODELS), _profiles(lane_repository(folder, 1, lanes))
    if not profiles or not samples:
        raise BenchmarkError(f"'{folder}' holds no {'batches' if profiles else 'profiles'}; run `make study`")
    return RecordedDevice(name, samples, profiles, learned(samples), lanes, whole or None)


def _profiles(models: Path) -> dict[str, ProfileFile]:
    return read_profiles(models, sorted(path.parents[1].name for path in models.glob(f"*/1/{NAME}")))


def run(
    name: str, device: RecordedDevice, load: float, plans: Sequence[Sequence[Arrival]], seconds: float
) -> MeasuredPoint:
    """Figures of a rival over all seeds. plans: one per seed, each of so many seconds."""
    rival = RIVALS[name]
    models, outcomes = rival.models(device.models(rejects=True, one_lane=rival.lanes == 1)), list[Outcome]()
    for seed, plan in enumerate(plans):
        scheduler = rival.scheduler(device.lanes, device.truth, device.samples)
        found = simulate(models, rival.plan(plan), scheduler, VirtualDevice(device.truth, seed)).outcomes()
        # A rival that knows of no classes was sent none: they are the plan's.
        outcomes += (
            found if rival.classes else [replace(o, priority=a.priority) for a, o in zip(plan, found, strict=True)]
        )
    return points([MeasuredLoad(name, load, 0, seconds * len(plans), outcomes)])[0]
