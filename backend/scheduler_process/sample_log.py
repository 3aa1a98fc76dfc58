"""Writes a sample per finished batch (`ISOCHRONE_SAMPLES=FILE`) on a thread of its own: no launch waits for a disk, or
for the device's driver, which is asked whether the clocks were throttled.

What cannot be written is counted and given up. The size is bounded: a full file becomes FILE.1, in place of the last.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Full, Queue

from msgspec.structs import replace

from backend.device.clocks import Throttled, throttled_of
from backend.scheduler.messages import Finish
from backend.scheduler.state import Running, Source
from predictor.features import CoRunner
from predictor.samples import Sample, encode_sample, sample_of

VARIABLE = "ISOCHRONE_SAMPLES"
MAX_BYTES = 64 << 20
MAX_QUEUED = 4096
_REST_S = 0.2
"""Between two bursts of samples: woken for each, the writer would take turns with the decisions."""
_CLOSE_S = 1.0
_log = logging.getLogger("isochrone.scheduler")


class SampleLog:
    """Appends to `path`. A sample belongs to the source whose batch it is; so do the losses."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, throttled: Throttled = lambda: None) -> None:
        self._path, self._max_bytes, self._throttled = path, max_bytes, throttled
        self._queue: Queue[tuple[int, Sample] | None] = Queue(MAX_QUEUED)
        self._closing = threading.Event()
        self._lost: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._said = False
        self._thread = threading.Thread(target=self._run, name="isochrone-samples", daemon=True)
        self._thread.start()

    def put(self, source: int, sample: Sample) -> None:
        """Write it soon, or count it as lost where the disk is too far behind."""
        try:
            self._queue.put_nowait((source, sample))
        except Full:
            self._lose(source)

    def take_lost(self, source: int) -> int:
        """Samples of this source that were lost since this was asked last."""
        if not self._lost:
            return 0
        with self._lock:
            return self._lost.pop(source, 0)

    def close(self) -> None:
        """Write what is queued."""
        self._closing.set()
        with suppress(Full):  # the disk hangs: what is queued is lost with this process
            self._queue.put(None, timeout=_CLOSE_S)
        self._thread.join(timeout=5.0)

    def _lose(self, source: int) -> None:
        with self._lock:
            self._lost[source] += 1

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            source, sample = item
            try:
                self._append(encode_sample(replace(sample, throttled=self._throttled())))
                self._said = False
            except OSError as error:
                self._lose(source)
                if not self._said:  # once per trouble, not per sample
                    _log.warning("samples cannot be written to '%s': %s", self._path, error.strerror)
                    self._said = True
            if self._queue.empty():
                self._closing.wait(_REST_S)

    def _append(self, line: bytes) -> None:
        """All of the line or nothing of it. Opened anew each time: the file may be moved away at any moment."""
        self._rotate(len(line))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):  # the disk is full: leave no broken line
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def _rotate(self, more: int) -> None:
        with suppress(FileNotFoundError):
            if (size := self._path.stat().st_size) > 0 and size + more > self._max_bytes:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))


def sample_of_batch(source: Source, batch: Running, took: Finish, beside: Sequence[CoRunner], device: str) -> Sample:
    """Of what an `Observer` is told, and the device's name."""
    assert took.exec_ns is not None
    start_ns = batch.launched_ns + took.transfer_in_ns
    ran = sample_of(batch.own, beside, source.join.version, device, start_ns, took.exec_ns)
    return replace(
        ran,
        lane=batch.lane,
        predicted_ns=batch.predicted_ns,
        decision=batch.decision,
        transfer_in_ns=took.transfer_in_ns,
        transfer_out_ns=took.transfer_out_ns,
        bytes_in=took.bytes_in,
        bytes_out=took.bytes_out,
        predicted_in_ns=batch.transfer_in_ns,
        predicted_out_ns=batch.transfer_out_ns,
    )


def sample_log_of_environment(device: str) -> SampleLog | None:
    """Where the environment asks for one."""
    path = os.environ.get(VARIABLE)
    return SampleLog(Path(path).expanduser(), throttled=throttled_of(device)) if path else None
