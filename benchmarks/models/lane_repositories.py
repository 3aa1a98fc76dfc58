"""Repositories of the same models, one for each number of lanes that a server has: a profile holds for one number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.harness.records import MODELS
from benchmarks.models.model_repository import link_models, write_configs


def lane_repository(folder: Path, lanes: int, most: int) -> Path:
    """Folder of the models and their profiles on so many lanes, in a benchmark's; most: a core to each."""
    return folder / (MODELS if lanes == most else f"{MODELS}-{lanes}-lane")


def lane_repositories(folder: Path, lanes: Iterable[int], most: int) -> dict[int, Path]:
    """Number of lanes → repository, of these numbers and the most."""
    return {n: lane_repository(folder, n, most) for n in {most, *lanes}}


def write_lane_repositories(repositories: Mapping[int, Path], source: Path, models: Iterable[str]) -> None:
    """Links the models of `source` for `isochrone profile` on so many lanes. Raises BenchmarkError as `link_models`."""
    models = list(models)
    for lanes, repository in repositories.items():
        link_models(source, repository, models)
        write_configs(repository, {"device_lanes": str(lanes)})
