"""Samples of finished batches as the scheduler's process writes them; a disk's trouble reaches no launch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from backend.commands.trace import run_trace
from backend.errors import ConfigError
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Finish
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.scheduler_process import background_writer, sample_log
from backend.scheduler_process.sample_log import VARIABLE, SampleLog, sample_log_of_environment
from predictor.features import CoRunner, Own
from predictor.samples import SamplesError, encode_sample, read_samples, sample_of
from tests.fakes.builders import MS, Device, join, load, only_launch, profile
from tests.fakes.fake_model import eventually

SAMPLE = sample_of(Own("m", 2, load(3.0, 0.5)), [CoRunner("n", 1, load(1.0), 0.0, 0.5)], "1", "cpu", 7, 4 * MS)


def test_samples_come_back_as_they_were_written(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.jsonl")
    for _ in range(3):
        log.put(1, SAMPLE)
    log.close()
    assert read_samples(tmp_path / "samples.jsonl").samples == (SAMPLE,) * 3
    assert log.take_lost(1) == 0


def test_a_file_may_be_named_after_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "samples-{device}.jsonl"))
    log = sample_log_of_environment("emulated-a100-0")
    assert log is not None
    log.put(1, SAMPLE)
    log.close()
    assert read_samples(tmp_path / "samples-emulated-a100-0.jsonl").samples == (SAMPLE,)


def test_a_sample_tells_whether_the_device_was_throttled(tmp_path: Path) -> None:
    answers = iter((True, False, None))
    log = SampleLog(tmp_path / "samples.jsonl", throttled=lambda: next(answers))
    for _ in range(3):
        log.put(1, SAMPLE)
    log.close()
    assert [s.throttled for s in read_samples(tmp_path / "samples.jsonl").samples] == [True, False, None]


def test_sample_files_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    log = SampleLog(path, max_bytes=2_000)
    for _ in range(200):
        log.put(1, SAMPLE)
    log.close()
    assert {p.name for p in tmp_path.iterdir()} == {"samples.jsonl", "samples.jsonl.1"}
    for file in (path, path.with_name("samples.jsonl.1")):
        assert file.stat().st_size <= 2_000
        assert all(sample == SAMPLE for sample in read_samples(file).samples)


def test_samples_that_cannot_be_written_are_counted_and_later_ones_written(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "samples.jsonl"
    log = SampleLog(path)
    log.put(1, SAMPLE)
    log.put(2, SAMPLE)
    eventually(lambda: not len(log._writer) and sum(log._lost.values()) == 2)
    path.parent.mkdir()
    log.put(1, SAMPLE)
    log.close()
    assert (log.take_lost(1), log.take_lost(1), log.take_lost(2)) == (1, 0, 1)
    assert len(read_samples(path).samples) == 1


def test_a_full_disk_leaves_no_broken_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.jsonl"
    write = os.write
    log = SampleLog(path)
    log.put(1, SAMPLE)
    eventually(lambda: path.exists() and path.stat().st_size)
    monkeypatch.setattr("backend.scheduler_process.background_writer.os.write", lambda fd, data: write(fd, data[:20]))
    log.put(1, SAMPLE)
    eventually(lambda: log._lost)
    monkeypatch.undo()
    log.put(1, SAMPLE)
    log.close()
    assert len(read_samples(path).samples) == 2


def test_a_disk_that_is_really_full_costs_samples_only() -> None:
    full = Path("/dev/full")  # each write to it fails as on a full disk
    log = SampleLog(full)
    log.put(1, SAMPLE)
    log.close()
    assert log.take_lost(1) == 1


def test_a_disk_that_hangs_does_not_keep_the_sample_log_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody reads: to open it waits for ever."""
    monkeypatch.setattr(sample_log, "MAX_QUEUED", 2)
    monkeypatch.setattr(background_writer, "_CLOSE_S", 0.05)
    os.mkfifo(tmp_path / "samples.jsonl")
    log = SampleLog(tmp_path / "samples.jsonl")
    while log.take_lost(1) == 0:
        log.put(1, SAMPLE)
    log.close()
    os.close(os.open(tmp_path / "samples.jsonl", os.O_RDONLY | os.O_NONBLOCK))  # let the writer go


def test_the_observer_is_called_with_each_batch_and_its_co_runners() -> None:
    observed: list[tuple[str, int, int | None, list[CoRunner]]] = []

    def observe(source: Source, batch: RunningBatch, finish: Finish, co_runners: list[CoRunner]) -> None:
        observed.append((source.join.model, batch.rows, finish.exec_ns, co_runners))

    device = Device(lanes=2)
    device.core = Scheduler(2, observe)
    for source, name in ((1, "a"), (2, "b")):
        device.join(source, join(profile(), model=name))
    first = only_launch(device.ask(1))
    second = only_launch(device.at(4.0).ask(2))
    device.at(10.0).finish(first, 9.0)
    device.at(16.0).finish(second, 12.0)
    device.core.check_invariants()
    load_of_one = profile().at(1)
    assert observed == [
        ("a", 1, 9 * MS, [CoRunner("b", 1, load_of_one, 0.4, 1.0)]),
        ("b", 1, 12 * MS, [CoRunner("a", 1, load_of_one, 0.0, 0.5)]),
    ]


def test_a_preempting_batch_is_sampled_on_a_lane_of_its_own_number() -> None:
    lanes: list[int | None] = []

    def observe(source: Source, batch: RunningBatch, finish: Finish, co_runners: list[CoRunner]) -> None:
        lanes.append(sample_log.sample_of_batch(source, batch, finish, co_runners, "cpu", 1).lane)

    device = Device(lanes=1)
    device.core = Scheduler(1, observe)
    for source, name in ((1, "patient"), (2, "urgent")):
        device.join(source, join(profile(), model=name, preemptible_lanes=1))
    patient = only_launch(device.ask(1))
    _, urgent = device.at(1.0).ask(2, 16.0)
    device.at(11.0).finish(only_launch([urgent]), 10.0)
    device.at(21.0).finish(patient, 20.0)
    device.at(32.0).finish(only_launch(device.ask(1)), 10.0)
    assert lanes == [1, 0], "one number above those of the lanes, and none of a batch that was suspended"


def test_batches_become_a_timeline(tmp_path: Path) -> None:
    """Perfetto wants microseconds; a process per device, a thread per lane."""
    neighbour = CoRunner("n", 1, load(1.0), 0.0, 0.5)
    samples = [
        replace(
            sample_of(Own("m", 2, load(3.0)), [neighbour], "1", "cpu", 7 * MS, 4 * MS),
            lane=1,
            predicted_ns=5 * MS,
            decision="split",
        ),
        sample_of(Own("n", 1, load(1.0)), [], "1", "cpu", 8 * MS, 1 * MS),
    ]
    path, out = tmp_path / "samples.jsonl", tmp_path / "trace.json"
    path.write_bytes(b"".join(map(encode_sample, samples)))
    assert run_trace(path, out) == 2
    *names, first, second = json.loads(out.read_text())["traceEvents"]
    assert [(n["name"], n["tid"], n["args"]["name"]) for n in names] == [
        ("process_name", 0, "cpu"), ("thread_name", 0, "lane 0"), ("thread_name", 1, "lane 1")
    ]  # fmt: skip
    assert (first["name"], first["ts"], first["dur"], first["pid"], first["tid"]) == ("m × 2", 7e3, 4e3, 0, 1)
    assert (first["args"]["decision"], first["args"]["predicted_ms"], first["args"]["measured_ms"]) == ("split", 5, 4)
    assert first["args"]["beside"] == ["n × 1"]
    assert "predicted_ms" not in second["args"]


def test_transfers_are_slices_of_the_timeline_before_and_after_the_execution(tmp_path: Path) -> None:
    moved = replace(
        sample_of(Own("m", 2, load(3.0)), [], "1", "gpu-0", 7 * MS, 4 * MS),
        transfer_in_ns=2 * MS,
        transfer_out_ns=MS,
        bytes_in=6_000,
        bytes_out=500,
        predicted_in_ns=3 * MS,
        predicted_out_ns=MS // 2,
    )
    path, out = tmp_path / "samples.jsonl", tmp_path / "trace.json"
    path.write_bytes(encode_sample(moved))
    assert run_trace(path, out) == 1
    slices = [event for event in json.loads(out.read_text())["traceEvents"] if event["ph"] == "X"]
    assert [(s["name"], s["ts"], s["dur"]) for s in slices] == [
        ("m × 2 in", 5e3, 2e3), ("m × 2", 7e3, 4e3), ("m × 2 out", 11e3, 1e3)
    ]  # fmt: skip
    assert len({(s["pid"], s["tid"]) for s in slices}) == 1
    assert slices[0]["args"] == {"measured_ms": 2, "predicted_ms": 3, "bytes": 6_000}
    assert slices[2]["args"] == {"measured_ms": 1, "predicted_ms": 0.5, "bytes": 500}


def test_a_timeline_of_no_samples_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(SamplesError, match="empty has no samples: it is empty"):
        run_trace(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "one").write_bytes(encode_sample(SAMPLE))
    with pytest.raises(ConfigError, match="cannot be written: "):
        run_trace(tmp_path / "one", tmp_path / "nowhere" / "out")
    with pytest.raises(ConfigError, match="one' holds the samples; name another file for the timeline"):
        run_trace(tmp_path / "one", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == encode_sample(SAMPLE)
