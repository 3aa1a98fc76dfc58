"""Parts of the scheduler that keep besides what no command shows."""

from __future__ import annotations

from predictor.features import Exposure, FeatureSums, Own
from predictor.learners.isochrone import Isochrone
from predictor.solo_latency import SoloLatency
from predictor.workload import ModelProfile


class RecordedPredictor(Isochrone):
    """Records the co-runners' features that it was trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[FeatureSums] = []
        self.solo_ns = 0
        """Of the last batch, as in its training sample."""

    def learn_one(self, own: Own, seen: Exposure, slowdown: float) -> None:
        self.trained.append(seen.sums)
        self.solo_ns = own.load.solo_ns
        assert slowdown <= 20.0
        super().learn_one(own, seen, slowdown)


class RecordedSolo(SoloLatency):
    """Records the doubts, which no command shows."""

    def __init__(self, model: str, profile: ModelProfile, measured_group: int | None, now_ns: int) -> None:
        super().__init__(model, profile, measured_group, now_ns)
        self.doubted: list[tuple[int, int]] = []

    def doubt(self, rows: int, group: int, now_ns: int) -> bool:
        found = super().doubt(rows, group, now_ns)
        if found:
            self.doubted.append((rows, group))
        return found
