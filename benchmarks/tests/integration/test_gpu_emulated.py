"""Rivals on an emulated GPU: the device is the law's, the oracle knows it, a search never keeps less."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from backend.load.arrivals import Arrival
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Arrive, Command, Event, Finish
from backend.simulation.gpu_law import NO_EFFECTS
from backend.simulation.simulator import simulate
from backend.simulation.virtual_gpu import VirtualGpu
from benchmarks.gpu_emulated.clairvoyant.reference import reference, run_with_schedule
from benchmarks.gpu_emulated.clairvoyant.replay import PlannedBatch, Replay
from benchmarks.gpu_emulated.clairvoyant.search import ClairvoyantSearch
from benchmarks.gpu_emulated.closed_loop import ClosedLoopScheduler, closed_loop
from benchmarks.gpu_emulated.drawn_gpu import OVERHEAD_NS, drawn_gpu
from benchmarks.gpu_emulated.law_oracle import MODELS_MAX, LawPredictor, law_finishes
from benchmarks.gpu_emulated.plan import ORACLE, OURS, QUICK, TWO_CLASSES, ClosedLoop, SearchEffort
from benchmarks.gpu_emulated.requests import request_plan
from benchmarks.gpu_emulated.runs import RunCase, run_case, run_rival
from benchmarks.gpu_emulated.served.twin import InstancePerModel
from predictor.features import Own
from predictor.workload import Load

DRAWN = drawn_gpu(0, 12, NO_EFFECTS)
SHORT, LONG = sorted(DRAWN.models, key=lambda m: m.solo_ns(1))[:: len(DRAWN.models) - 1]
COPIES_NS = 2 * 49_000 + (602_112 + 4000) / 25.0
NO_SLO = 1e12


def test_a_batch_alone_takes_its_solo_latency_its_copies_and_the_overhead() -> None:
    ran = run_rival(DRAWN, "naive", 2, [Arrival(0.0, LONG.name, NO_SLO)])
    assert ran.requests[0].answered_s == pytest.approx((LONG.solo_ns(1) + COPIES_NS + OVERHEAD_NS) / 1e9, abs=5e-9)


def test_a_batch_takes_as_long_as_the_law_says() -> None:
    """One that begins and ends while the other runs."""
    ran = run_rival(DRAWN, "naive", 2, [Arrival(0.0, LONG.name, NO_SLO), Arrival(0.001, SHORT.name, NO_SLO)])
    slowdown = DRAWN.law.slowdown(SHORT.demand(1), [LONG.demand(1)])
    assert slowdown > 1.01
    assert min(measured for _, measured in ran.predicted) == pytest.approx(SHORT.solo_ns(1) * slowdown, abs=3)


def test_the_same_case_gives_the_same_figures() -> None:
    case = RunCase(OURS, 1, TWO_CLASSES, 1.0, 4, 0.3, 0.1)
    first, second = run_case(case), run_case(case)
    assert (first.met, first.requests, first.mape) == (second.met, second.requests, second.mape)


def test_the_oracle_tells_who_its_co_runners_are_from_their_sums() -> None:
    predictor, models = LawPredictor(DRAWN), DRAWN.models
    batches = [(models[0], 1), (models[3], 16), (models[3], 16), (models[11], 5), (models[7], 2)]
    owns = [Own(model.name, rows, Load(model.solo_ns(rows), 0.0, 0.0, 0.0)) for model, rows in batches]
    adds = [predictor.contribution(own) for own in owns]
    sums = tuple(map(sum, zip(*adds, strict=True)))
    for gone, (model, rows) in enumerate(batches):
        function = predictor.slowdown_function(owns[gone])
        left = tuple(a - b for a, b in zip(sums, adds[gone], strict=True))
        others = [other.demand(n) for i, (other, n) in enumerate(batches) if i != gone]
        expected = pytest.approx(DRAWN.law.slowdown(model.demand(rows), others), rel=1e-9)
        assert function.slowdown(left) == expected
        assert function.among(adds[gone]).slowdown(sums) == expected


def test_more_models_than_the_sums_can_tell_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="16 models; at most 15"):
        LawPredictor(drawn_gpu(0, MODELS_MAX + 1))


def test_the_oracle_predicts_what_happens() -> None:
    """Of the one that begins and ends while another runs, to the nanosecond."""
    ran = run_rival(DRAWN, ORACLE, 2, [Arrival(0.0, LONG.name, NO_SLO), Arrival(0.001, SHORT.name, NO_SLO)])
    predicted, measured = min(ran.predicted, key=lambda times: times[1])
    assert predicted == pytest.approx(measured, abs=3)


def test_the_oracle_knows_the_law_and_not_what_chance_will_bring() -> None:
    drawn = drawn_gpu(0, 12)
    effects = drawn.mean_law.effects
    assert (effects.noise_sd, effects.tail_sd) == (0.0, 0.0)
    assert effects.launch_gap_us == drawn.law.effects.launch_gap_us > 0.0
    own = drawn.models[0]
    others = [drawn.models[i] for i in (1, 2, 3)]
    predictor, owns = LawPredictor(drawn), [Own(m.name, 1, Load(m.solo_ns(1), 0.0, 0.0, 0.0)) for m in (own, *others)]
    sums = tuple(map(sum, zip(*[predictor.contribution(other) for other in owns[1:]], strict=True)))
    function = predictor.slowdown_function(owns[0])
    expected = drawn.mean_law.slowdown(own.demand(1), [model.demand(1) for model in others])
    assert function.slowdown(sums) == pytest.approx(expected, rel=1e-9)


def test_timelines_of_the_oracle_are_the_virtual_gpus() -> None:
    demands = [(LONG.demand(4), 9e6), (SHORT.demand(1), 3e6)]
    gpu = VirtualGpu(DRAWN.law)
    batches = [gpu.submit(demand, left_ns, 0.0) for demand, left_ns in demands]
    while gpu.next_ns is not None:
        gpu.step()
    assert law_finishes(DRAWN.law, demands) == pytest.approx([b.finished_ns for b in batches], rel=1e-12)


@pytest.mark.parametrize("rival", ["naive", OURS])
def test_a_rivals_schedule_replayed_keeps_what_the_rival_kept(rival: str) -> None:
    plan = request_plan(DRAWN, TWO_CLASSES, 1.0, 0.4, 2)
    ran, schedule = run_with_schedule(DRAWN, rival, 4, plan)
    kept = [i for i, outcome in enumerate(ran.outcomes()) if outcome.met]
    replay = Replay(DRAWN, plan, 4)
    found = replay.run(schedule, inf)
    assert found.deadlines == len(kept) > 0
    assert sorted(replay.met) == kept
    assert -found.unused_ns / 1e9 == pytest.approx(ran.busy_s, rel=1e-7)


def test_a_copy_of_a_replay_goes_its_own_way() -> None:
    """Wherever it is made, also while lanes are about to be free."""
    plan = request_plan(DRAWN, TWO_CLASSES, 1.0, 0.2, 2)
    schedule = [PlannedBatch(round(a.at_s * 1e9), a.model, (i,)) for i, a in enumerate(plan)]
    whole = Replay(DRAWN, plan, 4).run(schedule, inf)
    replay, rest = Replay(DRAWN, plan, 4), schedule
    for until_ms in range(1, 150):
        replay.run(rest, until_ms * 1e6)
        rest = replay.waiting
        assert replay.copy().run(rest, inf) == pytest.approx(whole)
    assert 0 < len(rest) < len(schedule)
    assert replay.run(rest, inf) == pytest.approx(whole)


def test_a_search_finds_the_order_in_which_both_make_it() -> None:
    """On one lane, the one that has time went first."""
    solo_ms = {model.name: (model.solo_ns(1) + COPIES_NS + OVERHEAD_NS) / 1e6 for model in (SHORT, LONG)}
    both_ms = sum(solo_ms.values())
    plan = [Arrival(0.0, LONG.name, 1.2 * both_ms), Arrival(0.0, SHORT.name, 1.2 * solo_ms[SHORT.name])]
    start = [PlannedBatch(0, LONG.name, (0,)), PlannedBatch(1, SHORT.name, (1,))]
    effort = SearchEffort(tries=200, window_s=0.05, ahead_s=0.1, seconds=0.05)
    found = ClairvoyantSearch(DRAWN, plan, 1, 0.0, effort).improve(start)
    assert found.start_kept == 1
    assert sorted(found.met) == [0, 1]


def test_a_search_that_does_not_look_ahead_keeps_no_less_in_the_end() -> None:
    """Batches that end after its window look useless to it."""
    plan = request_plan(DRAWN, TWO_CLASSES, 0.7, 0.3, 2)
    start = [PlannedBatch(round(a.at_s * 1e9), a.model, (i,)) for i, a in enumerate(plan)]
    effort = SearchEffort(tries=20, window_s=0.02, ahead_s=0.0, seconds=0.3)
    found = ClairvoyantSearch(DRAWN, plan, 8, 0.0, effort).improve(start)
    assert len(found.met) >= found.start_kept > 0


def test_the_best_schedule_found_keeps_at_least_what_the_best_rival_keeps() -> None:
    found = reference(QUICK, 0, 1.0, dict.fromkeys(QUICK.rivals, 4))
    assert found.kept() >= max(found.kept(rival) for rival in QUICK.rivals) > 0.0
    assert found.kept(found.start) == max(found.kept(rival) for rival in QUICK.rivals)


class CountingScheduler(Scheduler):
    """Counts the requests of source 1 that wait or run."""

    open = most = 0

    def handle(self, source: int, event: Event, now_ns: int) -> list[Command]:
        if source == 1 and isinstance(event, Arrive):
            self.open += len(event.requests)
        if source == 1 and isinstance(event, Finish):
            self.open -= len(self.device.running[source, event.batch].requests)
        self.most = max(self.most, self.open)
        return super().handle(source, event, now_ns)


def test_a_closed_loop_keeps_as_many_outstanding_as_it_should() -> None:
    inner = CountingScheduler(2)
    model = DRAWN.simulated()[0]
    plan = [Arrival(0.0, model.name, NO_SLO)] * 200
    ran = simulate([model], plan, ClosedLoopScheduler(inner, 1, 3, 20_000_000), DRAWN.device(), OVERHEAD_NS)
    answered = [r.answered_s for r in ran.requests if r.answered_s is not None]
    assert (inner.most, inner.open) == (3, 0)
    assert 3 < len(answered) < 200
    assert min(answered) < 0.02 < max(answered)  # none is sent later, and all that was sent is answered


def test_a_high_class_next_to_a_loop_is_no_faster_than_alone() -> None:
    found = closed_loop("naive", 0, 2, 2, ClosedLoop(seconds=1.0, warm_s=0.1))
    assert found.ratio > 1.0
    assert found.low_per_s > 0.0


def test_stock_triton_in_virtual_time_runs_one_batch_of_a_model_at_a_time() -> None:
    """Else the second batch would not wait for the first, which is alone with it on the device."""
    models = [replace(model, interference_aware=False) for model in DRAWN.simulated()[:1]]
    plan = [Arrival(at_s, models[0].name, NO_SLO) for at_s in (0.0, 0.001)]
    scheduler = Scheduler(4, policy=InstancePerModel)
    first, second = simulate(models, plan, scheduler, DRAWN.device(), OVERHEAD_NS).requests
    assert first.answered_s is not None
    assert second.answered_s == pytest.approx(2 * first.answered_s, rel=1e-3)
