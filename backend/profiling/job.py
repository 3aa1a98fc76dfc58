"""One model version to profile: what its file holds already, what is missing, keeping each result once it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backend.engines.protocol import Engine
from backend.errors import ConfigError
from backend.model_config import ModelConfig
from profiler.feature_source import FeatureSource
from profiler.profile_file import (
    SCHEMA,
    Entry,
    Features,
    Identity,
    ProfileFile,
    ProfileFileError,
    mismatch,
    read_profile,
    write_profile,
)
from profiler.rounds import Measured


@dataclass
class Job:
    """Batch sizes of one model version. `error`: why it ended early. `redone`: why what the file held was dropped."""

    config: ModelConfig
    path: Path
    batch_sizes: tuple[int, ...]
    open: Callable[[ModelConfig], Engine]
    file: ProfileFile | None = None
    measured: set[int] = field(default_factory=set)
    redone: str | None = None
    error: str | None = None
    source: FeatureSource | None = None

    @property
    def name(self) -> str:
        """For people: the version only where it is not the first."""
        return self.config.name if self.config.version == "1" else f"{self.config.name}/{self.config.version}"

    @property
    def missing(self) -> list[int]:
        """Batch sizes that are to be measured still."""
        have = {entry.batch_size for entry in self.file.entries} if self.file else set()
        return [size for size in self.batch_sizes if size not in have]

    def begin(self, identity: Identity, source: FeatureSource, *, again: bool) -> None:
        """Take over what the file holds for this identity and source; with `again`, not the sizes asked for."""
        self.source = source
        kept, self.redone = _kept(self.path, identity, source.name)
        if again:
            kept = tuple(entry for entry in kept if entry.batch_size not in self.batch_sizes)
        self.file = ProfileFile(
            SCHEMA,
            self.config.name,
            self.config.version,
            identity.device,
            identity.engine,
            identity.model_sha256,
            source.name,
            kept,
            source.note,
        )

    def keep(self, batch_size: int, measured: Measured) -> None:
        """Write the file with one more entry. Raises ConfigError where the directory refuses it."""
        assert self.file is not None and self.source is not None
        load = self.source.load(batch_size, measured.p50_ns)
        entry = Entry(
            batch_size=batch_size,
            rows_per_s=round(batch_size * 1e9 / measured.p50_ns, 3),
            features=Features(*(round(share, 6) for share in load.features)),
            **msgspec.structs.asdict(measured),
        )
        others = (old for old in self.file.entries if old.batch_size != batch_size)
        entries = tuple(sorted((*others, entry), key=lambda one: one.batch_size))
        self.file = msgspec.structs.replace(self.file, entries=entries)
        self.measured.add(batch_size)
        try:
            write_profile(self.path, self.file)
        except OSError as error:
            raise ConfigError(f"'{self.path}' cannot be written: {error.strerror}") from None


def check_batch_sizes(config: ModelConfig, sizes: Sequence[int]) -> None:
    """Raises ConfigError where a size is above what the model takes."""
    largest = max(1, config.max_batch_size)
    for size in sizes:
        if size > largest:
            raise ConfigError(
                f"--batch-sizes {size} is above the max_batch_size of model '{config.name}', which is {largest}"
            )


def _kept(path: Path, identity: Identity, features_from: str) -> tuple[tuple[Entry, ...], str | None]:
    try:
        found = read_profile(path)
    except ProfileFileError as error:
        return (), str(error)
    if found is None:
        return (), None
    why = mismatch(path, found, identity)
    if why is None and found.features_from != features_from:
        why = f"'{path}' has features from '{found.features_from}', and now they come from '{features_from}'"
    return ((), why) if why else (found.entries, None)
