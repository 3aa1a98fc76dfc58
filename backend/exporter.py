"""Carries a model's counts to Triton's /metrics, a few calls at a time. Used by one thread only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton_python_backend_utils as pb_utils

from backend.metrics import METRICS, Metrics, Series


class Exporter:
    """Owns Triton's metric objects: a family that is garbage-collected breaks its metrics, so both are held here."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._labels = {"model": model, "version": version}
        self._families: dict[str, Any] = {}
        self._series: dict[Series, Any] = {}
        self._sent: dict[Series, float] = {}
        self._round: Iterator[tuple[Series, float]] = iter(())
        for series, _ in list(metrics.values()):
            self._create(series)

    def step(self, calls: int) -> bool:
        """Send up to `calls` changed series; False when a round over all of them has just ended."""
        for series, value in self._round:
            grown = value - self._sent[series]
            if grown > 0:
                self._series[series].increment(grown)
                self._sent[series] = value
                calls -= 1
                if calls == 0:
                    return True
        self._round = iter(list(self._metrics.values()))
        return False

    def flush(self) -> None:
        """Send everything that is left."""
        self._round = iter(list(self._metrics.values()))
        while self.step(1_000_000):
            pass

    def close(self) -> None:
        """Metrics before their families, or the stub crashes as the model is unloaded."""
        self._series.clear()
        self._families.clear()

    def _create(self, series: Series) -> None:
        family = self._families.get(series.name)
        if family is None:
            base = series.name
            for suffix in ("_bucket", "_count", "_sum"):
                base = base if base in METRICS else series.name.removesuffix(suffix)
            family = pb_utils.MetricFamily(
                name=series.name, description=METRICS[base].description, kind=pb_utils.MetricFamily.COUNTER
            )
            self._families[series.name] = family
        self._series[series] = family.Metric(labels={**self._labels, **dict(series.labels)})
        self._sent[series] = 0.0
