"""Carries a model's counts to Triton's /metrics, a few calls at a time. Used by one thread only."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from backend.model_process.metrics import METRICS, Metrics, Series


class Exporter:
    """Sends what has changed. Triton's metric objects are never given back, so a model's counts outlive its process.

    Instances of a model, and while it is reloaded its old and new process, have equal labels and so share Triton's
    counters. The first of them to delete its own would free what the others still use, and the server would crash
    (tritonserver 2.51 counts references per process; github.com/triton-inference-server/server/issues/8663).

    Gauges are shared the same way, so each process adds what its own part has changed by. What a killed process had
    added stays, until the first process of a later load of the model sets them to 0 as it begins: `sole` tells it that
    no other one has a part in them.
    """

    def __init__(
        self, metrics: Metrics, model: str, version: str, device: str, *, emulated: bool = False, sole: bool = False
    ) -> None:
        """device: a label of the gauges; where it is emulated of everything, so that nobody takes it for a GPU's."""
        self._metrics = metrics
        self._gauge_labels = {"model": model, "version": version, "device": device}
        self._labels = self._gauge_labels if emulated else {"model": model, "version": version}
        self._families: dict[str, Any] = {}
        self._series: dict[Series, Any] = {}
        self._sent: dict[Series, float] = {}
        self._round: Iterator[list[tuple[Series, float]]] = iter(())
        for series, _ in metrics.values():
            self._create(series)
        for series, _ in metrics.gauges() if sole else ():
            self._series[series].set(0.0)

    def step(self, calls: int) -> bool:
        """Send the gauges and some `calls` changed series; False when a round over all of these has just ended.

        A histogram that was begun is sent to its end: between two steps /metrics shows no part of one.
        """
        self._send_gauges()
        for together in self._round:
            for series, value in together:
                if series not in self._series:  # its label's value turned up meanwhile
                    self._create(series)
                    calls -= 1
                grown = value - self._sent[series]
                if grown > 0:
                    self._series[series].increment(grown)
                    self._sent[series] = value
                    calls -= 1
            if calls <= 0:
                return True
        self._round = iter(self._metrics.together())
        return False

    def flush(self) -> None:
        """Send everything that is left."""
        self._round = iter(self._metrics.together())
        while self.step(1_000_000):
            pass

    def _send_gauges(self) -> None:
        """Send those that changed, in steps of 1/16: sums of these are exact, so parts that go leave nothing behind."""
        for series, value in self._metrics.gauges():
            rounded = round(value * 16.0) / 16.0
            if change := rounded - self._sent[series]:
                self._series[series].increment(change)
                self._sent[series] = rounded

    def _create(self, series: Series) -> None:
        family = self._families.get(series.name)
        if family is None:
            base = series.name
            for suffix in ("_bucket", "_count", "_sum"):
                base = base if base in METRICS else series.name.removesuffix(suffix)
            kinds = pb_utils.MetricFamily
            kind = kinds.GAUGE if METRICS[base].gauge else kinds.COUNTER
            family = kinds(name=series.name, description=METRICS[base].description, kind=kind)
            self._families[series.name] = _kept_for_ever(family)
        own = self._gauge_labels if series.name in METRICS and METRICS[series.name].gauge else self._labels
        self._series[series] = _kept_for_ever(family.Metric(labels={**own, **dict(series.labels)}))
        self._sent[series] = 0.0


class Exporters:
    """Exporters of a model on several devices, as one."""

    def __init__(self, exporters: Sequence[Exporter]) -> None:
        self._exporters = exporters

    def step(self, calls: int) -> None:
        """See `Exporter.step`."""
        for exporter in self._exporters:
            exporter.step(calls)

    def flush(self) -> None:
        """See `Exporter.flush`."""
        for exporter in self._exporters:
            exporter.flush()


def _kept_for_ever(metric_object: Any) -> Any:
    """Keep an object even beyond the end of the interpreter, by one reference too many."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(metric_object))
    return metric_object
