"""Reports to models' processes: how often, and that no interference is lost or told twice."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from backend.scheduler.messages import Decided, Launch
from backend.scheduler_process.reporting import DeviceReporter
from tests.fakes.builders import MS, Device, join, profile


@pytest.fixture
def device() -> Device:
    found = Device(2)
    for source, model in ((1, "a"), (2, "b")):
        found.join(source, join(profile(10.0, 1.0), model=model))
    return found


def run_beside_each_other(device: Device, exec_ms: float = 13.0) -> None:
    commands = [*device.ask(1), *device.ask(2)]
    launches = [command for command in commands if isinstance(command, Launch)]
    device.at(device.now_ms + exec_ms)
    for launch in launches:
        device.finish(launch, exec_ms)


def test_a_report_goes_along_at_most_ten_times_a_second(device: Device) -> None:
    reporter, told = DeviceReporter("cpu"), Counter[str]()
    reports = 0
    for _ in range(50):
        run_beside_each_other(device)
        decided = reporter.with_report(Decided((), 7), device.core, 1, device.now_ns)
        assert (decided.commands, decided.took_ns) == ((), 7)
        reports += decided.backlog_ns is not None
        told.update(dict(decided.interference))
    assert reports == 7  # in 650 ms, of which each 104
    for source, decided in reporter.overdue(device.core, device.now_ns + 2_000 * MS):
        told.update(dict(decided.interference) if source == 1 else {})
    suffered = device.core.sources[1].interference
    assert set(told) == set(suffered)
    assert {by: told[by] for by in told} == {by: int(suffered_ns) for by, suffered_ns in suffered.items()}


def test_what_no_message_came_along_for_is_reported_by_itself_once(device: Device) -> None:
    reporter = DeviceReporter("cpu")
    assert reporter.overdue(device.core, device.now_ns) == []
    run_beside_each_other(device)
    assert reporter.overdue(device.core, device.now_ns) == [], "it was looked a moment ago"
    later_ns = device.now_ns + 1_000 * MS
    assert [(source, decided.interference) for source, decided in reporter.overdue(device.core, later_ns)] == [
        (1, (("b", 3 * MS),)),
        (2, (("a", 3 * MS),)),
    ]
    assert reporter.overdue(device.core, later_ns + 1_000 * MS) == []


def test_a_process_that_left_is_not_remembered(device: Device) -> None:
    reporter = DeviceReporter("cpu")
    run_beside_each_other(device)
    assert reporter.with_report(Decided((), 0), device.core, 1, device.now_ns).interference
    device.core.leave(1, device.now_ns)
    reporter.left(1)
    device.join(1, join(profile(10.0, 1.0), model="c"))
    run_beside_each_other(device)
    assert reporter.with_report(Decided((), 0), device.core, 1, device.now_ns).interference == (("b", 3 * MS),)


def test_a_report_that_fails_costs_no_decision(
    device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter, decided = DeviceReporter("cpu"), Decided((), 7)
    monkeypatch.setattr(device.core.sources[1], "interference", None)
    with caplog.at_level(logging.ERROR):
        assert reporter.with_report(decided, device.core, 1, device.now_ns) is decided
    assert "reported" in caplog.text
