"""Reads a samples file (`ISOCHRONE_SAMPLES`) for a report: batches and their co-runners, no requests."""

from __future__ import annotations

from pathlib import Path

from backend.reporting.recording import ExecutedBatch, Recording
from predictor.samples import Sample, co_runners_of, own_of, read_samples


def read_sample_recording(path: Path) -> Recording:
    """Raises SamplesError, a sentence, where the file cannot be read, is empty, or has a line that is no sample."""
    found = read_samples(path)
    batches = [_batch(sample, found.features) for sample in found.samples]
    notes = [
        "This is a samples file: it has batches, not requests. What became of requests, how long they waited and why "
        "they were late is not in it; record events (ISOCHRONE_EVENTS) to see that. Batches that were suspended for "
        "another one are left out."
    ]
    if throttled := sum(bool(sample.throttled) for sample in found.samples):
        notes.append(f"The device's clocks were throttled during {throttled:,} of these batches.")
    return Recording(
        "samples",
        tuple(sorted({sample.device for sample in found.samples})),
        None,
        min(batch.launched_ns for batch in batches),
        max(batch.ended_ns for batch in batches),
        batches,
        notes=notes,
    )


def _batch(sample: Sample, features: tuple[str, ...]) -> ExecutedBatch:
    return ExecutedBatch(
        sample.device,
        own_of(sample, features),
        sample.start_ns - sample.transfer_in_ns,
        sample.end_ns + sample.transfer_out_ns,
        sample.exec_ns,
        sample.transfer_in_ns + sample.transfer_out_ns,
        tuple(co_runners_of(sample, features)),
        sample.predicted_ns,
    )
