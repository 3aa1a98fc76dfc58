"""Counters, histograms and gauges of a model, as plain numbers; `exporter` carries them to Triton's /metrics.

A call of Triton's metrics costs some 50 µs, so nothing here calls it: counts gather, and only what changed is sent.
For the same reason a histogram is exported as its cumulative `_bucket`, `_sum` and `_count` series.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from backend.model_process.batch import Answered, Batch
from backend.model_process.request import Pending
from backend.scheduler.messages import INTERFERENCE_MODELS_MAX, NOT_EXPLAINED, Decided, Launch, Reject

_TIMES_US = (500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6)
_TRANSFERS_US = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_SLOWDOWNS = (0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 3.0, 5.0, 10.0)
_ERRORS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_DECISIONS_US = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 5e3)


@dataclass(frozen=True)
class Metric:
    """Metric of the public contract. values: of `label`, if it has one, from the start on; buckets: upper bounds of a
    histogram.

    gauge: goes up and down, and has the label `device`; without buckets anything else is a counter.
    """

    description: str
    label: str = ""
    values: tuple[str, ...] = ("",)
    buckets: tuple[float, ...] = ()
    gauge: bool = False


METRICS = {
    "isochrone_requests_total": Metric(
        "Answered requests", "outcome", ("met", "missed", "rejected", "failed", "cancelled")
    ),
    "isochrone_request_latency_us": Metric("From arrival at the backend to the answer", buckets=_TIMES_US),
    "isochrone_queue_us": Metric("From arrival at the backend to the launch", buckets=_TIMES_US),
    "isochrone_execution_us": Metric("Measured execution of a batch", buckets=_TIMES_US),
    "isochrone_transfer_us": Metric(
        "Measured transfer of a batch's inputs to the device, or of its outputs back",
        "direction",
        ("in", "out"),
        buckets=_TRANSFERS_US,
    ),
    "isochrone_batches_total": Metric("Batches that were run"),
    "isochrone_preempted_total": Metric("Batches that were suspended for a while, for one with less time"),
    "isochrone_batches_rerun_total": Metric("Batches that ran again in parts, as they failed or had other rows"),
    "isochrone_batch_size": Metric("Rows of a batch", buckets=_SIZES),
    "isochrone_slowdown_ratio": Metric(
        "Measured execution / solo latency as learned at its launch", buckets=_SLOWDOWNS
    ),
    "isochrone_prediction_error_ratio": Metric("|predicted - measured| / measured execution", buckets=_ERRORS),
    "isochrone_bound_held_total": Metric(
        "Batches whose execution stayed within its predicted upper bound", "held", ("true", "false")
    ),
    "isochrone_decisions_total": Metric(
        "Decisions of the scheduler", "decision", ("launch", "hold", "split", "reject")
    ),
    "isochrone_fail_open_total": Metric("Batches launched in order of arrival because no scheduler answered"),
    "isochrone_samples_lost_total": Metric("Samples of finished batches that could not be written"),
    "isochrone_decision_us": Metric("Time that the scheduler took to decide", buckets=_DECISIONS_US),
    "isochrone_interference_seconds_total": Metric(
        "Execution of batches beyond what they take alone, by the model of the co-runner that caused it",
        "by",
        (NOT_EXPLAINED,),
    ),
    "isochrone_waiting_requests": Metric("Requests that wait", gauge=True),
    "isochrone_running_batches": Metric("Batches that run", gauge=True),
    "isochrone_backlog_ms": Metric(
        "Part of the predicted time until the device has done all its work; models' parts add up", gauge=True
    ),
}


@dataclass(frozen=True)
class Series:
    """Line of /metrics: its full name and the labels besides `model` and `version`."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass
class _Histogram:
    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0


class Metrics:
    """Counts of one model's process. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histograms: dict[Series, _Histogram] = {}
        self._counters: dict[Series, float] = {}
        self._suffered_by = 0
        """Models in `isochrone_interference_seconds_total`."""
        self.read_gauges: Callable[[], Mapping[str, float]] = dict
        """Reads the gauges' present values by name; one that is not among them is 0."""
        for name, metric in METRICS.items():
            for value in metric.values:
                if metric.buckets:
                    counts = [0] * (len(metric.buckets) + 1)
                    self._histograms[_labelled(name, value)] = _Histogram(metric.buckets, counts)
                elif not metric.gauge:
                    self._counters[_labelled(name, value)] = 0

    def count(self, name: str, value: str = "", by: int = 1) -> None:
        """Add to a counter, at the given value of its label."""
        with self._lock:
            self._counters[_labelled(name, value)] += by

    def observe(self, name: str, value: float, at: str = "") -> None:
        """Add a value to a histogram, that at the given value of its label."""
        with self._lock:
            histogram = self._histograms[_labelled(name, at)]
            histogram.counts[bisect_left(histogram.bounds, value)] += 1
            histogram.sum += value

    def request_served(self, request: Pending, now_ns: int) -> None:
        """Record a request whose outputs were sent."""
        met = request.deadline_ns is None or now_ns <= request.deadline_ns
        self.count("isochrone_requests_total", "met" if met else "missed")
        self.observe("isochrone_request_latency_us", (now_ns - request.arrival_ns) / 1e3)

    def decided(self, decided: Decided) -> None:
        """Record decisions of the scheduler, how long they took, and what it reports."""
        if decided.interference:
            self._suffered(decided.interference)
        if decided.samples_lost:
            self.count("isochrone_samples_lost_total", by=decided.samples_lost)
        if any(isinstance(command, Launch | Reject) for command in decided.commands):
            self.observe("isochrone_decision_us", decided.took_ns / 1e3)
        for command in decided.commands:
            if isinstance(command, Launch):
                self.count("isochrone_decisions_total", command.decision)
                if command.holds:
                    self.count("isochrone_decisions_total", "hold", command.holds)
            elif isinstance(command, Reject):
                self.count("isochrone_decisions_total", "reject")

    def _suffered(self, interference: Sequence[tuple[str, int]]) -> None:
        with self._lock:
            for by, more_ns in interference:
                series = _labelled("isochrone_interference_seconds_total", by)
                if series not in self._counters:
                    if self._suffered_by >= INTERFERENCE_MODELS_MAX:  # by the models of several schedulers in turn
                        continue
                    self._suffered_by += 1
                self._counters[series] = self._counters.get(series, 0.0) + more_ns / 1e9

    def batch_ended(self, batch: Batch, answers: Sequence[Answered]) -> None:
        """Record a batch that was answered."""
        if batch.launch is None:
            self.count("isochrone_fail_open_total")
        if batch.rerun:
            self.count("isochrone_batches_rerun_total")
        for request in batch.requests:
            self.observe("isochrone_queue_us", (batch.launched_ns - request.arrival_ns) / 1e3)
        if not all(isinstance(answer, Exception) for answer in answers):
            self._batch_ran(batch)

    def _batch_ran(self, batch: Batch) -> None:
        execution_us = batch.exec_ns / 1e3
        self.observe("isochrone_execution_us", execution_us)
        for direction, transfer_ns in (("in", batch.transfer_in_ns), ("out", batch.transfer_out_ns)):
            if transfer_ns:
                self.observe("isochrone_transfer_us", transfer_ns / 1e3, direction)
        self.count("isochrone_batches_total")
        self.observe("isochrone_batch_size", batch.rows)
        launch = batch.launch
        if batch.preempted:
            self.count("isochrone_preempted_total")
        if launch is None or batch.preempted or not batch.whole:
            return
        times = launch.times
        self.observe("isochrone_slowdown_ratio", batch.exec_ns / times.solo_ns)
        self.observe("isochrone_prediction_error_ratio", abs(times.predicted_ns - batch.exec_ns) / batch.exec_ns)
        self.count("isochrone_bound_held_total", "true" if batch.exec_ns <= times.bound_ns else "false")

    def values(self) -> Iterator[tuple[Series, float]]:
        """Series as /metrics shows them, histograms cumulative."""
        return chain(*self.together(), self.gauges())

    def gauges(self) -> list[tuple[Series, float]]:
        """Series of all gauges, as of now."""
        values = self.read_gauges()
        return [(_labelled(name, ""), values.get(name, 0.0)) for name, metric in METRICS.items() if metric.gauge]

    def together(self) -> list[list[tuple[Series, float]]]:
        """Series of counters and histograms in groups to export together: a part of a histogram's would be false."""
        with self._lock:
            counters = [[(series, value)] for series, value in self._counters.items()]
            return [*counters, *(list(_series(base, histogram)) for base, histogram in self._histograms.items())]


def _series(base: Series, histogram: _Histogram) -> Iterator[tuple[Series, float]]:
    name, labels, cumulative = base.name, base.labels, 0
    bounds = (*(f"{b:g}" if b < 1e6 else f"{b:.0f}" for b in histogram.bounds), "+Inf")
    for bound, count in zip(bounds, histogram.counts, strict=True):
        cumulative += count
        yield Series(f"{name}_bucket", (*labels, ("le", bound))), cumulative
    yield Series(f"{name}_count", labels), cumulative
    yield Series(f"{name}_sum", labels), histogram.sum


def _labelled(name: str, value: str) -> Series:
    label = METRICS[name].label
    return Series(name, ((label, value),) if label else ())
