"""Logs that begin late, have gaps or wrong parts, or hold more than is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from backend.errors import ConfigError
from backend.scheduler.messages import Cancel
from backend.scheduler_process import explainer
from backend.scheduler_process.request_index import RequestIndex
from tests.fakes.builders import MS, START_NS, only_launch
from tests.fakes.explained import HEAVY_MODEL, LIGHT_MODEL, device, explained, key_of
from tests.fakes.recorded import Recorded


def test_a_request_that_began_before_the_log_is_explained_from_there_on(tmp_path: Path) -> None:
    """The older half was given up while the request waited."""
    path = tmp_path / "events"
    with device(path) as made:
        light = only_launch(made.arrive(LIGHT_MODEL, made.request(12.0)))
        made.at(1).arrive(HEAVY_MODEL, made.request(50.0))
        made.log.checkpoint(made.core, made.now_ns)
        made.at(2).handle(HEAVY_MODEL, Cancel((99,)))
        made.at(10).finish(key_of(light), 10 * MS)
        made.at(21).finish((HEAVY_MODEL, 2), 11 * MS)
    whole, _ = explained(path, "2.2")
    assert whole.incomplete == []
    assert whole.finished is not None
    assert [wait.times for wait in whole.waits] == [2]
    lines = path.read_bytes().splitlines(keepends=True)
    second = [i for i, line in enumerate(lines) if b'"line":"checkpoint"' in line][1]
    path.write_bytes(b"".join(lines[second:]))
    found, text = explained(path, "2.2")
    assert "it arrived before what the log holds" in text
    assert [(wait.reason, wait.times) for wait in found.waits] == [("harm", 1)]
    assert found.launched == whole.launched


def test_a_gap_is_said_and_the_log_goes_on_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events"
    with device(path) as made:
        made.arrive(LIGHT_MODEL, made.request(12.0))
        monkeypatch.setattr(made.log._writer, "_max_queued", 0)
        made.at(1).arrive(HEAVY_MODEL, made.request(50.0))
        monkeypatch.undo()
        made.log.checkpoint(made.core, made.now_ns)
        made.at(10).finish((LIGHT_MODEL, 1), 10 * MS)
    index = RequestIndex(path)
    assert [why for _, why in index.gaps] == ["1 lines could not be written before that"]
    assert {r.number: r.outcome for r in index.requests} == {"1.1": "unknown", "2.2": "runs"}
    assert "the log has a gap before it ended" in explained(path, "1.1")[1]
    assert "it arrived before what the log holds" in explained(path, "2.2")[1]


def test_reasons_are_bounded_however_long_a_request_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explainer, "WAITS_MAX", 1)
    with device(tmp_path / "events", lanes=1) as made:
        made.arrive(LIGHT_MODEL, made.request(100.0))
        made.at(1).arrive(HEAVY_MODEL, made.request(20.0))
        for i in range(3, 30):
            made.at(i).handle(HEAVY_MODEL, Cancel((99,)))
    found, _ = explained(tmp_path / "events", "2.2")
    (wait,) = found.waits  # of two: "lanes", and "late" from 11 ms on
    assert wait.until_ns == START_NS + 29 * MS


_WRONG: tuple[object, ...] = (None, -1, 2**70, 1e308, "x", [], ["list"], ["#", 7], ["object", 3], ["dict"], True)


def _parts(value: object) -> Iterator[tuple[list[object], int]]:
    """Every place in a checkpoint's state, the arrays' insides excepted."""
    if isinstance(value, list) and value[:1] != ["array"]:
        for i, part in enumerate(value):
            yield value, i
            yield from _parts(part)


def test_a_checkpoint_with_a_wrong_part_is_explained_or_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with Recorded(path, seed=4) as made:
        made.run(600)
        made.log.checkpoint(made.core, made.now_ns)
        made.run(60)
    number = RequestIndex(path).requests[-1].number
    lines = path.read_bytes().splitlines(keepends=True)
    at = [i for i, line in enumerate(lines) if b'"line":"checkpoint"' in line][1]
    random, refused = Random(1), 0
    for _ in range(30):
        checkpoint = json.loads(lines[at])
        places = [*_parts(checkpoint["state"]["root"])]
        for where, i in random.sample(places, random.choice((1, 3))):
            where[i] = random.choice(_WRONG)
        path.write_bytes(json.dumps(checkpoint).encode() + b"\n" + b"".join(lines[at + 1 :]))
        try:
            explained(path, number)
        except ConfigError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 5
