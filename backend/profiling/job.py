"""One model version to profile: entries that its file holds, those that are missing, and the writing of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backend.config.model_config import ModelConfig
from backend.engines.protocol import Engine
from backend.errors import ConfigError
from backend.model_process.load_profile import Inputs, shapes_of
from profiler.feature_source import FeatureSource
from profiler.profile_file import (
    SCHEMA,
    FeatureShares,
    ProfileEntry,
    ProfileFile,
    ProfileFileError,
    ProfileIdentity,
    mismatch,
    read_profile,
    write_profile,
)
from profiler.rounds import SoloTimes


@dataclass
class Job:
    """Batch sizes of one model version. inputs: to measure with.

    error: why it ended early. redone: why the file's entries were dropped.
    """

    config: ModelConfig
    path: Path
    batch_sizes: tuple[int, ...]
    open: Callable[[ModelConfig], Engine]
    inputs: Inputs
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
        have = self.file.batch_sizes if self.file else ()
        return [size for size in self.batch_sizes if size not in have]

    def recall(self, identity: ProfileIdentity, *, again: bool) -> ProfileFile:
        """The file's entries for this identity, maybe none; with `again`, less the sizes asked for."""
        found, self.redone = _found(self.path, identity)
        dropped = self.batch_sizes if again else ()
        return ProfileFile(
            SCHEMA,
            self.config.name,
            self.config.version,
            identity.device,
            identity.engine,
            identity.model_sha256,
            found.features_from if found else "",
            tuple(entry for entry in (found.entries if found else ()) if entry.batch_size not in dropped),
            shapes=shapes_of(self.config, self.inputs),
        )

    def begin(self, found: ProfileFile, source: FeatureSource) -> None:
        """Go on from `found`: its times stay, its features come from `source` now. Raises ConfigError as `keep`."""
        self.source = source
        self.file = msgspec.structs.replace(found, features_from=source.name, note=source.note)
        if found.entries and found.features_from != source.name:
            self._write(tuple(self._with_features(entry) for entry in found.entries))

    def keep(self, batch_size: int, measured: SoloTimes) -> None:
        """Write the file with one more entry. Raises ConfigError where the directory refuses it."""
        assert self.file is not None
        entry = ProfileEntry(
            batch_size=batch_size,
            rows_per_s=round(batch_size * 1e9 / measured.p50_ns, 3),
            features=FeatureShares(0.0, 0.0, 0.0),
            **msgspec.structs.asdict(measured),
        )
        others = (old for old in self.file.entries if old.batch_size != batch_size)
        self.measured.add(batch_size)
        self._write(tuple(sorted((*others, self._with_features(entry)), key=lambda one: one.batch_size)))

    def _with_features(self, entry: ProfileEntry) -> ProfileEntry:
        assert self.source is not None
        load = self.source.load(entry.batch_size, entry.p50_ns)
        shares = FeatureShares(*(round(share, 6) for share in load.features))
        return msgspec.structs.replace(entry, features=shares, kernel_ns=load.kernel_ns)

    def _write(self, entries: tuple[ProfileEntry, ...]) -> None:
        assert self.file is not None
        self.file = msgspec.structs.replace(self.file, entries=entries)
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


def _found(path: Path, identity: ProfileIdentity) -> tuple[ProfileFile | None, str | None]:
    """The file where it holds, else why its entries are dropped."""
    try:
        found = read_profile(path)
    except ProfileFileError as error:
        return None, str(error)
    why = mismatch(path, found, identity) if found else None
    return (None, why) if why else (found, None)
