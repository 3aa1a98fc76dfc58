"""Writes a sample per finished batch (`ISOCHRONE_SAMPLES=FILE`) on a thread of its own: no launch waits for a disk, or
for the device's driver, which is asked whether the clocks were throttled.

What cannot be written is counted and given up. The size is bounded: a full file becomes FILE.1, in place of the last.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from backend.device.clocks import Throttled, throttled_of
from backend.scheduler.messages import Finish
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.scheduler_process.background_writer import BackgroundWriter, BoundedFile, log_file
from predictor.features import CoRunner
from predictor.samples import Sample, encode_sample, sample_of

VARIABLE = "ISOCHRONE_SAMPLES"
MAX_BYTES = 64 << 20
MAX_QUEUED = 4096
_log = logging.getLogger("isochrone.scheduler")


class SampleLog:
    """Appends to `path`. A sample belongs to the source whose batch it is; so do the losses."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, throttled: Throttled = lambda: None) -> None:
        self._file, self._throttled = BoundedFile(path, max_bytes), throttled
        self._lost: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._warned = False
        self._writer = BackgroundWriter("isochrone-samples", self._write, MAX_QUEUED)

    def put(self, source: int, sample: Sample) -> None:
        """Write it soon, or count it as lost where the disk is too far behind."""
        if not self._writer.put((source, sample)):
            self._lose(source)

    def take_lost(self, source: int) -> int:
        """Number of this source's samples that were lost since the last call."""
        if not self._lost:
            return 0
        with self._lock:
            return self._lost.pop(source, 0)

    def close(self) -> None:
        """Write what is queued."""
        self._writer.close()

    def _lose(self, source: int) -> None:
        with self._lock:
            self._lost[source] += 1

    def _write(self, samples: Sequence[tuple[int, Sample]]) -> None:
        for source, sample in samples:
            try:
                line = encode_sample(replace(sample, throttled=self._throttled()))
                if self._file.is_full(len(line)):
                    self._file.rotate()
                self._file.append(line)
                self._warned = False
            except OSError as error:
                self._lose(source)
                if not self._warned:  # once per trouble, not per sample
                    _log.warning("samples cannot be written to '%s': %s", self._file.path, error.strerror)
                    self._warned = True


def sample_of_batch(
    source: Source, batch: RunningBatch, finish: Finish, co_runners: Sequence[CoRunner], device: str, lanes: int
) -> Sample:
    """Sample of a batch that an `Observer` is called with. device, lanes: the device's name and number of lanes.

    Its `lane` is lanes + i for a batch that preempted another on lane i.
    """
    assert finish.exec_ns is not None
    start_ns = batch.launched_ns + finish.h2d_ns
    ran = sample_of(batch.own, co_runners, source.join.version, device, start_ns, finish.exec_ns)
    return replace(
        ran,
        lane=batch.lane + lanes if batch.preempts else batch.lane,
        predicted_ns=batch.times.predicted_ns,
        decision=batch.decision,
        transfer_in_ns=finish.h2d_ns,
        transfer_out_ns=finish.d2h_ns,
        bytes_in=finish.h2d_bytes,
        bytes_out=finish.d2h_bytes,
        predicted_in_ns=batch.times.h2d_ns,
        predicted_out_ns=batch.times.d2h_ns,
        batch=batch.key[1],
    )


def sample_log_of_environment(device: str) -> SampleLog | None:
    """Sample log that the environment asks for, or None."""
    named = os.environ.get(VARIABLE)
    return SampleLog(log_file(named, device), throttled=throttled_of(device)) if named else None
