"""Counts and histograms as /metrics shows them."""

from __future__ import annotations

import threading

import pytest
from msgspec.structs import replace

from backend.model_process.batch import Batch
from backend.model_process.metrics import METRICS, Metrics, Series
from backend.scheduler.messages import INTERFERENCE_MODELS_MAX, BatchTimes, Decided, Launch

_CONTRACT = {
    "isochrone_requests_total",
    "isochrone_request_latency_us",
    "isochrone_queue_us",
    "isochrone_execution_us",
    "isochrone_transfer_us",
    "isochrone_batches_total",
    "isochrone_preempted_total",
    "isochrone_batch_size",
    "isochrone_slowdown_ratio",
    "isochrone_prediction_error_ratio",
    "isochrone_bound_held_total",
    "isochrone_decisions_total",
    "isochrone_fail_open_total",
    "isochrone_batches_rerun_total",
    "isochrone_samples_lost_total",
    "isochrone_decision_us",
    "isochrone_interference_seconds_total",
    "isochrone_waiting_requests",
    "isochrone_running_batches",
    "isochrone_backlog_ms",
}


LAUNCH = Launch(1, 1, 0, False, (), BatchTimes(10_000_000, 12_000_000, 15_000_000), "launch", 0)
"""Launch of batches without requests, which are whole then."""


def shown(metrics: Metrics) -> dict[str, float]:
    """By name{label=value}."""
    return {s.name + "".join(f"{{{k}={v}}}" for k, v in s.labels): value for s, value in metrics.values()}


def ended(metrics: Metrics, exec_ns: int, launch: Launch | None) -> None:
    batch = Batch(1, 0, [], launch, 0)
    batch.exec_ns, batch.rows = exec_ns, 3
    metrics.batch_ended(batch, [[]])


def test_the_metrics_are_the_documented_ones_and_all_are_there_from_the_start() -> None:
    assert set(METRICS) == _CONTRACT
    values = shown(Metrics())
    assert set(values.values()) == {0}
    for outcome in ("met", "missed", "rejected", "failed", "cancelled"):
        assert f"isochrone_requests_total{{outcome={outcome}}}" in values
    for decision in ("launch", "hold", "split", "reject"):
        assert f"isochrone_decisions_total{{decision={decision}}}" in values
    for held in ("true", "false"):
        assert f"isochrone_bound_held_total{{held={held}}}" in values
    for direction in ("in", "out"):
        assert f"isochrone_transfer_us_count{{direction={direction}}}" in values
    assert "isochrone_batches_total" in values


def test_a_counter_counts_at_its_label() -> None:
    metrics = Metrics()
    metrics.count("isochrone_decisions_total", "hold", 3)
    metrics.count("isochrone_decisions_total", "hold")
    metrics.count("isochrone_fail_open_total")
    values = shown(metrics)
    assert values["isochrone_decisions_total{decision=hold}"] == 4
    assert values["isochrone_decisions_total{decision=launch}"] == 0
    assert values["isochrone_fail_open_total"] == 1


def test_interference_counts_by_who_caused_it_from_the_first_report_on() -> None:
    metrics = Metrics()
    assert [name for name in shown(metrics) if "interference" in name] == [
        "isochrone_interference_seconds_total{by=not explained}"
    ]
    metrics.decided(Decided((), 0, interference=(("vgg19", 1_500_000_000), ("not explained", 1))))
    metrics.decided(Decided((), 0, interference=(("vgg19", 500_000_000),)))
    assert {name: value for name, value in shown(metrics).items() if "interference" in name} == {
        "isochrone_interference_seconds_total{by=vgg19}": 2.0,
        "isochrone_interference_seconds_total{by=not explained}": 1e-9,
    }


def test_interference_has_a_bounded_number_of_series() -> None:
    """Several schedulers in turn may each report as many models as one may."""
    metrics = Metrics()
    for number in range(3 * INTERFERENCE_MODELS_MAX):
        metrics.decided(Decided((), 0, interference=((f"m{number}", 1_000),)))
        metrics.decided(Decided((), 0, interference=(("m0", 1_000),)))
    found = [name for name in shown(metrics) if "interference" in name]
    assert len(found) == INTERFERENCE_MODELS_MAX + 1
    assert shown(metrics)["isochrone_interference_seconds_total{by=m0}"] == pytest.approx(
        (3 * INTERFERENCE_MODELS_MAX + 1) / 1e6
    )


def test_a_label_that_is_none_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Metrics().count("isochrone_requests_total", "lost")


def test_buckets_are_cumulative_and_a_value_on_a_bound_is_within_it() -> None:
    metrics = Metrics()
    for value in (1.0, 2.0, 2.5, 1_000.0):
        metrics.observe("isochrone_batch_size", value)
    values = shown(metrics)
    buckets = [values[f"isochrone_batch_size_bucket{{le={le}}}"] for le in (1, 2, 4, 8, 16, 32, 64, 128, "+Inf")]
    assert buckets == [1, 2, 3, 3, 3, 3, 3, 3, 4]
    assert (values["isochrone_batch_size_count"], values["isochrone_batch_size_sum"]) == (4, 1_005.5)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.buckets])
def test_the_bounds_of_a_histogram_ascend_and_read_as_themselves(name: str) -> None:
    metric = METRICS[name]
    for value in metric.values:
        own = {(metric.label, value)} if metric.label else set()
        bounds = [
            dict(s.labels)["le"] for s, _ in Metrics().values() if s.name == f"{name}_bucket" and own <= set(s.labels)
        ]
        assert [float(b) for b in bounds] == [*sorted(metric.buckets), float("inf")]
        assert len(set(bounds)) == len(bounds)
        assert bounds[-1] == "+Inf"
        assert not any("e" in b for b in bounds)


def test_the_series_of_a_histogram_stay_together() -> None:
    metrics = Metrics()
    metrics.observe("isochrone_queue_us", 120.0)
    together = metrics.together()
    assert [*(pair for part in together for pair in part), *metrics.gauges()] == list(metrics.values())
    for part in together:
        names = {series.name for series, _ in part}
        if len(part) > 1:
            (base,) = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in names}
            assert names == {f"{base}_bucket", f"{base}_count", f"{base}_sum"}
            metric = METRICS[base]
            assert metric.buckets
            (labels,) = {tuple(pair for pair in series.labels if pair[0] != "le") for series, _ in part}
            assert labels in {((metric.label, value),) if metric.label else () for value in metric.values}
    assert sum(len(part) > 1 for part in together) == sum(len(m.values) for m in METRICS.values() if m.buckets)


def test_a_batch_that_the_scheduler_launched_counts_its_prediction() -> None:
    metrics = Metrics()
    ended(metrics, 15_000_000, LAUNCH)
    ended(metrics, 15_000_001, LAUNCH)
    values = shown(metrics)
    assert values["isochrone_batches_total"] == 2
    assert values["isochrone_batch_size_sum"] == 6
    assert values["isochrone_execution_us_sum"] == pytest.approx(30_000, abs=0.01)
    assert values["isochrone_slowdown_ratio_sum"] == pytest.approx(3.0)
    assert values["isochrone_prediction_error_ratio_sum"] == pytest.approx(0.4)
    assert values["isochrone_bound_held_total{held=true}"] == 1 == values["isochrone_bound_held_total{held=false}"]


def test_a_batch_that_cancellations_made_smaller_tells_nothing_of_its_prediction() -> None:
    metrics = Metrics()
    ended(metrics, 2_000_000, replace(LAUNCH, requests=(1, 2, 3)))
    values = shown(metrics)
    assert values["isochrone_execution_us_count"] == values["isochrone_batches_total"] == 1
    for name in ("slowdown_ratio_count", "prediction_error_ratio_count", "bound_held_total{held=true}"):
        assert values[f"isochrone_{name}"] == 0


def test_a_batch_that_was_suspended_tells_nothing_of_its_prediction() -> None:
    metrics = Metrics()
    batch = Batch(1, 0, [], LAUNCH, 0)
    batch.exec_ns, batch.preempted = 40_000_000, True
    metrics.batch_ended(batch, [[]])
    values = shown(metrics)
    assert values["isochrone_batches_total"] == values["isochrone_preempted_total"] == 1
    assert values["isochrone_execution_us_count"] == 1
    for name in ("slowdown_ratio_count", "prediction_error_ratio_count", "bound_held_total{held=false}"):
        assert values[f"isochrone_{name}"] == 0


def test_transfers_are_counted_by_their_direction_and_only_where_something_moved() -> None:
    metrics = Metrics()
    batch = Batch(1, 0, [], None, 0)
    batch.exec_ns = batch.rows = 1
    metrics.batch_ended(batch, [[]])
    batch.transfer_in_ns, batch.transfer_out_ns = 60_000, 15_000
    metrics.batch_ended(batch, [[]])
    batch.transfer_out_ns = 0
    metrics.batch_ended(batch, [[]])
    values = shown(metrics)
    sums = [
        values[f"isochrone_transfer_us_{part}{{direction={d}}}"] for d in ("in", "out") for part in ("count", "sum")
    ]
    assert sums == [2, 120.0, 1, 15.0]
    buckets = [values[f"isochrone_transfer_us_bucket{{direction=in}}{{le={le}}}"] for le in ("50", "100", "+Inf")]
    assert buckets == [0, 2, 2]


def test_a_batch_without_a_scheduler_has_no_prediction() -> None:
    metrics = Metrics()
    ended(metrics, 5_000_000, None)
    values = shown(metrics)
    assert (values["isochrone_batches_total"], values["isochrone_slowdown_ratio_count"]) == (1, 0)


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(500):
            metrics.count("isochrone_batches_total")
            metrics.observe("isochrone_queue_us", 3.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = dict(metrics.values())
    assert values[Series("isochrone_batches_total")] == values[Series("isochrone_queue_us_count")] == 2_000


def test_gauges_are_read_when_they_are_asked_for() -> None:
    metrics, waiting = Metrics(), [3.0]
    metrics.read_gauges = lambda: {"isochrone_waiting_requests": waiting[0]}
    assert shown(metrics)["isochrone_waiting_requests"] == 3
    waiting[0] = 5.0
    assert {series.name: value for series, value in metrics.gauges()} == {
        "isochrone_waiting_requests": 5,
        "isochrone_running_batches": 0,
        "isochrone_backlog_ms": 0,
    }
