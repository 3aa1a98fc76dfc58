"""Who picks a request's GPU, in virtual time."""

from __future__ import annotations

from collections import Counter

from backend.load.arrivals import Arrival, poisson
from backend.load.outcomes import summarise
from benchmarks.emulated.devices import capacity_per_s, traffic
from benchmarks.emulated.virtual_devices import MODELS, PREDICTED, SPEED, TURNS, in_virtual_time, picked


def test_turns_give_each_gpu_its_share_of_each_model() -> None:
    plan = [Arrival(float(i), MODELS[i % 2], 1.0) for i in range(80)]
    found = picked(plan, {"a100": 3.0, "t4": 1.0})
    expected = {f"{model}-{gpu}": n for model in MODELS[:2] for gpu, n in (("a100", 30), ("t4", 10))}
    assert Counter(arrival.model for arrival in found) == expected
    assert [arrival.at_s for arrival in found] == [arrival.at_s for arrival in plan]


def test_all_answer_the_same_requests_and_prediction_keeps_more_deadlines_than_turns() -> None:
    rates = {gpu: capacity_per_s(gpu) for gpu in ("a100", "t4")}
    plan = poisson(traffic(tuple(rates), 0.9 * sum(rates.values()), 1.0), 0.5, seed=1)
    ran = {who: summarise(outcomes, 0.5) for who, outcomes in in_virtual_time(rates, plan, 1.0)}
    assert {who: summary.requests for who, summary in ran.items()} == dict.fromkeys(
        (TURNS, SPEED, PREDICTED), len(plan)
    )
    assert ran[PREDICTED].met_share > ran[TURNS].met_share + 0.05
