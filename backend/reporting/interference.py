"""Interference: what a batch took beyond its solo latency, split exactly over the co-runners that it ran with.

The parts go by what the predictor, having learned from the whole log, expects each co-runner to add to this batch, over
the exact share of the execution that both ran; they are scaled so that they add up to what was measured. Signed: a
batch that took less than its solo latency counts as negative, or noise would add up to interference that nobody caused.
Not explained is what a batch without any co-runner took, and what lies beyond three standard deviations of the noise
above what is expected beside its co-runners: such a batch was stopped, or its machine was slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from backend.reporting.exact_split import split_exactly
from backend.reporting.recording import ExecutedBatch
from predictor.features import Own, exposure
from predictor.interference import expected_parts, explicable_ns, overlaps_by_model
from predictor.learners.isochrone import Isochrone

_NOISE_MIN = 0.02
"""Of log execution."""


class InterferenceModel:
    """Interference of one device's batches. Learns from those that were not suspended."""

    def __init__(self, batches: Sequence[ExecutedBatch]) -> None:
        self._learner = Isochrone()
        learned = sorted((b for b in batches if not b.suspended), key=lambda b: b.ended_ns)
        for batch in learned:
            seen = exposure(batch.own, batch.co_runners)
            self._learner.learn_one(batch.own, seen, batch.exec_ns / batch.own.load.solo_ns)
        self._learner.reset_drift()
        self._noise_sd = self._noise(learned)

    def parts(self, batch: ExecutedBatch) -> dict[str | None, int]:
        """Nanoseconds beyond its solo latency by the co-runners' models; None: not explained. They add up exactly."""
        excess_ns = batch.running_ns - batch.own.load.solo_ns
        explicable = explicable_ns(batch.own.load.solo_ns, self._expected(batch), self._noise_sd)
        explained_ns = min(excess_ns, round(explicable)) if batch.co_runners else 0
        charged = split_exactly(explained_ns, self._weights(batch))
        found: dict[str | None, int] = dict(charged.items())
        if rest_ns := excess_ns - sum(charged.values()):
            found[None] = rest_ns
        return found

    def _weights(self, batch: ExecutedBatch) -> dict[str, float]:
        overlaps, on_core = (
            [
                (Own(c.model, c.batch_size, c.load), c.end - c.begin)
                for c in batch.co_runners
                if c.same_core is same_core
            ]
            for same_core in (False, True)
        )
        return expected_parts(self._learner, batch.own, overlaps, on_core) or overlaps_by_model(overlaps, on_core)

    def _expected(self, batch: ExecutedBatch) -> float:
        return self._learner.predict_one(batch.own, exposure(batch.own, batch.co_runners))

    def _noise(self, batches: Sequence[ExecutedBatch]) -> float:
        """Standard deviation of log(measured / expected), without its outliers."""
        if not batches:
            return _NOISE_MIN
        errors = [log(b.exec_ns / b.own.load.solo_ns / self._expected(b)) for b in batches]
        low, high = np.percentile(errors, (15.9, 84.1))
        return max(_NOISE_MIN, float(high - low) / 2.0)


def interference_of(batches: Sequence[ExecutedBatch]) -> list[dict[str | None, int]]:
    """Parts of each batch, in the same order. Each device's batches are learned by themselves."""
    models = {
        device: InterferenceModel([b for b in batches if b.device == device]) for device in {b.device for b in batches}
    }
    return [models[batch.device].parts(batch) for batch in batches]
