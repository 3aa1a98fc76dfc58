"""Workloads, JSON files: which models at which rates and deadlines."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite
from pathlib import Path

import msgspec

from backend.errors import ConfigError
from backend.load.arrivals import PROCESSES, Arrival, Traffic, along, arrivals, read_trace
from predictor.bounded_file import read_at_most

_BYTES_MAX = 1 << 22
_RATE_MIN, _REQUESTS_MAX = 1e-9, 2e7


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """arrivals: of `PROCESSES`, or "trace" with `trace`, a path relative to the file. Loads scale all rates."""

    models: tuple[Traffic, ...]
    seconds: float = 60.0
    arrivals: str = "poisson"
    trace: str | None = None

    def planned(self, load: float, seed: int, trace: list[float] | None) -> tuple[Arrival, ...]:
        """Every request of this workload, its rates multiplied by `load`."""
        traffic = [msgspec.structs.replace(asked, rate_per_s=asked.rate_per_s * load) for asked in self.models]
        if trace is not None:
            return along(trace, traffic, self.seconds, seed)
        return arrivals(traffic, self.seconds, seed, self.arrivals)


def read_workload(path: Path) -> tuple[Workload, list[float] | None]:
    """Reads a workload and its trace, if it has one. Raises ConfigError, one sentence."""
    try:
        workload = msgspec.json.decode(read_at_most(path, _BYTES_MAX), type=Workload)
    except OSError as error:
        raise ConfigError(f"the workload '{path}' cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the workload '{path}' is not one: {error}") from None
    if wrong := _wrong_in_all(workload) or next(filter(None, map(_wrong_in_one, workload.models)), None):
        raise ConfigError(f"the workload '{path}': {wrong}")
    if workload.arrivals != "trace":
        return workload, None
    assert workload.trace is not None
    return workload, read_trace(path.parent / workload.trace)


def check_models(workload: Workload, known: Collection[str]) -> None:
    """Raises ConfigError where a model is not there."""
    for asked in workload.models:
        if asked.model not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"the workload names model '{asked.model}', which the repository has not; it has {names}")


def check_deadlines(workload: Workload, solo_ms: Mapping[str, float]) -> None:
    """Raises ConfigError where a model can never answer in time. solo_ms: what it takes solo."""
    for asked in workload.models:
        if asked.slo_ms is not None and asked.slo_ms < solo_ms[asked.model]:
            raise ConfigError(
                f"the workload allows model '{asked.model}' {asked.slo_ms:g} ms, but alone it takes "
                f"{solo_ms[asked.model]:.1f} ms; raise its slo_ms"
            )


def _wrong_in_all(workload: Workload) -> str | None:
    if not workload.models:
        return "it names no model"
    if not (isfinite(workload.seconds) and 0.0 < workload.seconds <= 1e7):
        return f"seconds must lie above 0 and be at most 1e7, got {workload.seconds:g}"
    requests = sum(asked.rate_per_s for asked in workload.models) * workload.seconds
    if requests > _REQUESTS_MAX:
        return f"its rates and seconds make {requests:g} requests; at most {_REQUESTS_MAX:g} are allowed"
    allowed = (*PROCESSES, "trace")
    if workload.arrivals not in allowed:
        return f"arrivals must be one of {', '.join(allowed)}, got '{workload.arrivals}'"
    if (workload.arrivals == "trace") != (workload.trace is not None):
        return 'arrivals "trace" and a path as trace belong together'
    names = [asked.model for asked in workload.models]
    twice = next((name for name in names if names.count(name) > 1), None)
    return None if twice is None else f"model '{twice}' is named twice"


def _wrong_in_one(asked: Traffic) -> str | None:
    if not _RATE_MIN <= asked.rate_per_s <= _REQUESTS_MAX:
        allowed = f"above 0, got {asked.rate_per_s:g}; {_RATE_MIN:g} to {_REQUESTS_MAX:g} are allowed"
        return f"model '{asked.model}': rate_per_s must be {allowed}"
    if asked.slo_ms is not None and not (isfinite(asked.slo_ms) and asked.slo_ms > 0.0):
        return f"model '{asked.model}': slo_ms must be above 0, got {asked.slo_ms:g}"
    if asked.priority_class < 1:
        return f"model '{asked.model}': priority_class must be 1 or more, got {asked.priority_class}"
    return None
