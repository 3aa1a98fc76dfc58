"""Carries a model's counts to Triton's /metrics, a few calls at a time. Used by one thread only."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import triton_python_backend_utils as pb_utils

from backend.model_process.metrics import METRICS, Metrics, Series


class Exporter:
    """Sends what has grown. Triton's metric objects are never given back, so a model's counts outlive its process.

    Instances of a model, and while it is reloaded its old and new process, have equal labels and so share Triton's
    counters. The first of them to delete its own would free what the others still use, and the server would crash
    (tritonserver 2.51 counts references per process; github.com/triton-inference-server/server/issues/8663).
    """

    def __init__(self, metrics: Metrics, model: str, version: str, emulated: str | None = None) -> None:
        """emulated: the emulated device, a label of what is counted there, so that nobody takes it for a GPU's."""
        self._metrics = metrics
        self._labels = {"model": model, "version": version, **({"device": emulated} if emulated else {})}
        self._families: dict[str, Any] = {}
        self._series: dict[Series, Any] = {}
        self._sent: dict[Series, float] = {}
        self._round: Iterator[list[tuple[Series, float]]] = iter(())
        for series, _ in metrics.values():
            self._create(series)

    def step(self, calls: int) -> bool:
        """Send some `calls` changed series; False when a round over all of them has just ended.

        A histogram that was begun is sent to its end: between two steps /metrics shows no part of one.
        """
        for together in self._round:
            for series, value in together:
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

    def _create(self, series: Series) -> None:
        family = self._families.get(series.name)
        if family is None:
            base = series.name
            for suffix in ("_bucket", "_count", "_sum"):
                base = base if base in METRICS else series.name.removesuffix(suffix)
            family = pb_utils.MetricFamily(
                name=series.name, description=METRICS[base].description, kind=pb_utils.MetricFamily.COUNTER
            )
            self._families[series.name] = _kept_for_ever(family)
        self._series[series] = _kept_for_ever(family.Metric(labels={**self._labels, **dict(series.labels)}))
        self._sent[series] = 0.0


def _kept_for_ever(metric_object: Any) -> Any:
    """Keep an object even beyond the end of the interpreter, by one reference too many."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(metric_object))
    return metric_object
