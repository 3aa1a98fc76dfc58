"""A frame of `isochrone top` is the text that a snapshot says, and bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from backend.fleet.snapshot import (
    FLEET_PROTOCOL,
    MAX_MODELS,
    MAX_RUNNING,
    DeviceSnapshot,
    MachineFacts,
    ModelState,
    RunningState,
)
from backend.top.frame import frame

MS = 1_000_000
MODELS = [
    ModelState("resnet50", "1", 8, 140, {"1": 3, "2": 10}, 11, [(1, 5 * MS)], 1.0, 0.3, 0.5, 80 * MS, 1),
    ModelState("vgg19", "1", 8, 40, {}, 0, [(1, 20 * MS)], 1.0, 0.3, 0.5, None, 2),
]
RUNNING = [
    RunningState("resnet50", 8, 1, 12_340_000, -3 * MS),
    RunningState("vgg19", 4, 2, 105 * MS, 20 * MS),
    RunningState("vgg19", 4, 2, 5 * MS, None),
]
MACHINE = MachineFacts("A100", emulated=False)
SNAPSHOT = DeviceSnapshot(
    FLEET_PROTOCOL, "me", 7, 1_800_000_000_250_000_000, "gpu-0", 2, MACHINE, 70 * MS, MODELS, RUNNING, MS
)
FRAME = """\
gpu-0  A100  08:00:00.250
2 of 2 lanes busy, 1 suspended; 11 requests wait; all is done in 70.0 ms; 1 running batches will be late

running   rows  class  ends in ms  slack ms  beside
resnet50     8      1        12.3      -3.0  vgg19 × 4 (2)
vgg19        4      2       105.0     +20.0  resnet50 × 8, vgg19 × 4
vgg19        4      2         5.0         –  resnet50 × 8, vgg19 × 4

waiting   requests  rows by class  req/s  alone ms  slo ms  slack of a new one ms
resnet50        11  1: 3  2: 10     50.0       5.0    80.0                   +4.0
vgg19            0  –                0.0      20.0       –                      –"""


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_frame() -> None:
    earlier = [replace(MODELS[0], arrivals=40), MODELS[1]]
    before = replace(SNAPSHOT, at_ns=SNAPSHOT.at_ns - 2_000 * MS, models=earlier)
    assert "\n".join(frame(SNAPSHOT, before)) == FRAME


def test_rates_need_an_earlier_snapshot_of_the_same_publisher() -> None:
    other = replace(SNAPSHOT, publisher="another", at_ns=SNAPSHOT.at_ns - MS)
    for before in (None, SNAPSHOT, other):
        assert frame(SNAPSHOT, before)[-2].split()[-4] == "–"


def test_an_idle_device() -> None:
    lines = frame(replace(SNAPSHOT, running=[], models=[], backlog_ns=0))
    assert lines[1].startswith("0 of 2 lanes busy; 0 requests wait")
    assert lines.count("–") == 2


def test_a_device_that_exists_in_software_only_says_so() -> None:
    assert "EMULATED" in frame(replace(SNAPSHOT, machine=MachineFacts("a100", emulated=True)))[0]


def test_a_frame_is_bounded_and_holds_no_commands_for_a_terminal() -> None:
    models = [replace(MODELS[0], name="\x1b[2J\n" + "m" * 500) for _ in range(MAX_MODELS)]
    running = [replace(RUNNING[0], model=f"\x07{i}") for i in range(MAX_RUNNING)]
    lines = frame(replace(SNAPSHOT, models=models, running=running))
    assert len(lines) < 80
    assert max(map(len, lines)) < 400
    assert all(line.isprintable() for line in lines)
    assert f"… and {MAX_MODELS - 32} more models" in lines
