"""A device as it is described to others, on schedulers whose forecasts can be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backend.fleet.snapshot import MAX_CLASSES, MAX_MODELS, DeviceSnapshot, MachineFacts, decode, encode
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Adopt, AdoptedBatch, Arrive, Take
from backend.scheduler_process.device_snapshot import DeviceDescription
from backend.scheduler_process.event_file import read_stretches
from backend.scheduler_process.replay import Replay
from predictor.learners.isochrone import Isochrone
from tests.fakes.builders import MS, Device, join, only_launch, profile
from tests.fakes.recorded import Recorded

UNIX_NS = 1_800_000_000_000_000_000


class Described:
    """A device, and its description."""

    def __init__(self, lanes: int = 1, **options: Any) -> None:
        self.device = Device(lanes, **options)
        self.description = DeviceDescription("gpu-0", "me")

    def ask(self, source: int, *, slo_ms: float | None = None, priority: int = 1, rows: int = 1) -> list[Any]:
        commands = self.device.ask(source, slo_ms, priority=priority, rows=rows)
        self.description.arrived(self.device.core.sources[source], 1)
        return commands

    def now(self) -> DeviceSnapshot:
        found = self.description.snapshot(self.device.core, self.device.now_ns, UNIX_NS)
        assert decode(encode(found)) == found
        return found

    def part_ms(self, source: int) -> float:
        core = self.device.core
        return self.description.backlog_ns(core, core.sources[source], self.device.now_ns) / MS


def test_an_idle_device() -> None:
    described = Described(2)
    described.device.join(1, replace(join(profile(10.0), model="a"), slo_ns=50 * MS))
    first, second = described.now(), described.now()
    assert (first.publisher, first.device, first.lanes, first.at_ns) == ("me", "gpu-0", 2, UNIX_NS)
    assert (first.sequence, second.sequence) == (1, 2)
    assert (first.backlog_ns, first.running) == (0, [])
    (model,) = first.models
    assert (model.name, model.version, model.max_batch_size, model.instances) == ("a", "1", 8, 1)
    assert (model.arrivals, model.waiting, model.waiting_requests, model.slo_ns) == (0, {}, 0, 50 * MS)
    assert model.solo_ns == [(1, 10 * MS), (2, 11 * MS), (4, 13 * MS), (8, 17 * MS)]


def test_a_device_without_any_model() -> None:
    found = Described().now()
    assert (found.models, found.running, found.backlog_ns) == ([], [], 0)
    assert found.machine == MachineFacts("gpu-0", emulated=False)


def test_what_runs_and_how_long_it_will() -> None:
    described = Described(2)
    described.device.join(1, join(profile(10.0)))
    described.ask(1, slo_ms=30.0, priority=2, rows=2)
    described.device.at(4.0)
    (running,) = described.now().running
    assert (running.model, running.rows, running.priority) == ("m", 2, 2)
    assert running.remaining_ns == 7 * MS
    assert running.slack_ns == 30 * MS - 4 * MS - 7 * MS


def test_a_batch_that_outlives_its_prediction_has_a_little_left() -> None:
    described = Described()
    described.device.join(1, join(profile(10.0)))
    described.ask(1)
    described.device.at(500.0)
    (running,) = described.now().running
    assert running.slack_ns is None
    assert running.remaining_ns == MS // 2


def test_a_co_runner_lengthens_what_remains() -> None:
    described = Described(2)
    described.device.join(1, join(profile(10.0), model="a"))
    described.device.join(2, join(profile(20.0, 1.0), model="b"))
    described.ask(1)
    described.ask(2)
    found = {running.model: running.remaining_ns for running in described.now().running}
    assert found == {"a": 13 * MS, "b": 20 * MS}  # 1 + 0.3 compute


def test_a_suspended_batch_waits_for_the_one_that_preempts_it() -> None:
    described = Described()
    described.device.join(1, join(profile(100.0), model="long", preemptible_lanes=1))
    described.device.join(2, join(profile(10.0), model="short", preemptible_lanes=1))
    described.ask(1)
    described.device.at(10.0)
    described.ask(2, slo_ms=30.0)
    assert {running.model: running.remaining_ns for running in described.now().running} == {
        "long": 100 * MS,
        "short": 10 * MS,
    }


def test_waiting_rows_are_told_by_class() -> None:
    described = Described()
    described.device.join(1, join(profile(10.0)))
    described.ask(1)
    for priority, rows in ((1, 1), (3, 2), (3, 1)):
        described.ask(1, priority=priority, rows=rows)
    (model,) = described.now().models
    assert (model.waiting, model.waiting_requests, model.arrivals) == ({"1": 1, "3": 3}, 3, 4)


def test_classes_beyond_the_most_count_as_of_the_last_one() -> None:
    described = Described()
    described.device.join(1, join(profile(10.0)))
    described.ask(1)
    for priority in range(1, MAX_CLASSES + 11):
        described.ask(1, priority=priority)
    (model,) = described.now().models
    assert list(model.waiting) == [str(priority) for priority in range(1, MAX_CLASSES + 1)]
    assert list(model.waiting.values()) == [1] * (MAX_CLASSES - 1) + [11]


# The backlog


def test_what_waits_drains_in_batches_as_large_as_they_grow() -> None:
    described = Described()
    described.device.join(1, join(profile(10.0)))
    described.ask(1)
    for _ in range(19):
        described.ask(1)
    described.device.at(4.0)
    assert described.part_ms(1) == 6 + 17 + 17 + 12  # what runs, 8 rows, 8 rows, 3 rows
    assert described.now().backlog_ns == 52 * MS


def test_a_model_that_does_not_batch_drains_one_by_one() -> None:
    described = Described()
    described.device.join(1, join(profile(10.0), max_batch_size=0))
    for _ in range(4):
        described.ask(1)
    assert described.part_ms(1) == 40
    assert described.now().models[0].max_batch_size == 1


def test_the_parts_of_models_add_up_to_the_devices() -> None:
    described = Described(2)
    for source, name in ((1, "a"), (2, "b"), (3, "idle")):
        described.device.join(source, join(profile(10.0, 0.5), model=name))
    for _ in range(20):
        described.ask(1)
        described.ask(2)
    described.device.at(3.0)
    parts = [described.part_ms(source) for source in (1, 2, 3)]
    assert parts[2] == 0
    assert sum(parts) == pytest.approx(described.now().backlog_ns / MS, abs=1e-5)


def test_lanes_drain_side_by_side_and_slow_each_other_down() -> None:
    one, two = Described(1), Described(2)
    for described in (one, two):
        described.device.join(1, join(profile(10.0, 1.0)))
        for _ in range(2 + 80):
            described.ask(1)
    ratio = one.part_ms(1) / two.part_ms(1)
    assert ratio == pytest.approx(2 / 1.3, rel=0.1)


def test_a_device_does_not_drain_before_its_longest_batch_is_done() -> None:
    described = Described(8)
    described.device.join(1, join(profile(10.0)))
    described.ask(1)
    assert described.now().backlog_ns == 10 * MS
    assert described.part_ms(1) == 10 / 8


def test_the_overhead_of_each_batch_is_part_of_the_backlog() -> None:
    described = Described()
    described.device.join(1, join(profile(10.0)))
    described.device.core.latency.overhead_ns = 2.0 * MS
    for _ in range(1 + 16):
        described.ask(1)
    assert described.part_ms(1) == 10 + 2 * (17 + 2)
    assert described.now().overhead_ns == 2 * MS


# Models


def test_instances_of_a_model_are_told_together() -> None:
    described = Described()
    for source in (1, 2):
        described.device.join(source, join(profile(10.0)))
        described.ask(source)
        described.ask(source, priority=source)
    (model,) = described.now().models
    assert (model.instances, model.arrivals, model.waiting_requests) == (2, 4, 3)
    assert sum(model.waiting.values()) == 3


def test_models_with_work_come_first_and_then_the_most_recently_used() -> None:
    described = Described()
    for source, name in enumerate("abcde", start=1):
        described.device.join(source, join(profile(1.0), model=name))
    for source in (4, 2, 5):
        launch = only_launch(described.ask(source))
        described.device.at(described.device.now_ms + 1.0)
        described.device.finish(launch)
    described.ask(4)
    assert [model.name for model in described.now().models] == ["d", "e", "b", "a", "c"]


def test_only_so_many_models_are_told() -> None:
    described = Described()
    for source in range(1, MAX_MODELS + 20):
        described.device.join(source, join(profile(1.0), model=f"m{source}"))
    described.ask(MAX_MODELS + 15)
    found = described.now()
    assert len(found.models) <= MAX_MODELS
    assert found.models[0].name == f"m{MAX_MODELS + 15}"


def test_arrivals_of_a_model_that_comes_back_go_on() -> None:
    described = Described()
    described.device.join(1, join(profile(10.0)))
    described.ask(1)
    described.device.core.leave(1, described.device.now_ns)
    assert described.now().models == []
    described.device.join(2, join(profile(10.0)))
    described.ask(2)
    assert described.now().models[0].arrivals == 2


def test_at_most_eight_solo_latencies_are_told() -> None:
    described = Described()
    sizes = tuple(range(1, 33))
    described.device.join(
        1, join(replace(profile(1.0), batch_sizes=sizes, loads=profile(1.0).loads * 8), max_batch_size=32)
    )
    told = [rows for rows, _ in described.now().models[0].solo_ns]
    assert len(told) == 8
    assert told == sorted(set(told))
    assert (told[0], told[-1]) == (1, 32)


def test_interference_is_as_the_learner_forecasts_it() -> None:
    predictor = Isochrone()
    described = Described(2, predictor=predictor)
    core = described.device.core
    described.device.join(1, join(profile(10.0, 0.6, 0.1, 0.3), model="a"))
    described.device.join(2, join(profile(10.0, 0.9, 0.2, 0.5), model="b"))
    told = {model.name: model for model in described.now().models}
    a, b = (core.sources[source].own(1, 0) for source in (1, 2))
    beside_b = told["a"].base + told["a"].sensitivity * told["b"].pressure
    function = predictor.slowdown_function(a)
    shares_apart = (0.0, 0.0, 0.0, *predictor.contribution(b)[3:])
    assert beside_b == pytest.approx(function.slowdown(shares_apart))
    assert told["b"].pressure > 0


def test_the_machine_is_as_a_models_process_describes_it() -> None:
    described = Described()
    facts = '{"name":"emulated T4","emulated":true,"compute_tflops":65.0,"more":1}'
    described.device.join(1, replace(join(profile(1.0)), machine="no JSON"))
    described.device.join(2, replace(join(profile(1.0)), machine=facts))
    assert described.now().machine == MachineFacts("emulated T4", emulated=True, compute_tflops=65.0)


# Nothing changes


class Watched(Recorded):
    """A recorded device that is described after each event."""

    description = DeviceDescription("cpu", "me")
    told = 0

    def handle(self, source: int, event: Any) -> Any:
        commands = super().handle(source, event)
        if isinstance(event, Arrive | Take):
            self.description.arrived(self.core.sources[source], 1)
        self.described()
        return commands

    def train(self) -> None:
        super().train()
        self.described()

    def described(self) -> None:
        before = self.core.device.as_of_ns
        found = self.description.snapshot(self.core, self.now_ns + 1000, UNIX_NS)
        assert decode(encode(found)) == found
        for source in self.core.sources.values():
            part_ns = self.description.backlog_ns(self.core, source, self.now_ns + 1000)
            assert (part_ns > 0) >= bool(source.queue)
        assert self.core.device.as_of_ns == before
        self.core.check_invariants()
        self.told += 1


def test_a_replay_without_descriptions_gives_the_same_decisions(tmp_path: Path) -> None:
    """Whatever is looked up for others is not kept where decisions would find it."""
    made = Watched(tmp_path / "events", core=Scheduler(4, cores=2, predictor=Isochrone()))
    with made:
        made.run(2_000)
        assert made.told > 1_000
    (stretch,) = read_stretches(tmp_path / "events")
    replay = Replay()
    scheduler = replay.run(stretch)
    assert replay.decisions > 500
    assert (replay.departures, replay.times_differ) == ([], 0)
    assert scheduler.latency.predictor.state() == made.core.latency.predictor.state()


def test_adopted_batches_are_told_too() -> None:
    described = Described()
    described.device.join(1, join(profile(10.0)))
    described.device.core.handle(1, Adopt((AdoptedBatch(-1, 4, 0),)), described.device.now_ns)
    (running,) = described.now().running
    assert (running.rows, running.priority, running.slack_ns, running.remaining_ns) == (4, 1, None, 13 * MS)


def test_a_model_that_is_only_loading_is_not_told() -> None:
    described = Described(1)
    described.device.join(1, join(profile(10.0), model="serving"))
    described.device.join(2, replace(join(profile(10.0), model="loading"), loading=True))
    described.ask(2, priority=9)
    found = described.now()
    assert [model.name for model in found.models] == ["serving"]
    assert [one.model for one in found.running] == ["loading"]  # but it takes a lane
    described.device.join(3, join(profile(10.0), model="loading"))
    assert {model.name: model.arrivals for model in described.now().models} == {"serving": 0, "loading": 0}
