"""Learned state in a file: whole or not at all."""

from __future__ import annotations

import logging
import os
from math import inf
from pathlib import Path

import msgspec
import pytest

from predictor.bound import UpperBound
from predictor.learners.isochrone import Isochrone
from predictor.state_file import VERSION, Learned, encode, load, save
from predictor.transfers import TransferModel
from tests.fakes.trained import batches


@pytest.fixture
def learned() -> Learned:
    learner, bound, transfers = Learned(Isochrone(), UpperBound(), TransferModel())
    for own, seen, slowdown in batches(100):
        bound.learn_one(slowdown / learner.predict_one(own, seen))
        learner.learn_one(own, seen, slowdown)
    transfers.h2d.learn_one(600_000, 50_000.0)
    return Learned(learner, bound, transfers)


def test_a_saved_state_is_loaded(tmp_path: Path, learned: Learned) -> None:
    path = tmp_path / "state"
    save(path, encode(learned))
    found = load(path)
    assert [part.state() for part in found] == [part.state() for part in learned]
    assert found.bound.multiplier == learned.bound.multiplier
    assert found.transfers.h2d.solo_ns(600_000) == pytest.approx(50_000.0, rel=0.01)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_file_of_the_version_before_is_set_aside(
    tmp_path: Path, learned: Learned, caplog: pytest.LogCaptureFixture
) -> None:
    """It had another learner."""
    path = tmp_path / "state"
    save(path, encode(learned))
    whole = msgspec.msgpack.decode(path.read_bytes())
    path.write_bytes(msgspec.msgpack.encode({**whole, "version": VERSION - 1, "learner": {"bank": [], "counts": {}}}))
    assert load(path).learner.state() == Isochrone().state()
    assert f"it is isochrone-predictor version {VERSION - 1}, not isochrone-predictor version {VERSION}" in caplog.text
    assert (tmp_path / "state.broken").exists()


def test_the_prior_is_used_without_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(tmp_path / "none").learner.state() == Isochrone().state()
    assert not caplog.records


def test_a_file_from_before_transfers_were_learned_is_of_use(tmp_path: Path, learned: Learned) -> None:
    path = tmp_path / "state"
    save(path, encode(learned))
    whole = msgspec.msgpack.decode(path.read_bytes())
    del whole["transfers"]
    path.write_bytes(msgspec.msgpack.encode(whole))
    found = load(path)
    assert found.learner.state() == learned.learner.state()
    assert found.transfers.state() == TransferModel().state()


def _broken(path: Path, learned: Learned) -> dict[str, bytes]:
    save(path, encode(learned))
    data = path.read_bytes()
    whole = msgspec.msgpack.decode(data)
    covariance = whole["learner"]["covariance"]
    return {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "foreign": b"\x80\x04]\x94.",
        "text": b"hello",
        "other version": msgspec.msgpack.encode({**whole, "version": 99}),
        "other format": msgspec.msgpack.encode({**whole, "format": "x"}),
        "a part missing": msgspec.msgpack.encode({**whole, "learner": {"weights": []}}),
        "not finite": msgspec.msgpack.encode({**whole, "learner": {**whole["learner"], "noise": inf}}),
        "not a number": msgspec.msgpack.encode({**whole, "learner": {**whole["learner"], "drift": [1, "a", 2]}}),
        "nested without end": b"\x85\xa6format\xb3isochrone-predictor\xa7version\x05\xa7learner" + b"\x91" * 5000,
        "a weight beyond reason": msgspec.msgpack.encode(
            {**whole, "learner": {**whole["learner"], "weights": [1e6] * len(whole["learner"]["weights"])}}
        ),
        "a covariance that is none": msgspec.msgpack.encode(
            {**whole, "learner": {**whole["learner"], "covariance": [[-x for x in row] for row in covariance]}}
        ),
        "a slot twice": msgspec.msgpack.encode(
            {**whole, "learner": {**whole["learner"], "slots": {"a": [1, 0], "b": [1, 0]}}}
        ),
        "a variance below 0": msgspec.msgpack.encode(
            {**whole, "learner": {**whole["learner"], "pairs": [[["a", "b"], 0.0, -1.0]]}}
        ),
        "a bad bound": msgspec.msgpack.encode({**whole, "bound": {"level": 7, "multiplier": 1.0, "recent": []}}),
        "bad transfers": msgspec.msgpack.encode({**whole, "transfers": {"into": [1.0] * 5, "out": [-1.0] * 5}}),
    }


def test_a_broken_file_is_renamed(tmp_path: Path, learned: Learned, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state"
    for kind, data in _broken(path, learned).items():
        caplog.clear()
        path.write_bytes(data)
        with caplog.at_level(logging.WARNING):
            found = load(path)
        assert found.learner.state() == Isochrone().state(), kind
        assert found.bound.state() == UpperBound().state()
        assert found.transfers.state() == TransferModel().state()
        assert "is set aside as state.broken" in caplog.text, kind
        assert (tmp_path / "state.broken").read_bytes() == data
        assert not path.exists()


def test_a_file_that_is_too_large_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cpu.state"
    path.touch()
    os.truncate(path, (1 << 24) + 1)
    assert load(path).learner.state() == Isochrone().state()
    assert "cannot be read (it is larger than 16777216 bytes)" in caplog.text
    assert path.exists()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, learned: Learned) -> None:
    path = tmp_path / "folder" / "state"
    with pytest.raises(OSError):
        save(path, encode(learned))
    path.parent.mkdir()
    (path.parent / "state").mkdir()
    with pytest.raises(OSError):
        save(path, encode(learned))
    assert [p.name for p in path.parent.iterdir()] == ["state"]


def test_a_device_is_not_renamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = tmp_path / "cpu.state"
    link.symlink_to("/dev/null")
    load(link)
    assert "cannot be read" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.state"]
