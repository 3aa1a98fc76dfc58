"""The fleet's layout, and figures over seeds."""

from __future__ import annotations

from math import inf, isnan

import pytest

from backend.load.arrivals import Arrival
from benchmarks.fleet.figures import differences, ratios, shown, spread
from benchmarks.fleet.fleet_run import RoutedRequest, SnapshotTiming
from benchmarks.fleet.layout import GPUS, fleet_layout, mean_speed
from benchmarks.fleet.plan import FULL, POISSON, QUICK
from benchmarks.fleet.routers import OURS
from benchmarks.fleet.runs import UNANSWERED, FleetCase, figures_of

LAYOUT = fleet_layout(3, 20, 40)


def test_a_layout_depends_on_its_seed_alone() -> None:
    again, other = fleet_layout.__wrapped__(3, 20, 40), fleet_layout(4, 20, 40)
    assert (again.models, again.holders) == (LAYOUT.models, LAYOUT.holders)
    assert other.models != LAYOUT.models


def test_rates_fall_as_one_over_the_rank_and_add_up_to_one() -> None:
    shares = [model.share for model in LAYOUT.models]
    assert sum(shares) == pytest.approx(1.0)
    assert shares[0] / shares[9] == pytest.approx(10.0)


def test_every_model_has_holders_and_devices_hold_about_as_many() -> None:
    assert all(len(held) >= 3 for held in LAYOUT.holders)
    numbers = [len(LAYOUT.held_by(device)) for device in range(20)]
    assert max(numbers) - min(numbers) <= 1


def test_a_load_of_one_would_keep_all_kernels_busy() -> None:
    """Each model's requests, spread over its holders by their speed, take their share of the devices' time."""
    taken = sum(
        LAYOUT.full_rate_per_s * model.share / mean_speed(model, [LAYOUT.gpus[d] for d in held])
        for model, held in zip(LAYOUT.models, LAYOUT.holders, strict=True)
    )
    assert taken == pytest.approx(20.0)


def test_faster_types_are_faster() -> None:
    model = next(m for m in LAYOUT.models if m.published == "resnet50")
    assert model.solo_ns("a100") < model.solo_ns("v100") < model.solo_ns("t4")
    assert set(LAYOUT.gpus) == set(GPUS)


def test_requests_are_the_same_for_every_router() -> None:
    plan = LAYOUT.requests(0.5, 2.0, POISSON)
    assert plan == LAYOUT.requests(0.5, 2.0, POISSON)
    assert len(plan) == pytest.approx(0.5 * 2.0 * LAYOUT.full_rate_per_s, rel=0.15)


def test_figures_count_what_was_not_answered_as_missed() -> None:
    model = LAYOUT.models[0]
    device = LAYOUT.holders_of[model.name][0]
    solo_s = model.solo_ns(LAYOUT.gpus[device]) / 1e9
    requests = [
        RoutedRequest(Arrival(1.0, model.name, 1e3 * 4 * solo_s, 1), device, 1.0 + factor * solo_s)
        for factor in (2.0, 3.0, 5.0, inf)
    ]
    case = FleetCase(OURS, 3, 1.0, POISSON, SnapshotTiming())
    found = figures_of(QUICK, case, LAYOUT, requests, 0.0)
    assert (found.requests, found.met, found.unanswered) == ({"1": 4}, {"1": 2}, 1)
    assert found.kept() == found.kept("1") == 0.5
    assert found.degradation_p90 == UNANSWERED
    assert found.degradation_p50 == pytest.approx(5.0)


def test_a_spread_has_its_standard_error() -> None:
    found = spread([1.0, 3.0, -1.0])
    assert (found.mean, found.above, found.seeds) == (1.0, 2, 3)
    assert found.error == pytest.approx(2.0 / 3**0.5)
    assert isnan(spread([1.0]).error)
    assert shown(found, 1, signs=True) == "+1.0 ± 1.2 (2 of 3)"
    assert shown(spread([2.0]), 2) == "2.00"
    assert shown(spread([])) == "–"


def test_only_seeds_that_both_have_are_compared() -> None:
    assert differences({0: 3.0, 1: 5.0}, {1: 4.0, 2: 9.0}) == [1.0]
    assert ratios({0: 3.0, 1: 5.0}, {0: 0.0, 1: 4.0}) == [1.25]


def test_fewer_seeds_need_as_many_signs() -> None:
    assert FULL.with_seeds(3).signs == 3
    assert FULL.with_seeds(None) == FULL.with_seeds(99) == FULL
