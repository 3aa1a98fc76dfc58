"""`isochrone trace`: recorded batches as a timeline for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from backend.errors import ConfigError
from predictor.samples import Sample, SamplesError, read_samples


def run_trace(samples: Path, out: Path) -> int:
    """How many batches were written. Raises ConfigError on files that cannot be used."""
    try:
        found = read_samples(samples).samples
    except SamplesError as error:
        raise ConfigError(str(error)) from None
    devices = {device: i for i, device in enumerate(sorted({s.device for s in found}))}
    events = [*_names(found, devices), *(_event(sample, devices) for sample in found)]
    try:
        out.write_bytes(msgspec.json.encode({"traceEvents": events}))
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written: {error.strerror}") from None
    return len(found)


def _event(sample: Sample, devices: Mapping[str, int]) -> dict[str, Any]:
    """A complete event, in microseconds (Trace Event Format, phase X); a process per device, a thread per lane."""
    about: dict[str, Any] = {
        "measured_ms": sample.exec_ns / 1e6,
        "alone_ms": sample.solo_ns / 1e6,
        "slowdown": round(sample.slowdown, 3),
        "beside": [f"{c.model} × {c.batch_size}" for c in sample.co_runners],
    }
    if sample.predicted_ns is not None:
        about["predicted_ms"] = sample.predicted_ns / 1e6
        about["measured / predicted"] = round(sample.exec_ns / sample.predicted_ns, 3)
    if sample.decision is not None:
        about["decision"] = sample.decision
    return {
        "name": f"{sample.model} × {sample.batch_size}",
        "cat": sample.model,
        "ph": "X",
        "ts": sample.start_ns / 1e3,
        "dur": sample.exec_ns / 1e3,
        "pid": devices[sample.device],
        "tid": sample.lane or 0,
        "args": about,
    }


def _names(samples: Iterable[Sample], devices: Mapping[str, int]) -> list[dict[str, Any]]:
    lanes = sorted({(devices[s.device], s.lane or 0) for s in samples})
    return [_name("process_name", i, 0, device) for device, i in devices.items()] + [
        _name("thread_name", device, lane, f"lane {lane}") for device, lane in lanes
    ]


def _name(what: str, device: int, lane: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": device, "tid": lane, "args": {"name": name}}
