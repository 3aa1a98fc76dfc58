"""A benchmark's folder of records: one JSON file per finished step, and the manifest of the run that they belong to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from backend.linux.cpu_topology import cores
from benchmarks.harness.errors import BenchmarkError
from benchmarks.models.profiles import read_profiles
from profiler.host import cpu_name
from profiler.profile_file import ProfileFile
from profiler.store import write_json


class _Plan(Protocol):
    @property
    def models(self) -> Sequence[str]: ...


T = TypeVar("T")
P = TypeVar("P", bound=_Plan)
_MANIFEST, MODELS = "manifest.json", "models"


class RunManifest(msgspec.Struct, frozen=True):
    """Facts that the figures of a run depend on. models: hashes by name, or where they come from."""

    plan: Any
    device: str = msgspec.field(default_factory=cpu_name)
    cores: int = msgspec.field(default_factory=lambda: len(cores()))
    facts: dict[str, str] = {}
    models: dict[str, str] = {}


class RecordFolder(Generic[P]):
    """Records of one run of a plan, which a later one with the same manifest takes up."""

    def __init__(self, plan: P, folder: Path) -> None:
        self.plan, self.folder = plan, folder

    @property
    def manifest(self) -> RunManifest:
        return RunManifest(self.plan)

    def begin(self, *, again: bool = False) -> None:
        """Takes up the folder; again: removes it first. Raises BenchmarkError where it is of another run."""
        content = msgspec.json.encode(self.manifest)
        if again:
            shutil.rmtree(self.folder, ignore_errors=True)
        path = self.folder / _MANIFEST
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        elif path.read_bytes() != content:
            raise BenchmarkError(
                f"'{self.folder}' holds records of another plan, device, version or set of models; --again removes them"
            )

    @property
    def models(self) -> Path:
        """A repository of the models with their profiles."""
        return self.folder / MODELS

    @property
    def model_names(self) -> Sequence[str]:
        return self.plan.models

    def profiles(self) -> dict[str, ProfileFile]:
        """Profiles of the models that have one, in the order of `model_names`."""
        return read_profiles(self.models, self.model_names)

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def read(self, name: str, kind: type[T]) -> T | None:
        """A record; None where its step was not done."""
        path = self.folder / name
        return msgspec.json.decode(path.read_bytes(), type=kind) if path.is_file() else None

    def keep(self, name: str, record: object) -> None:
        """Writes a record whole, or not at all."""
        write_json(self.folder / name, record)


def read_manifest(folder: Path) -> RunManifest | None:
    path = folder / _MANIFEST
    return msgspec.json.decode(path.read_bytes(), type=RunManifest) if path.is_file() else None
