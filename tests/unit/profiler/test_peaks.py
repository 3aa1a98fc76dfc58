"""Peaks of the device, the files and the lock that keep them, and features as shares of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from profiler import host
from profiler.feature_source import load_of
from profiler.lock import STALLED_S, exclusive, show_progress
from profiler.peaks import Peaks, PeaksFile, load_or_measure, measure_peaks
from profiler.store import keep_newest, write_json
from profiler.work import GraphWork
from tests.fakes.graphs import MS, PEAKS


def test_peaks_are_plausible() -> None:
    peaks = measure_peaks(0.01)
    assert 1e8 < peaks.operations_per_s < 1e13
    assert 1e8 < peaks.dram_bytes_per_s < 1e13
    assert 1e8 < peaks.cache_bytes_per_s < 1e13
    assert peaks.cache_share_bytes > 0


class Measure:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Peaks:
        self.calls += 1
        return PEAKS


def test_peaks_are_measured_once(tmp_path: Path) -> None:
    measure = Measure()
    directory = tmp_path / "made" / "here"
    assert load_or_measure(directory, measure) == PEAKS
    assert load_or_measure(directory, measure) == PEAKS
    assert measure.calls == 1
    assert sorted(path.name for path in directory.iterdir()) == ["peaks.json", "peaks.lock"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        msgspec.json.encode(PeaksFile(99, host.cpu_name(), "1", "1", PEAKS)),
        msgspec.json.encode(PeaksFile(1, "another processor", "1", "1", PEAKS)),
        b"x" * (2 << 20),
    ],
    ids=["empty", "broken", "foreign", "schema", "processor", "huge"],
)
def test_peaks_of_another_machine_or_broken_are_measured_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "peaks.json").write_bytes(content)
    measure = Measure()
    assert load_or_measure(tmp_path, measure) == load_or_measure(tmp_path, measure) == PEAKS
    assert measure.calls == 1


def test_peaks_need_no_writable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert load_or_measure(tmp_path / "file" / "folder", Measure()) == PEAKS


def test_lock_is_given_up_after_the_wait(tmp_path: Path) -> None:
    waits: list[float] = []
    with exclusive(tmp_path / "lock", 1.0) as first, exclusive(tmp_path / "lock", 1.0, waits.append) as second:
        assert (first, second) == (True, False)
    assert sum(waits) == pytest.approx(1.0)
    with exclusive(tmp_path / "lock", 1.0, waits.append) as third:
        assert third


def test_a_lock_is_waited_for_only_while_who_has_it_makes_progress(tmp_path: Path) -> None:
    path, waits = tmp_path / "lock", list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            show_progress(path)
        elif len(waits) > 3:
            stand_still()

    def stand_still() -> None:
        long_ago_s = time.time() - STALLED_S - 1.0
        os.utime(path, (long_ago_s, long_ago_s))

    with exclusive(path, 1.0):
        with exclusive(path, 60.0, wait) as second:
            assert not second
        assert len(waits) == 4
        stand_still()
        with exclusive(path, 60.0, wait) as third:
            assert not third
        assert len(waits) == 4
    with exclusive(path, 60.0, wait) as alone:  # however old the file is
        assert alone


def test_only_the_newest_files_are_kept(tmp_path: Path) -> None:
    for i in range(6):
        write_json(tmp_path / f"{i}.json", i)
        os.utime(tmp_path / f"{i}.json", (i, i))
    keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4.json", "5.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["1\n"]


@pytest.mark.parametrize(("text", "size_bytes"), [("2048K", 2 << 20), ("32M", 32 << 20)])
def test_last_level_cache_is_the_highest_level(tmp_path: Path, text: str, size_bytes: int) -> None:
    for level, size, cpus in ((1, "48K", "0"), (3, text, "0-3,8")):
        index = tmp_path / f"index{level}"
        index.mkdir()
        for name, value in (("level", str(level)), ("size", size), ("shared_cpu_list", cpus)):
            (index / name).write_text(value + "\n")
    (tmp_path / "index7").mkdir()  # hidden, as in some containers
    assert host.last_level_cache(tmp_path) == (size_bytes, 5)


def test_last_level_cache_is_guessed_where_hidden(tmp_path: Path) -> None:
    assert host.last_level_cache(tmp_path / "none")[1] == 1


def test_features_are_shares_of_the_peaks() -> None:
    load = load_of(GraphWork(10**9, 50 << 20, 40 << 20), 20 * MS, PEAKS)
    assert load.solo_ns == 20 * MS
    assert load.compute == pytest.approx(0.5)
    assert load.l2 == pytest.approx((50 << 20) / 1e9)
    assert load.dram == pytest.approx((25 << 20) / 2e8)  # as large as the share of the cache: half of it misses


@pytest.mark.parametrize("work", [GraphWork(0, 0, 0), GraphWork(10**15, 10**15, 10**15)])
def test_features_stay_within_zero_and_one(work: GraphWork) -> None:
    assert set(load_of(work, 1, PEAKS).features) <= {0.0, 1.0}
