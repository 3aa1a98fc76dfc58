"""Our policy whose latency model is the law itself: what is left to be had is the policy's, not the predictor's.

A slowdown function is asked with its co-runners' summed contributions, which have to say who they are: under this rival
a model's features are its pressure, and a digit of its own in the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from backend.scheduler.launch_forecast import Choice, LaunchForecast
from backend.scheduler.policy import Policy
from backend.scheduler.running_batch import MIN_SLOWDOWN
from backend.scheduler.timeline import HORIZON
from backend.simulation.fixed_predictors import NO_WEIGHTS, Unaware
from backend.simulation.gpu_law import GpuLaw, KernelDemand
from backend.simulation.simulator import SimulatedModel
from benchmarks.gpu_emulated.drawn_gpu import BATCH_MAX, DrawnGpu
from benchmarks.rivals import Rival
from predictor.features import Own, Sums
from predictor.slowdown_function import Shared, SlowdownFunction
from predictor.workload import Load, ModelProfile

_PRESSURE_MAX = 1 << 10
"""Above any batch's u · w, so that its share is below 1."""
_DIGIT_BITS, _DIGITS = 4, 12
MODELS_MAX = 2 * _DIGITS
"""Two features hold twelve digits each; up to 15 batches of one model at once."""


class LawFunction(SlowdownFunction):
    """A batch's slowdown as the law has it. Its fields are a batch's that nothing slows."""

    law: GpuLaw
    demand: KernelDemand
    names: Sequence[str]

    def slowdown(self, sums: Sums, same_core: float = 0) -> float:  # noqa: ARG002 - a lane is no core
        """With the co-runners that the sums' digits count."""
        return self.law.slowdown(self.demand, _co_runners(tuple(self.names), *sums[1:4]))

    def slowdown_at(self, g: Shared, sums: Sums, same_core: float = 0) -> float:  # noqa: ARG002 - the contract's call
        return self.slowdown(sums)


@lru_cache(1 << 14)
def _co_runners(names: tuple[str, ...], pressure: float, first: float, second: float) -> list[KernelDemand]:
    """As many batches of each model as there are, which share the pressure evenly: the law only adds it up."""
    digits = [round(part * (1 << _DIGIT_BITS * _DIGITS)) for part in (first, second)]
    found = [
        name
        for i, name in enumerate(names)
        for _ in range((digits[i // _DIGITS] >> _DIGIT_BITS * (i % _DIGITS)) % (1 << _DIGIT_BITS))
    ]
    return [KernelDemand(name, 1, 1.0, pressure * _PRESSURE_MAX / len(found)) for name in found]


class LawPredictor(Unaware):
    """Predictor that knows the drawn GPU."""

    def __init__(self, drawn: DrawnGpu) -> None:
        super().__init__()
        self._law, self._models = drawn.mean_law, drawn.by_name

    def slowdown_function(self, own: Own) -> SlowdownFunction:
        found = LawFunction(own.load, 1.0, NO_WEIGHTS, logarithmic=False)
        found.law, found.names = self._law, tuple(self._models)
        found.demand = self._models[own.model].demand(own.batch_size)
        return found


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
    """The rival, on this GPU; its models are `oracle_models`."""

    class Forecast(LawForecast):
        pass

    class OraclePolicy(Policy):
        forecast = Forecast

    Forecast.drawn, Forecast.law = drawn, drawn.mean_law
    return Rival("our policy, knows the law, not chance", lambda *_: LawPredictor(drawn), OraclePolicy, virtual=True)


def oracle_models(drawn: DrawnGpu) -> list[SimulatedModel]:
    """Models whose features tell who they are. At most `MODELS_MAX`."""
    assert len(drawn.models) <= MODELS_MAX, "a digit per model"
    found = []
    for i, (model, simulated) in enumerate(zip(drawn.models, drawn.simulated(), strict=True)):
        digit = 2.0 ** (_DIGIT_BITS * (i % _DIGITS - _DIGITS))
        digits = (digit, 0.0) if i < _DIGITS else (0.0, digit)
        sizes = tuple(range(1, BATCH_MAX + 1))
        loads = [Load(model.solo_ns(n), model.demand(n).pressure / _PRESSURE_MAX, *digits) for n in sizes]
        found.append(replace(simulated, profile=ModelProfile(sizes, tuple(loads))))
    return found
