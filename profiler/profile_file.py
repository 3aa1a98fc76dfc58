"""`profile.json` in a model's version directory: its format, its checks, and the conditions that it holds for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from predictor.bounded_file import read_at_most
from predictor.workload import FEATURES, Load, ModelProfile
from profiler.store import write_json

SCHEMA = 1
NAME = "profile.json"
_BYTES_MAX = 1 << 20
_NS_MAX = 10**15  # 11 days
_Ns = Annotated[int, msgspec.Meta(ge=1, le=_NS_MAX)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class ProfileFileError(ValueError):
    """A `profile.json` cannot be used; its text is one sentence that names the file and the field."""


class FeatureShares(msgspec.Struct, frozen=True):
    """Shares of the device's peak throughput, 0..1."""

    compute: _Share
    l2: _Share
    dram: _Share


class ProfileEntry(msgspec.Struct, frozen=True):
    """Solo runs of one batch size; intervals hold with 95 % confidence. See `profiler.rounds.SoloTimes`.

    kernel_ns: mean time of its kernels on a GPU, counted or estimated from the graph; 0 where it is not known.
    """

    batch_size: _Count
    p50_ns: _Ns
    p50_interval_ns: tuple[_Ns, _Ns]
    p95_ns: _Ns
    p95_interval_ns: tuple[_Ns, _Ns]
    rows_per_s: Annotated[float, msgspec.Meta(gt=0.0)]
    features: FeatureShares
    runs: _Count
    rounds: _Count
    dropped: Annotated[int, msgspec.Meta(ge=0)]
    stable: bool
    kernel_ns: Annotated[int, msgspec.Meta(ge=0, le=_NS_MAX)] = 0


class ProfileIdentity(msgspec.Struct, frozen=True):
    """Conditions that a profile's times hold for. engine: all that they depend on, threads per batch too."""

    device: str
    engine: str
    model_sha256: str


class ProfileFile(msgspec.Struct, frozen=True):
    """The whole file; entries ascend with the batch size. Fields that are not known are ignored.

    shapes: of each input that was measured with, without its rows where the model batches; empty: not known.
    """

    schema: int
    model: str
    version: str
    device: str
    engine: str
    model_sha256: str
    features_from: str
    entries: tuple[ProfileEntry, ...]
    note: str | None = None
    shapes: dict[str, tuple[int, ...]] = {}

    @property
    def identity(self) -> ProfileIdentity:
        """The conditions of the rest."""
        return ProfileIdentity(self.device, self.engine, self.model_sha256)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes of the entries."""
        return tuple(entry.batch_size for entry in self.entries)

    def profile(self, *, p95: bool = False) -> ModelProfile:
        """Loads as the scheduler takes them; there is at least one entry. p95: instead of the median."""
        loads = (
            Load(e.p95_ns if p95 else e.p50_ns, e.features.compute, e.features.l2, e.features.dram, e.kernel_ns)
            for e in self.entries
        )
        return ModelProfile(self.batch_sizes, tuple(loads))


def read_profile(path: Path) -> ProfileFile | None:
    """The file, None where there is none. Raises `ProfileFileError`."""
    try:
        raw = json.loads(read_at_most(path, _BYTES_MAX))  # which reads NaN, so that the checks below can name its field
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProfileFileError(f"'{path}' cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ProfileFileError(f"'{path}' is not JSON: {error}") from None
    return _checked(path, raw)


def write_profile(path: Path, profile: ProfileFile) -> None:
    """Replace the file whole. Raises OSError."""
    write_json(path, profile)


def mismatch(path: Path, found: ProfileFile, wanted: ProfileIdentity, batch_sizes: Iterable[int] = ()) -> str | None:
    """One sentence why a valid file does not hold here; None where it does and has all `batch_sizes`."""
    if found.device != wanted.device:
        return f"'{path}' was measured on another device ('{found.device}', this is '{wanted.device}')"
    if found.engine != wanted.engine:
        return f"'{path}' was measured with another engine ('{found.engine}', this is '{wanted.engine}')"
    if found.model_sha256 != wanted.model_sha256:
        return f"'{path}' was measured before the model file changed"
    missing = sorted(set(batch_sizes).difference(found.batch_sizes))
    return f"'{path}' has no entry for batch size {missing[0]}" if missing else None


def _checked(path: Path, raw: Any) -> ProfileFile:
    schema = raw.get("schema") if isinstance(raw, Mapping) else None
    if schema != SCHEMA:
        what = "has no field 'schema'" if schema is None else f"has schema {schema!r}"
        raise ProfileFileError(f"'{path}' {what}, but this release reads schema {SCHEMA}")
    try:
        found = msgspec.convert(raw, ProfileFile)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # JSON may hold half a character
        raise ProfileFileError(f"'{path}': {_plain(str(error))}") from None
    if not found.entries:
        raise ProfileFileError(f"'{path}': entries is empty; at least one is needed")
    previous = 0
    for i, entry in enumerate(found.entries):
        _check_entry(f"'{path}': entries[{i}]", entry, previous)
        previous = entry.batch_size
    return found


def _check_entry(where: str, entry: ProfileEntry, previous: int) -> None:
    if entry.batch_size <= previous:
        raise ProfileFileError(f"{where}.batch_size is {entry.batch_size} after {previous}; sizes must ascend")
    for name in FEATURES:  # msgspec lets NaN pass its bounds
        if math.isnan(getattr(entry.features, name)):
            raise ProfileFileError(f"{where}.features.{name} is nan; it must lie in 0..1")
    if not math.isfinite(entry.rows_per_s):
        raise ProfileFileError(f"{where}.rows_per_s is {entry.rows_per_s}; it must be a number")
    if entry.p95_ns < entry.p50_ns:
        raise ProfileFileError(f"{where}.p95_ns is {entry.p95_ns}, below p50_ns, which is {entry.p50_ns}")
    for name in ("p50", "p95"):
        low, high = getattr(entry, f"{name}_interval_ns")
        if low > high:
            raise ProfileFileError(f"{where}.{name}_interval_ns is [{low}, {high}]; its ends must ascend")


def _plain(text: str) -> str:
    """msgspec's "Expected `int` >= 1 - at `$.entries[0].p50_ns`", field first."""
    what, at, where = text.rpartition(" - at ")
    return f"{where.strip('`').removeprefix('$.')}: {what.replace('`', '')}" if at else text.replace("`", "'")
