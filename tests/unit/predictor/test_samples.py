"""The contract's sample: what is written is read; what is wrong is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from predictor import samples
from predictor.features import CoRunner, Own
from predictor.samples import (
    RecordedCoRunner,
    Sample,
    SamplesError,
    co_runners_of,
    encode_sample,
    own_of,
    read_samples,
    sample_of,
)
from predictor.workload import Load

SHARES = {"compute": 0.61, "l2": 0.33, "dram": 0.2}
OTHER = RecordedCoRunner("vgg19", 1, 900, 0.0, 0.62, SHARES)
SAMPLE = Sample(1, "resnet50", 8, 100, 7_520_000, 4_535_200, "1", "cpu", SHARES, (OTHER,))


def write(folder: Path, *lines: bytes) -> Path:
    path = folder / "samples.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(encode_sample(SAMPLE)), **values}).encode() + b"\n"


def with_co_runner(**values: Any) -> bytes:
    return changed(co_runners=[{**json.loads(encode_sample(SAMPLE))["co_runners"][0], **values}])


def test_a_written_sample_is_read(tmp_path: Path) -> None:
    read = read_samples(write(tmp_path, encode_sample(SAMPLE), b"\n", encode_sample(SAMPLE)))
    assert read.samples == (SAMPLE, SAMPLE)
    assert read.features == ("compute", "l2", "dram")
    assert SAMPLE.slowdown == pytest.approx(1.6582, abs=1e-4)


def test_the_contracts_own_line_is_read(tmp_path: Path) -> None:
    line = (
        b'{"schema":1,"model":"resnet50","version":"1","batch_size":8,"device":"cpu","start_ns":1,"exec_ns":7520000,'
        b'"solo_ns":4535200,"features":{"compute":0.61,"l2":0.33,"dram":0.20},"co_runners":[{"model":"vgg19",'
        b'"batch_size":1,"solo_ns":3,"features":{},"begin":0.0,"end":0.62}],"unknown":1}\n'
    )
    read = read_samples(write(tmp_path, line))
    assert own_of(read.samples[0]) == Own("resnet50", 8, Load(4_535_200, 0.61, 0.33, 0.20))
    assert co_runners_of(read.samples[0]) == [CoRunner("vgg19", 1, Load(3, 0.0, 0.0, 0.0), 0.0, 0.62)]


def test_a_sample_tells_the_work_per_kernel_of_each(tmp_path: Path) -> None:
    own, other = Own("a", 2, Load(3000, 0.1, 0.2, 0.3, 40)), CoRunner("b", 1, Load(5000, 0.4, 0.5, 0.6, 70), 0.5, 1.0)
    (read,) = read_samples(write(tmp_path, encode_sample(sample_of(own, [other], "1", "gpu", 0, 4000)))).samples
    assert own_of(read) == own
    assert co_runners_of(read) == [other]


def test_samples_are_ordered_by_their_start(tmp_path: Path) -> None:
    read = read_samples(write(tmp_path, changed(start_ns=9), changed(start_ns=3)))
    assert [s.start_ns for s in read.samples] == [3, 9]


def test_a_last_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    whole, torn = encode_sample(SAMPLE), encode_sample(SAMPLE)[:-20]
    assert read_samples(write(tmp_path, whole, torn)).samples == (SAMPLE,)
    assert read_samples(write(tmp_path, whole, whole[:-1])).samples == (SAMPLE, SAMPLE)
    for lines in ([torn], [torn + b"\n", whole], [whole, torn + b"\n"]):
        with pytest.raises(SamplesError, match="is not a sample"):
            read_samples(write(tmp_path, *lines))


def test_only_features_that_every_sample_has_are_used(tmp_path: Path) -> None:
    read = read_samples(write(tmp_path, encode_sample(SAMPLE), changed(features={"compute": 0.1, "dram": 0.2})))
    assert (read.features, read.missing) == (("compute", "dram"), ("l2",))
    assert own_of(read.samples[0], read.features).load == Load(4_535_200, 0.61, 0.0, 0.2)
    assert read_samples(write(tmp_path, with_co_runner(features={"l2": 0.5}))).features == ("l2",)


def test_throttled_samples_are_read_and_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, changed(throttled=True), changed(throttled=False), encode_sample(SAMPLE))
    read = read_samples(path)
    assert [s.throttled for s in read.samples] == [True, False, None]
    assert [s.throttled for s in read.without_throttled().samples] == [False, None]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"{broken\n", "line 2 is not a sample: JSON is malformed"),
        (b'{"schema":1}\n', "line 2 is not a sample: Object missing required field `model`"),
        (b"\xff\xfe\n", "line 2 is not a sample"),
        (changed(schema=2), "line 2: schema 2 is not known, this version reads 1"),
        (changed(exec_ns=0), "line 2: exec_ns must be positive, got 0"),
        (changed(solo_ns=-5), "line 2: solo_ns must be positive, got -5"),
        (changed(batch_size=0), "line 2: batch_size must be positive, got 0"),
        (changed(start_ns=-1), "line 2: start_ns must not be negative, got -1"),
        (changed(transfer_in_ns=-1), "line 2: transfer_in_ns must not be negative, got -1"),
        (changed(bytes_out=-9), "line 2: bytes_out must not be negative, got -9"),
        (changed(exec_ns=float("nan")), "line 2 is not a sample"),
        (changed(throttled="yes"), "line 2 is not a sample: Expected `bool | null`, got `str`"),
        (changed(features={"l2": -0.1}), "line 2: a share must lie in 0..1, got l2 -0.1"),
        (changed(features={"l2": 1.5}), "line 2: a share must lie in 0..1, got l2 1.5"),
        (changed(features={"l2": float("inf")}), "line 2 is not a sample"),
        (b'{"schema":1,"more":' + b"[" * 5000 + b"\n", "line 2 is not a sample"),
        (changed(exec_ns=10**30), "line 2: exec_ns must be at most 2^62, got a number of 100 bits"),
        (with_co_runner(kernel_ns=1 << 70), "line 2: kernel_ns must be at most 2^62, got a number of 71 bits"),
        (with_co_runner(solo_ns=0), "line 2: a co-runner's solo_ns and batch_size must be positive"),
        (with_co_runner(begin=0.7), "line 2: begin and end must ascend within 0..1, got 0.7 and 0.62"),
        (with_co_runner(end=1.2), "line 2: begin and end must ascend within 0..1, got 0.0 and 1.2"),
        (with_co_runner(features={"dram": 7.0}), "line 2: a share must lie in 0..1, got dram 7.0"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: bytes, sentence: str) -> None:
    with pytest.raises(SamplesError) as refused:
        read_samples(write(tmp_path, encode_sample(SAMPLE), line))
    assert sentence in str(refused.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = encode_sample(SAMPLE)
    monkeypatch.setattr(samples, "BYTES_MAX", len(line))
    assert len(read_samples(write(tmp_path, line)).samples) == 1
    with pytest.raises(SamplesError, match=f"cannot be read: it is larger than {len(line)} bytes"):
        read_samples(write(tmp_path, line, b"\n"))


def test_a_file_that_is_empty_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="has no samples: it is empty"):
        read_samples(write(tmp_path, b"\n"))
    with pytest.raises(SamplesError, match="cannot be read: No such file"):
        read_samples(tmp_path / "none.jsonl")
