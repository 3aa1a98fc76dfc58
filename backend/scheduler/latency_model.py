"""Latencies of batches: forecast for those to come, learned from those that ended.

A batch takes its solo latency × its slowdown beside its co-runners, at most the bound's multiple of that, and around it
the transfers of its tensors and an overhead. All times in nanoseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from backend.scheduler.device_state import CoRun
from backend.scheduler.interference import InterferenceAccount
from backend.scheduler.messages import BatchTimes, Finish
from backend.scheduler.running_batch import MIN_SLOWDOWN, RunningBatch
from backend.scheduler.source import Source
from predictor.bound import UpperBound
from predictor.co_runners import Execution
from predictor.features import Own
from predictor.learners.learner import Forecaster
from predictor.link_sharing import Span
from predictor.slowdown_function import SlowdownFunction
from predictor.transfers import BytesPerRow, TransferModel

_OVERHEAD_WEIGHT = 0.05
"""Weight of the newest batch in the moving average of the time around an execution."""
_MORE_OVERHEAD_NS = 10_000_000
"""Above the average counts as so much: else one long pause would make every deadline look hopeless for a while."""
_MAX_SLOWDOWN = 20.0
"""The most that the predictor is trained with."""
_FUNCTIONS_MAX = 4096
"""Kinds of batches looked up between two updates of the predictor: rows are the callers' choice."""

Kind = tuple[int, int, int]
"""Key of batches that forecasts do not tell apart: source, rows, solo latency, which differs by shape."""


class _TrainingSample(NamedTuple):
    """A batch that the predictor is to learn from. stay: beside its co-runners; exec_ns: measured."""

    source: Source
    own: Own
    stay: Execution
    exec_ns: int


class LatencyModel:
    """The predictor, its bound, the links' bandwidths, and the overhead of launching a batch."""

    def __init__(self, predictor: Forecaster, bound: UpperBound, transfers: TransferModel) -> None:
        self.predictor, self.bound, self.transfers = predictor, bound, transfers
        self.overhead_ns = 0.0
        """Learned: from launch to finish, less the execution itself and the transfers around it."""
        self.interference = InterferenceAccount()
        self._functions: dict[Kind, SlowdownFunction] = {}
        self._revision = predictor.revision
        self._untrained: list[_TrainingSample] = []

    def slowdown_function(self, source: int, own: Own) -> SlowdownFunction:
        """The predictor's, of a batch of this source; looked up once until `renew`."""
        key = (source, own.batch_size, own.load.solo_ns)
        known = self._functions.get(key)
        if known is None:
            if len(self._functions) >= _FUNCTIONS_MAX:
                self._functions.clear()
            known = self._functions[key] = self.predictor.slowdown_function(own)
        return known

    def times(self, own: Own, predicted_ns: int, h2d_ns: float = 0, d2h_ns: float = 0) -> BatchTimes:
        """Forecast of a batch whose execution and transfers are predicted to take this long."""
        bound_ns = round(predicted_ns * self.bound.multiplier)
        return BatchTimes(own.load.solo_ns, predicted_ns, bound_ns, round(h2d_ns), round(d2h_ns))

    def solo_times(self, source: Source, own: Own) -> BatchTimes:
        """Forecast of a batch on an idle device."""
        slowdown = max(MIN_SLOWDOWN, self.slowdown_function(source.id, own).solo)
        predicted_ns = max(1, round(own.load.solo_ns * slowdown))
        return self.times(own, predicted_ns, *source.solo_transfers(own.batch_size))

    def observe(self, source: Source, batch: RunningBatch, finish: Finish, co_run: CoRun, now_ns: int) -> Execution:
        """Learn from a batch that ended well, all but what `train` is for; its solo latency becomes what is known now.

        Returns its execution's time beside its co-runners.
        """
        assert finish.exec_ns is not None
        stay = co_run.stay
        if finish.h2d_ns or finish.d2h_ns:
            stay = self._observe_transfers(source, batch, finish, stay)
        loading = source.join.loading
        if not loading and not source.solo.guesses(batch.group):  # what a guess was wrong by is no batch's fault
            self.bound.learn_one(finish.exec_ns / batch.times.predicted_ns)
        self._observe_solo(source, batch, co_run, finish.exec_ns, now_ns, solo=stay.solo)
        if loading:  # its profile is a guess still, for features and most sizes: only what it takes alone is learned
            return stay
        self._untrained.append(_TrainingSample(source, batch.own, stay, finish.exec_ns))
        around_ns = now_ns - batch.launched_ns - finish.exec_ns - finish.h2d_ns - finish.d2h_ns
        more_ns = min(around_ns - self.overhead_ns, _MORE_OVERHEAD_NS)  # nor about what comes around executions
        self.overhead_ns = max(0.0, self.overhead_ns + _OVERHEAD_WEIGHT * more_ns)
        return stay

    def train(self, running_since_ns: float) -> int:
        """Train the predictor with the batches observed since the last call, and return how many they were.

        running_since_ns: the launch of the oldest batch that runs, inf where none does.
        """
        samples, self._untrained = self._untrained, []
        for source, own, stay, exec_ns in samples:
            seen = stay.exposure(own)
            self.interference.add(source, own, exec_ns, stay, seen, self.predictor)
            # A process that was stopped for a while tells nothing about interference.
            self.predictor.learn_one(own, seen, min(exec_ns / own.load.solo_ns, _MAX_SLOWDOWN))
        if (
            self.transfers.pending
        ):  # whatever began before the oldest that runs was launched has ended, and was observed
            self.transfers.learn_pending(running_since_ns)
        return len(samples)

    def renew(self) -> bool:
        """Forget the functions looked up where the predictor has changed since, and return whether it has."""
        if self.predictor.revision == self._revision:
            return False
        self._revision = self.predictor.revision
        self._functions.clear()
        return True

    def _observe_solo(
        self, source: Source, batch: RunningBatch, co_run: CoRun, exec_ns: int, now_ns: int, *, solo: bool
    ) -> None:
        """Learn the solo latency: from a batch that had co-runners only as far as nothing better is known.

        The batch has it from now on: the rest of what it took is its co-runners' doing.
        """
        rows, group = batch.rows, batch.group
        assert group is not None
        if solo:
            source.learn_solo(rows, group, exec_ns, now_ns)
        elif source.solo.learns_from_co_run(rows, group, exec_ns):
            sums, sharers = co_run.suffered.mean(), co_run.stay.core_co_runners
            slowdown = self.slowdown_function(source.id, batch.own).slowdown(sums, sharers)
            source.learn_solo(rows, group, exec_ns / max(1.0, slowdown), now_ns)
        batch.own = source.own(rows, group)

    def _observe_transfers(self, source: Source, batch: RunningBatch, finish: Finish, stay: Execution) -> Execution:
        """Record the transfers: its inputs came first and its outputs last. Returns the time of its execution."""
        if source.bytes_per_row is None:
            source.bytes_per_row = BytesPerRow(self.transfers, batch.rows, finish.h2d_bytes, finish.d2h_bytes)
        else:
            source.bytes_per_row.learn_one(batch.rows, finish.h2d_bytes, finish.d2h_bytes)
        begin_ns, end_ns = stay.since_ns, stay.until_ns
        arrived_ns = min(end_ns, begin_ns + finish.h2d_ns)
        left_ns = max(begin_ns, end_ns - finish.d2h_ns)
        self.transfers.h2d.record(finish.h2d_bytes, Span(begin_ns, arrived_ns))
        self.transfers.d2h.record(finish.d2h_bytes, Span(left_ns, end_ns))
        return stay.between(arrived_ns, left_ns)
