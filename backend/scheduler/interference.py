"""Interference that a device's batches suffered: execution beyond their solo latency, by the model that caused it.

Worked out when batches that ended are learned from, so that no launch waits for it; decides nothing. The definition is
`backend.reporting.interference`'s but for what only a whole log can tell, or what takes longer: the predictor is as of
the batch's end, what several co-runners are expected to add is the sum of what each would, the noise is a moving
estimate, batches that were suspended are left out, and one that took less than its solo latency counts as nothing
instead of as negative, since the sums are exported as counters.
"""

from __future__ import annotations

from math import log, pi, sqrt

from backend.scheduler.messages import INTERFERENCE_MODELS_MAX, NOT_EXPLAINED
from backend.scheduler.source import Source
from predictor.co_runners import Execution
from predictor.features import Exposure, Own
from predictor.interference import Overlaps, expected_parts, explicable_ns, overlaps_by_model
from predictor.learners.learner import Forecaster

_NOISE, _NOISE_MIN, _NOISE_WEIGHT, _ERROR_MAX = 0.1, 0.02, 0.02, 3.0
"""Standard deviation of log(measured / expected) before any batch and at least; weight of the newest batch in it, whose
error counts for at most so many of them."""
_SD_PER_MEAN = sqrt(pi / 2.0)
"""Of a normal distribution: standard deviation / mean absolute error."""


class InterferenceAccount:
    """Adds up each source's interference, in nanoseconds by the co-runners' models, in `Source.interference`.

    off: more than `INTERFERENCE_MODELS_MAX` models have had batches here, and nothing is added any more.
    """

    def __init__(self) -> None:
        self.off = False
        self._models: set[str] = set()
        self._noise_sd = _NOISE

    def add(
        self, source: Source, own: Own, exec_ns: int, stay: Execution, seen: Exposure, predictor: Forecaster
    ) -> None:
        """Add a batch that ended well. seen: its exposure during `stay`."""
        if self.off or self._too_many(own, seen):
            return
        suffered, rest_ns = source.interference, float(exec_ns - own.load.solo_ns)
        if seen.overlaps:
            overlaps, on_core = (seen.overlaps, ()) if stay.core is None else _by_core(stay)
            parts = expected_parts(predictor, own, overlaps, on_core)
            explicable = self._explicable_ns(own, exec_ns, predictor.slowdown_function(own).solo + sum(parts.values()))
            explained_ns = min(rest_ns, explicable)
            parts = parts or overlaps_by_model(overlaps, on_core)
            if explained_ns > 0.0 and (total := sum(parts.values())) > 0.0:
                rest_ns -= explained_ns
                for model, part in parts.items():
                    suffered[model] = suffered.get(model, 0.0) + explained_ns * (part / total)
        if rest_ns > 0.0:
            suffered[NOT_EXPLAINED] = suffered.get(NOT_EXPLAINED, 0.0) + rest_ns

    def _too_many(self, own: Own, seen: Exposure) -> bool:
        models = self._models
        models.add(own.model)
        for other, _ in seen.overlaps:
            models.add(other.model)
        self.off = len(models) > INTERFERENCE_MODELS_MAX
        return self.off

    def _explicable_ns(self, own: Own, exec_ns: int, expected: float) -> float:
        """See `predictor.interference`; learns the noise. expected: slowdown."""
        solo_ns = own.load.solo_ns
        size = min(abs(log(exec_ns / (solo_ns * expected))), _ERROR_MAX * self._noise_sd)
        self._noise_sd = max(_NOISE_MIN, self._noise_sd + _NOISE_WEIGHT * (_SD_PER_MEAN * size - self._noise_sd))
        return explicable_ns(solo_ns, expected, self._noise_sd)


def _by_core(stay: Execution) -> tuple[Overlaps, Overlaps]:
    """Overlaps with co-runners on other cores, and with those on its own."""
    found: tuple[list[tuple[Own, float]], list[tuple[Own, float]]] = ([], [])
    for c in stay.co_runners():
        found[c.same_core].append((Own(c.model, c.batch_size, c.load), c.end - c.begin))
    return found
