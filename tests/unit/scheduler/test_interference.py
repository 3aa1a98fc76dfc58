"""Interference that batches suffered, as it adds up in a scheduler: whose, by whom, and nothing lost on the way."""

from __future__ import annotations

from collections import Counter

import pytest

from backend.scheduler.core import Scheduler
from backend.scheduler.messages import INTERFERENCE_MODELS_MAX, NOT_EXPLAINED, Finish, Launch
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from predictor.features import CoRunner
from predictor.learners.isochrone import Isochrone
from tests.fakes.builders import MS, Device, join, only_launch, profile


def suffered_ms(device: Device, source: int) -> dict[str, float]:
    return {by: ns / MS for by, ns in device.core.sources[source].interference.items()}


def device_of(lanes: int, *models: tuple[str, float], cores: int | None = None) -> Device:
    """Models of 10 ms with these shares of the device's compute, of which each slows the others down by 0.3 ×."""
    device = Device(lanes, cores)
    for source, (model, compute) in enumerate(models, start=1):
        device.join(source, join(profile(10.0, compute), model=model))
    return device


def test_a_batch_charges_its_only_co_runner() -> None:
    device = device_of(2, ("a", 0.0), ("b", 1.0))
    mine, others = only_launch(device.ask(1)), only_launch(device.ask(2))
    device.at(13.0).finish(mine, 13.0)
    device.finish(others, 9.0)
    assert suffered_ms(device, 1) == {"b": pytest.approx(3.0)}
    assert suffered_ms(device, 2) == {}, "less than its solo latency is nothing"


def test_co_runners_are_charged_by_what_they_are_expected_to_add_over_their_overlaps() -> None:
    device = device_of(3, ("a", 0.0), ("b", 1.0), ("c", 0.5))
    mine = only_launch(device.ask(1))
    b, c = only_launch(device.ask(2)), only_launch(device.ask(3))
    device.at(7.0).finish(b, 7.0)
    device.at(14.0).finish(mine, 14.0)
    device.finish(c, 14.0)
    assert suffered_ms(device, 1) == {"b": pytest.approx(2.0), "c": pytest.approx(2.0)}  # 0.3 · ½ and 0.15 · 1


def test_a_co_runner_on_the_same_core_is_charged_most() -> None:
    device = Device(4, cores=2, predictor=Isochrone())
    for source, model in enumerate(("a", "far", "near"), start=1):
        device.join(source, join(profile(10.0, 0.1), model=model))
    mine, far, near = (only_launch(device.ask(source)) for source in (1, 2, 3))
    assert [launch.lane % 2 for launch in (mine, far, near)] == [0, 1, 0]
    for launch in (mine, far, near):
        device.at(20.0).finish(launch, 20.0)
    found = suffered_ms(device, 1)
    assert found["near"] > 5 * found["far"]


def test_nobody_is_charged_for_a_batch_that_was_alone() -> None:
    device = device_of(2, ("a", 0.0), ("b", 1.0))
    for _ in range(9):
        device.finish(only_launch(device.ask(1)), 10.0)
    device.at(25.0).finish(only_launch(device.ask(1)), 25.0)
    assert suffered_ms(device, 1) == {NOT_EXPLAINED: pytest.approx(15.0)}


def test_a_batch_that_was_stopped_charges_no_more_than_can_be_explained() -> None:
    device = device_of(2, ("a", 0.0), ("b", 1.0))
    mine, others = only_launch(device.ask(1)), only_launch(device.ask(2))
    device.at(1_000.0).finish(mine, 1_000.0)
    device.finish(others, 1_000.0)
    found = suffered_ms(device, 1)
    assert sum(found.values()) == pytest.approx(990.0)
    assert 3.0 < found["b"] < 20.0


def test_a_failed_batch_and_one_that_was_suspended_charge_nobody() -> None:
    device = Device(1)
    device.join(1, join(profile(100.0), model="long", preemptible_lanes=1))
    device.join(2, join(profile(10.0), model="short", preemptible_lanes=1))
    long = only_launch(device.ask(1))
    *_, short = device.at(10.0).ask(2, slo_ms=30.0)
    assert isinstance(short, Launch)
    device.at(20.0).finish(short)
    device.at(200.0).finish(long, 200.0)
    assert suffered_ms(device, 1) == suffered_ms(device, 2) == {}


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_all_that_batches_took_beyond_solo_is_charged_once(lanes: int) -> None:
    """Conservation, with the learner that serves, over a load in which everything overlaps anyhow."""
    excess: Counter[int] = Counter()

    def note(source: Source, batch: RunningBatch, finish: Finish, _: list[CoRunner]) -> None:
        assert finish.exec_ns is not None
        excess[source.id] += max(0, finish.exec_ns - batch.own.load.solo_ns)

    device = Device(lanes)
    device.core = Scheduler(lanes, note)
    for source in range(1, 5):
        device.join(source, join(profile(4.0 * source, 0.2 * source), model=f"m{source}"))
    running: list[tuple[float, Launch]] = []
    for number in range(400):
        commands = device.ask(1 + number * 7 % 4)
        while True:
            running += [(device.now_ms, command) for command in commands if isinstance(command, Launch)]
            if len(running) < lanes:
                break
            device.at(device.now_ms + 1.0 + number * 13 % 11)
            began_ms, launch = running.pop(number % len(running))
            commands = device.finish(launch, max(0.1, device.now_ms - began_ms))
    suffered = {source: sum(device.core.sources[source].interference.values()) for source in excess}
    assert sum(excess.values()) > 100 * MS
    assert suffered == pytest.approx(dict(excess), rel=1e-9)


def test_beyond_the_most_models_nothing_is_added_any_more() -> None:
    device = device_of(2, *((f"m{number}", 1.0) for number in range(INTERFERENCE_MODELS_MAX + 1)))
    for source in range(2, INTERFERENCE_MODELS_MAX + 2):
        first, second = only_launch(device.ask(1)), only_launch(device.ask(source))
        before = suffered_ms(device, 1)
        device.at(device.now_ms + 13.0)
        device.finish(first, 13.0)
        device.finish(second, 13.0)
        assert device.core.latency.interference.off == (source == INTERFERENCE_MODELS_MAX + 1)
        assert (suffered_ms(device, 1) == before) == device.core.latency.interference.off
