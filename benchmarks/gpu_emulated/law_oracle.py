"""Our policy whose latency model is the law itself: what is left to be had is the policy's, not the predictor's.

A slowdown function is asked with its co-runners' summed contributions, which have to say who they are: under this rival
a batch contributes its pressure to one slot, and 1 to its model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from backend.scheduler.forecast.expected_arrivals import ExpectedArrivals, StreamTable
from backend.scheduler.forecast.launch_forecast import Choice, LaunchForecast
from backend.scheduler.forecast.timeline import HORIZON
from backend.scheduler.policy import Policy
from backend.scheduler.running_batch import MIN_SLOWDOWN
from backend.simulation.fixed_predictors import Unaware
from backend.simulation.gpu_law import GpuLaw, KernelDemand
from benchmarks.gpu_emulated.drawn_gpu import DrawnGpu
from benchmarks.rivals import Rival
from predictor.features import Own
from predictor.slowdown_function import NO_SHARES, SHARES, SLOTS, ZERO_SUMS, Matrix, SlowdownFunction, Sums

MODELS_MAX = SLOTS - 1
"""A slot each, beside that of the pressure."""


class LawFunction(SlowdownFunction):
    """A batch's slowdown as the law has it. Its fields are a batch's that nothing slows.

    own: its own contribution where the sums include it.
    """

    law: GpuLaw
    demand: KernelDemand
    names: Sequence[str]
    own: Sums = ZERO_SUMS

    def slowdown(self, sums: Sequence[float], same_core: float = 0) -> float:  # noqa: ARG002 - a lane is no core
        """With the co-runners that the sums count."""
        pressure, *counts = [total - own for total, own in zip(sums[SHARES:], self.own[SHARES:], strict=True)]
        return self.law.slowdown(self.demand, _co_runners(tuple(self.names), pressure, *map(round, counts)))

    def among(self, adds: Sums) -> LawFunction:
        """The same of sums that include the batch's own contribution."""
        found = law_function(self.law, self.demand, self.names)
        found.own = adds
        return found


def law_function(law: GpuLaw, demand: KernelDemand, names: Sequence[str]) -> LawFunction:
    """Slowdown of a batch with this demand beside any others of the models named."""
    found = LawFunction(1.0)
    found.law, found.demand, found.names = law, demand, names
    return found


@lru_cache(1 << 14)
def _co_runners(names: tuple[str, ...], pressure: float, *counts: int) -> list[KernelDemand]:
    """As many batches of each model as there are, which share the pressure evenly: the law only adds it up."""
    found = [name for name, count in zip(names, counts, strict=False) for _ in range(count)]
    return [KernelDemand(name, 1, 1.0, pressure / len(found)) for name in found]


class LawPredictor(Unaware):
    """Predictor that knows the drawn GPU. Raises ValueError where it has more than `MODELS_MAX` models."""

    def __init__(self, drawn: DrawnGpu) -> None:
        super().__init__()
        self._law, self._models, self._names = drawn.mean_law, drawn.by_name, tuple(drawn.by_name)
        if len(self._names) > MODELS_MAX:
            raise ValueError(f"the drawn GPU has {len(self._names)} models; at most {MODELS_MAX} can be told apart")

    def contribution(self, own: Own) -> Sums:
        counts = [float(name == own.model) for name in self._names]
        idle = [0.0] * (MODELS_MAX - len(counts))
        return (*NO_SHARES, self._models[own.model].demand(own.batch_size).pressure, *counts, *idle)

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        return law_function(self._law, self._models[own.model].demand(own.batch_size), self._names)


class LawStreamTable(StreamTable):
    """Streams whose slowdowns are the law's."""

    def take(self, place: int, function: SlowdownFunction) -> None:
        """See `StreamTable`."""
        self.__dict__.setdefault("_laws", {})[place] = function

    def slowdowns(self, cases: Sequence[Sums]) -> Matrix:
        """See `StreamTable`."""
        laws: dict[int, SlowdownFunction] = self.__dict__["_laws"]
        return np.array([[laws[place].slowdown(sums) for place in range(len(laws))] for sums in cases])


class LawArrivals(ExpectedArrivals):
    """Requests to come, slowed as the law has it."""

    table = LawStreamTable


class LawForecast(LaunchForecast):
    """Forecasts whose timelines are the law's."""

    drawn: DrawnGpu
    law: GpuLaw

    def compute_timelines(self, choices: Sequence[Choice]) -> None:
        """See `LaunchForecast`."""
        models = self.drawn.by_name
        running = [(models[b.own.model].demand(b.rows), b.remaining_ns) for b in self._device.batches]
        if not self._finishes_ns:
            self._finishes_ns = law_finishes(self.law, running)
        for choice in choices:
            own = choice.own
            if (kind := (choice.source.id, own.batch_size, own.load.solo_ns)) not in self._timelines:
                candidate = models[own.model].demand(own.batch_size), float(own.load.solo_ns)
                self._timelines[kind] = law_finishes(self.law, [*running, candidate])


def law_finishes(law: GpuLaw, batches: Sequence[tuple[KernelDemand, float]]) -> list[float]:
    """Nanoseconds from now to each finish, followed as far as `timelines` does. batches: demand, remaining ns."""
    remaining, finishes = {i: left_ns for i, (_, left_ns) in enumerate(batches)}, [0.0] * len(batches)
    now_ns = 0.0
    for step in range(HORIZON + 1):
        slowdowns = {
            i: max(MIN_SLOWDOWN, law.slowdown(batches[i][0], [batches[j][0] for j in remaining if j != i]))
            for i in remaining
        }
        if step == HORIZON or not remaining:
            break
        span_ns, first = min((left_ns * slowdowns[i], i) for i, left_ns in remaining.items())
        now_ns += span_ns
        finishes[first] = now_ns
        remaining = {i: max(0.0, left - span_ns / slowdowns[i]) for i, left in remaining.items() if i != first}
    for i, left_ns in remaining.items():
        finishes[i] = now_ns + left_ns * slowdowns[i]
    return finishes


def law_oracle(drawn: DrawnGpu) -> Rival:
    """The rival, on this GPU."""

    class Forecast(LawForecast):
        pass

    class OraclePolicy(Policy):
        forecast = Forecast
        expected = LawArrivals

    Forecast.drawn, Forecast.law = drawn, drawn.mean_law
    return Rival("our policy, knows the law, not chance", lambda *_: LawPredictor(drawn), OraclePolicy, virtual=True)
