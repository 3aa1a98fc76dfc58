"""Profiles a model briefly as it loads, before it takes traffic, and remembers the result for the next load."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from predictor.workload import ModelProfile
from profiler.feature_source import FeatureSource
from profiler.host import sha256_of
from profiler.lock import exclusive, show_progress
from profiler.solo import measure_solo
from profiler.store import keep_newest, read_json, write_json

SCHEMA = 2
BUDGET_NS = 2_000_000_000
LOCK_WAIT_S = 60.0
FILES_MAX = 256


class Budget(NamedTuple):
    """Time for the runs of one profile, and the clock that it is counted by; both in nanoseconds.

    was_whole: asked after the runs; False where they gave up the rest of it, as on a device that was busy for too long.
    """

    ns: int = BUDGET_NS
    clock: Callable[[], int] = time.perf_counter_ns
    was_whole: Callable[[], bool] = lambda: True


class BriefProfile(msgspec.Struct, frozen=True):
    """note: one sentence about what is less good than usual."""

    profile: ModelProfile
    note: str | None = None


class BriefIdentity(msgspec.Struct, frozen=True):
    """Conditions that a brief profile holds for."""

    model_sha256: str
    device: str
    engine: str
    max_batch_size: int


class BriefFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A remembered brief profile."""

    schema: int
    identity: BriefIdentity
    brief: BriefProfile


def brief_profile(
    path: Path,
    run: Callable[[int], int],
    max_batch_size: int,
    *,
    directory: Path,
    device: str,
    engine: str,
    features: Callable[[list[int]], FeatureSource],
    budget: Budget = Budget(),  # noqa: B008 - it cannot be changed
) -> BriefProfile:
    """The profile of the model file `path`, whose batches `run(batch_size)` executes and times in nanoseconds.

    `device` and `engine` name the conditions of the times; anything else that changes them, such as threads per batch,
    belongs into `engine`. `features` of batch sizes. Only one process at a time measures, as long as `directory` is
    shared; one that waited `LOCK_WAIT_S`, or for one that makes no progress, measures at the same time and says so.
    """
    identity = BriefIdentity(sha256_of(path), device, engine, max(1, max_batch_size))
    name = hashlib.sha256(msgspec.json.encode((SCHEMA, identity))).hexdigest()
    stored = directory / "profiles" / f"{name}.json"
    if (known := _read(stored, identity)) is not None:
        return known
    lock = directory / "profiling.lock"

    def shown(size: int) -> int:
        took_ns = run(size)
        if undisturbed:
            show_progress(lock)
        return took_ns

    with exclusive(lock, LOCK_WAIT_S) as undisturbed:
        if (known := _read(stored, identity)) is not None:  # the same model, loaded twice at a time
            return known
        sizes = batch_sizes(identity.max_batch_size)
        # Before the timing, so that the children have ended by then.
        source = features(sizes)
        solo = measure_solo(shown, sizes, budget_ns=budget.ns, clock=budget.clock)
    loads = tuple(source.load(size, p50_ns) for size, p50_ns in solo.items())
    brief = BriefProfile(ModelProfile(tuple(solo), loads), source.note)
    if not undisturbed:
        return _also(brief, "latency may have been measured beside another model's measuring")
    # What failed now, or had too little time, may succeed at the next load, so it is not remembered.
    return _remember(stored, identity, brief) if source.lasting and budget.was_whole() else brief


def batch_sizes(max_batch_size: int) -> list[int]:
    """Powers of two below `max_batch_size`, and itself."""
    return [*(1 << i for i in range((max_batch_size - 1).bit_length())), max_batch_size]


def _also(brief: BriefProfile, note: str) -> BriefProfile:
    return BriefProfile(brief.profile, f"{brief.note}; {note}" if brief.note else note)


def _read(path: Path, identity: BriefIdentity) -> BriefProfile | None:
    found = read_json(path, BriefFile)
    if found is None or (found.schema, found.identity) != (SCHEMA, identity):
        return None
    with suppress(OSError):
        os.utime(path)  # the files touched last are kept
    return found.brief


def _remember(path: Path, identity: BriefIdentity, brief: BriefProfile) -> BriefProfile:
    try:
        write_json(path, BriefFile(SCHEMA, identity, brief))
        keep_newest(path.parent, FILES_MAX)
    except OSError as error:
        return _also(brief, f"the profile is not remembered, since {path.parent} refused it: {error.strerror}")
    return brief
