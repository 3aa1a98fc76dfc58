"""`isochrone trace`: recorded batches as a timeline for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from backend.errors import ConfigError
from predictor.samples import Sample, read_samples


def run_trace(samples: Path, out: Path) -> int:
    """Returns how many batches were written. Raises ConfigError or SamplesError on files that cannot be used."""
    if out.exists() and out.samefile(samples):
        raise ConfigError(f"'{out}' holds the samples; name another file for the timeline")
    found = read_samples(samples).samples
    devices = {device: i for i, device in enumerate(sorted({s.device for s in found}))}
    events = [*_names(found, devices), *(event for sample in found for event in _events(sample, devices))]
    try:
        out.write_bytes(msgspec.json.encode({"traceEvents": events}))
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written: {error.strerror}") from None
    return len(found)


def _events(sample: Sample, devices: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """A batch's inputs on their way to the device, its execution, its outputs on their way back."""
    what = f"{sample.model} × {sample.batch_size}"
    in_ns, out_ns = sample.transfer_in_ns, sample.transfer_out_ns
    if in_ns:
        about = _transfer(in_ns, sample.predicted_in_ns, sample.bytes_in)
        yield _slice(sample, devices, f"{what} in", sample.start_ns - in_ns, in_ns, about)
    yield _slice(sample, devices, what, sample.start_ns, sample.exec_ns, _execution(sample))
    if out_ns:
        about = _transfer(out_ns, sample.predicted_out_ns, sample.bytes_out)
        yield _slice(sample, devices, f"{what} out", sample.end_ns, out_ns, about)


def _execution(sample: Sample) -> dict[str, Any]:
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
    return about


def _transfer(took_ns: int, predicted_ns: int, size: int) -> dict[str, Any]:
    return {"measured_ms": took_ns / 1e6, "predicted_ms": predicted_ns / 1e6, "bytes": size}


def _slice(
    sample: Sample, devices: Mapping[str, int], name: str, start_ns: int, took_ns: int, about: dict[str, Any]
) -> dict[str, Any]:
    """A complete event, in microseconds (Trace Event Format, phase X); a process per device, a thread per lane."""
    return {
        "name": name,
        "cat": sample.model,
        "ph": "X",
        "ts": start_ns / 1e3,
        "dur": took_ns / 1e3,
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
