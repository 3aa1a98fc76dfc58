"""What reaches Triton's counters and when, with a Triton that keeps account; the real one is in tests/server.

There nobody can look between two steps: a scrape of /metrics may fall into the middle of one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from backend.model_process.metrics import METRICS, Metrics
from backend.scheduler.messages import Decided

if TYPE_CHECKING:
    from backend.model_process.exporter import Exporter

HISTOGRAMS = [(name, value) for name, metric in METRICS.items() if metric.buckets for value in metric.values]
"""By the value of its label, which most have not."""
GAUGES = tuple(name for name, metric in METRICS.items() if metric.gauge)
LARGEST = max(len(metric.buckets) for metric in METRICS.values()) + 3
"""Series of a histogram: a bucket more than it has bounds, the count and the sum."""
Shown = dict[str, float]
"""By name{label=value}."""


class FakeTriton(ModuleType):
    """`triton_python_backend_utils` as far as metrics go."""

    def __init__(self) -> None:
        super().__init__("triton_python_backend_utils")
        self.shown: Shown = {}
        self.calls = self.sets = 0
        triton = self

        class Metric:
            def __init__(self, name: str, labels: Mapping[str, str]) -> None:
                assert (labels["model"], labels["version"]) == ("m", "1")
                own = [f"{{{k}={v}}}" for k, v in labels.items() if k not in ("model", "version")]
                self._key = name + "".join(own)
                triton.shown.setdefault(self._key, 0.0)  # processes with equal labels share it

            def increment(self, by: float) -> None:
                assert by > 0 or self._key.partition("{")[0] in GAUGES
                triton.shown[self._key] += by
                triton.calls += 1

            def set(self, value: float) -> None:
                assert self._key.partition("{")[0] in GAUGES
                triton.shown[self._key] = value
                triton.sets += 1

        class MetricFamily:
            COUNTER, GAUGE = 0, 1

            def __init__(self, *, name: str, description: str, kind: int) -> None:
                assert description
                assert kind == (self.GAUGE if name in GAUGES else self.COUNTER)
                self._name = name

            def Metric(self, *, labels: Mapping[str, str]) -> Metric:  # noqa: N802 - Triton's name
                return Metric(self._name, labels)

        self.MetricFamily = MetricFamily


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTriton]:
    fake = FakeTriton()
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    yield fake
    sys.modules.pop("backend.model_process.exporter", None)  # which has this Triton


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def exporter(triton: FakeTriton, metrics: Metrics) -> Exporter:
    assert triton.calls == 0
    return exporter_of(metrics)


def exporter_of(metrics: Metrics, *, emulated: bool = False, sole: bool = False) -> Exporter:
    """Another process' exporter, to the same Triton."""
    module = importlib.import_module("backend.model_process.exporter")
    made: Exporter = module.Exporter(metrics, "m", "1", "gpu-0", emulated=emulated, sole=sole)
    return made


def counted(metrics: Metrics) -> Shown:
    return {
        s.name + ("{device=gpu-0}" if s.name in GAUGES else "") + "".join(f"{{{k}={v}}}" for k, v in s.labels): value
        for s, value in metrics.values()
    }


def part(shown: Shown, name: str, at: str) -> Shown:
    own = f"{{{METRICS[name].label}={at}}}" if at else ""
    return {key: value for key, value in shown.items() if key.startswith(f"{name}_") and own in key}


def test_everything_is_there_from_the_start(triton: FakeTriton, exporter: Exporter, metrics: Metrics) -> None:
    assert triton.shown == counted(metrics)
    assert not exporter.step(4)
    assert triton.calls == 0


@pytest.mark.parametrize("calls", [1, 4, 11])
def test_between_two_steps_a_histogram_is_whole(
    triton: FakeTriton, exporter: Exporter, metrics: Metrics, calls: int
) -> None:
    """Shows on /metrics the counts of one moment, whatever is observed meanwhile."""
    random = np.random.default_rng(calls)
    moments = {histogram: [part(counted(metrics), *histogram)] for histogram in HISTOGRAMS}
    for _ in range(300):
        for name, at in (HISTOGRAMS[i] for i in random.integers(len(HISTOGRAMS), size=2)):
            value = float(random.choice([0.125, 1.5, 12.0, 3_000.0, 2.0**23]))  # sums of these are exact
            metrics.observe(name, value, at)
            metrics.count("isochrone_batches_total")
            moments[name, at].append(part(counted(metrics), name, at))
        before = triton.calls
        exporter.step(calls)
        assert triton.calls - before <= calls - 1 + LARGEST
        for histogram, moment in moments.items():
            shown = part(triton.shown, *histogram)
            assert shown in moment
            del moment[: moment.index(shown)]  # and it never goes back


def test_a_round_ends_once_all_is_sent_and_sends_nothing_twice(
    triton: FakeTriton, exporter: Exporter, metrics: Metrics
) -> None:
    metrics.count("isochrone_decisions_total", "hold", 3)
    metrics.observe("isochrone_queue_us", 700.0)
    rounds = [exporter.step(1) for _ in range(4)]
    assert rounds == [False, True, True, False]  # that of the start; the counter, the histogram, nothing else
    assert triton.shown == counted(metrics)
    calls = triton.calls
    exporter.flush()
    assert triton.calls == calls


def test_the_last_counts_are_flushed(triton: FakeTriton, exporter: Exporter, metrics: Metrics) -> None:
    exporter.step(1)
    for name, at in HISTOGRAMS:
        metrics.observe(name, 1.0, at)
    exporter.step(1)  # which leaves the round half done
    metrics.count("isochrone_fail_open_total")
    exporter.flush()
    assert triton.shown == counted(metrics)


def test_a_series_is_made_when_its_label_turns_up(triton: FakeTriton, exporter: Exporter, metrics: Metrics) -> None:
    for number in range(1, 4):
        report = tuple((f"m{other}", 250_000_000) for other in range(number))
        metrics.decided(Decided((), 0, interference=report))
        exporter.step(1)  # which leaves most to later ones
    exporter.flush()
    assert triton.shown == counted(metrics)
    assert triton.shown["isochrone_interference_seconds_total{by=m0}"] == 0.75
    other = exporter_of(Metrics())
    other.flush()
    assert triton.shown["isochrone_interference_seconds_total{by=m0}"] == 0.75


# Gauges


WAITING, RUNNING, BACKLOG = (f"{name}{{device=gpu-0}}" for name in GAUGES)


def loaded(metrics: Metrics, waiting: float, backlog_ms: float = 0.0) -> None:
    metrics.read_gauges = lambda: {"isochrone_waiting_requests": waiting, "isochrone_backlog_ms": backlog_ms}


def test_gauges_are_sent_at_each_step_as_they_are_then(
    triton: FakeTriton, exporter: Exporter, metrics: Metrics
) -> None:
    for waiting, backlog_ms in ((5, 20.5), (7, 3.0), (0, 0.0)):
        loaded(metrics, waiting, backlog_ms)
        exporter.step(1)
        assert (triton.shown[WAITING], triton.shown[BACKLOG]) == (waiting, backlog_ms)
    calls = triton.calls
    exporter.step(1)
    assert triton.calls == calls
    assert triton.shown[RUNNING] == 0


def test_gauges_of_processes_with_equal_labels_add_up(triton: FakeTriton, exporter: Exporter, metrics: Metrics) -> None:
    other_metrics = Metrics()
    other = exporter_of(other_metrics)
    loaded(metrics, 5, 20.0)
    loaded(other_metrics, 3, 1 / 3)
    exporter.step(1)
    other.step(1)
    assert triton.shown[WAITING] == 8
    assert triton.shown[BACKLOG] == pytest.approx(20 + 1 / 3, abs=1 / 32)
    loaded(metrics, 0)
    exporter.flush()
    assert triton.shown[WAITING] == 3
    loaded(other_metrics, 0)
    other.flush()
    assert triton.shown[WAITING] == triton.shown[BACKLOG] == 0  # to the last bit


def test_what_a_killed_process_left_is_cleared_by_the_sole_one_after_it(
    triton: FakeTriton, exporter: Exporter, metrics: Metrics
) -> None:
    loaded(metrics, 5, 20.0)
    exporter.step(1)
    exporter_of(Metrics(), sole=False)
    assert triton.shown[WAITING] == 5
    assert triton.sets == 0
    after = Metrics()
    following = exporter_of(after, sole=True)
    assert [triton.shown[key] for key in (WAITING, RUNNING, BACKLOG)] == [0, 0, 0]
    loaded(after, 2)
    following.step(1)
    assert triton.shown[WAITING] == 2


def test_on_an_emulated_device_everything_is_labelled_with_it(triton: FakeTriton, metrics: Metrics) -> None:
    exporter_of(metrics, emulated=True)
    assert all("{device=gpu-0}" in key for key in triton.shown)


def test_exporters_of_several_devices_send_what_each_has(triton: FakeTriton) -> None:
    module = importlib.import_module("backend.model_process.exporter")
    both = [Metrics(), Metrics()]
    exporters = module.Exporters([exporter_of(metrics) for metrics in both])
    for number, metrics in enumerate(both, start=1):
        metrics.count("isochrone_batches_total", by=number)
    exporters.step(1)
    exporters.step(1)
    assert triton.shown["isochrone_batches_total"] == 3.0  # without a device's label they share a counter
    both[1].count("isochrone_batches_total")
    exporters.flush()
    assert triton.shown["isochrone_batches_total"] == 4.0
