"""Finished batches as JSON Lines: the contract's sample, written one at a time and read as a whole.

Only the format and its checks; features are computed in `predictor.features`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import msgspec

from predictor.bounded_file import read_at_most
from predictor.features import CoRunner, Exposure, Own, exposure
from predictor.workload import FEATURES, Load

SCHEMA = 1
BYTES_MAX = 1 << 28
"""Of a file; the scheduler's process begins another one far below that."""
_NUMBER_MAX = 1 << 62


class SamplesError(Exception):
    """A samples file cannot be used; one sentence that names the file and, where one is at fault, the line."""


class RecordedCoRunner(msgspec.Struct, frozen=True):
    """A co-runner as a sample holds it. begin, end, same_core: see `CoRunner`; 0..1 of the sample's execution.

    kernel_ns: see `Load`.
    """

    model: str
    batch_size: int
    solo_ns: int
    begin: float
    end: float
    features: dict[str, float] = {}
    same_core: bool = False
    kernel_ns: int = 0


class Sample(msgspec.Struct, frozen=True):
    """One finished batch. features: shares of the device's peak in a solo run, 0..1, by the names of `FEATURES`.

    lane, predicted_ns, decision, predicted_in_ns, predicted_out_ns, batch: known to the scheduler at the launch; no
    learner reads them. batch: its number, as the event log has it.
    transfer_in_ns, transfer_out_ns, bytes_in, bytes_out: of its inputs before `start_ns` and its outputs after
    `end_ns`; 0 where nothing was moved, or that cannot be told apart.
    kernel_ns: see `Load`.
    throttled: whether heat or power slowed the device's clocks down, as its driver said within a second of the batch's
    end; None where it was not asked, as on CPU.
    """

    schema: int
    model: str
    batch_size: int
    start_ns: int
    exec_ns: int
    solo_ns: int
    version: str = "1"
    device: str = ""
    features: dict[str, float] = {}
    co_runners: tuple[RecordedCoRunner, ...] = ()
    lane: int | None = None
    predicted_ns: int | None = None
    decision: str | None = None
    transfer_in_ns: int = 0
    transfer_out_ns: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    predicted_in_ns: int = 0
    predicted_out_ns: int = 0
    throttled: bool | None = None
    batch: int | None = None
    kernel_ns: int = 0

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.exec_ns

    @property
    def slowdown(self) -> float:
        """Measured execution / solo execution."""
        return self.exec_ns / self.solo_ns


class Samples(msgspec.Struct, frozen=True):
    """A file's samples in the order of their start, and the features that every one of them has."""

    samples: tuple[Sample, ...]
    features: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Features that not every sample has; they are not used."""
        return tuple(name for name in FEATURES if name not in self.features)

    def without_throttled(self) -> Samples:
        """Those that were not taken while the device's clocks were throttled; may be none."""
        return msgspec.structs.replace(self, samples=tuple(s for s in self.samples if not s.throttled))


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Sample)


class _Version(msgspec.Struct):
    schema: int


_version_decoder = msgspec.json.Decoder(_Version)


def encode_sample(sample: Sample) -> bytes:
    """One line, with its newline."""
    return _encoder.encode(sample) + b"\n"


def sample_of(
    own: Own, co_runners: Sequence[CoRunner], version: str, device: str, start_ns: int, exec_ns: int
) -> Sample:
    """The sample of a batch that ran for `exec_ns` from `start_ns` on with these co-runners."""
    return Sample(
        SCHEMA,
        own.model,
        own.batch_size,
        start_ns,
        exec_ns,
        own.load.solo_ns,
        version,
        device,
        _shares(own.load),
        tuple(
            RecordedCoRunner(
                *(n.model, n.batch_size, n.load.solo_ns, n.begin, n.end, _shares(n.load), n.same_core, n.load.kernel_ns)
            )
            for n in co_runners
        ),
        kernel_ns=own.load.kernel_ns,
    )


TrainingSample = tuple[Own, Exposure, float]
"""A batch, its exposure, its slowdown."""


def read_samples(path: Path) -> Samples:
    """A file's samples, without a last line that is still being written, or was when its writer ended.

    Raises SamplesError: unreadable, empty, or a line that is no sample.
    """
    try:
        content = read_at_most(path, BYTES_MAX)
    except OSError as error:
        raise SamplesError(f"{path} cannot be read: {error.strerror}") from None
    lines = content.splitlines()
    if len(lines) > 1 and not content.endswith(b"\n") and _torn(lines[-1]):
        lines.pop()
    samples = [_decode(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not samples:
        raise SamplesError(f"{path} has no samples: it is empty")
    features = tuple(name for name in FEATURES if all(_has(s, name) for s in samples))
    return Samples(tuple(sorted(samples, key=lambda s: s.start_ns)), features)


def own_of(sample: Sample, features: tuple[str, ...] = FEATURES) -> Own:
    """The batch itself, by the features to be used; the others are 0."""
    return Own(sample.model, sample.batch_size, _load(sample, features))


def co_runners_of(sample: Sample, features: tuple[str, ...] = FEATURES) -> list[CoRunner]:
    """Its co-runners, by the features to be used."""
    return [CoRunner(c.model, c.batch_size, _load(c, features), c.begin, c.end, c.same_core) for c in sample.co_runners]


def training_sample_of(sample: Sample, features: tuple[str, ...] = FEATURES) -> TrainingSample:
    """The sample as learners take it."""
    own = own_of(sample, features)
    return own, exposure(own, co_runners_of(sample, features)), sample.slowdown


def _torn(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return False


def _decode(path: Path, number: int, line: bytes) -> Sample:
    try:
        schema = _version_decoder.decode(line).schema
        if schema != SCHEMA:
            raise SamplesError(f"{path}, line {number}: schema {schema} is not known, this version reads {SCHEMA}")
        sample = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SamplesError(f"{path}, line {number} is not a sample: {error}") from None
    if (wrong := _too_large(sample) or _first_wrong(sample)) is not None:
        raise SamplesError(f"{path}, line {number}: {wrong}")
    return sample


def _too_large(sample: Sample) -> str | None:
    for batch in (sample, *sample.co_runners):
        for name in batch.__struct_fields__:
            if isinstance(value := getattr(batch, name), int) and abs(value) > _NUMBER_MAX:
                return f"{name} must be at most 2^62, got a number of {value.bit_length()} bits"
    return None


def _first_wrong(sample: Sample) -> str | None:
    for name, value in (("exec_ns", sample.exec_ns), ("solo_ns", sample.solo_ns), ("batch_size", sample.batch_size)):
        if value <= 0:
            return f"{name} must be positive, got {value}"
    for name in ("start_ns", "transfer_in_ns", "transfer_out_ns", "bytes_in", "bytes_out", "kernel_ns"):
        if (value := getattr(sample, name)) < 0:
            return f"{name} must not be negative, got {value}"
    for co_runner in sample.co_runners:
        if co_runner.solo_ns <= 0 or co_runner.batch_size <= 0 or co_runner.kernel_ns < 0:
            return f"a co-runner's solo_ns and batch_size must be positive, its kernel_ns not negative, got {co_runner}"
        if not 0.0 <= co_runner.begin <= co_runner.end <= 1.0:
            return f"begin and end must ascend within 0..1, got {co_runner.begin} and {co_runner.end}"
    for shares in (sample.features, *(c.features for c in sample.co_runners)):
        for name, share in shares.items():
            if not (isfinite(share) and 0.0 <= share <= 1.0) and name in FEATURES:
                return f"a share must lie in 0..1, got {name} {share}"
    return None


def _shares(load: Load) -> dict[str, float]:
    return dict(zip(FEATURES, load.features, strict=True))


def _load(batch: Sample | RecordedCoRunner, features: tuple[str, ...]) -> Load:
    compute, l2, dram = (batch.features.get(name, 0.0) if name in features else 0.0 for name in FEATURES)
    return Load(batch.solo_ns, compute, l2, dram, batch.kernel_ns)


def _has(sample: Sample, name: str) -> bool:
    return name in sample.features and all(name in c.features for c in sample.co_runners)
