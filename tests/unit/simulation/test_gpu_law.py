"""The emulated GPU's law, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.simulation.gpu_law import NO_EFFECTS, GpuLaw, KernelDemand, Regime, shared_slowdown

SHORT = KernelDemand("short", 1, 0.5, 0.5)
LONG = KernelDemand("long", 8, 0.8, 2.0)
demands = st.builds(KernelDemand, st.sampled_from("abc"), st.just(1), st.floats(0.05, 1.0), st.floats(0.1, 8.0))


def test_a_batch_waits_for_one_kernel_of_each_co_runner_per_kernel_of_its_own() -> None:
    law = GpuLaw(pair_sd=0.0, saturation=1.0)
    assert law.slowdown(SHORT, [LONG]) == pytest.approx(1 + 0.5 / 0.5 * 0.8 * 2.0)
    assert law.slowdown(LONG, [SHORT]) == pytest.approx(1 + 0.8 / 2.0 * 0.5 * 0.5)
    assert law.slowdown(SHORT, [LONG, LONG]) == pytest.approx(1 + 2 * 1.6)


def test_a_co_runner_that_fits_into_the_idle_share_costs_little() -> None:
    idle = KernelDemand("idle", 1, 0.2, 1.0)
    assert shared_slowdown(idle, idle.pressure) < 1.01
    assert shared_slowdown(idle, idle.pressure, saturation=1.0) == pytest.approx(1.04)


def test_four_copies_that_keep_a_gpu_busy_take_four_times_as_long() -> None:
    busy = KernelDemand("busy", 1, 1.0, 3.0)
    assert GpuLaw(pair_sd=0.0).slowdown(busy, [busy] * 3) == pytest.approx(4.0)


def test_the_factor_of_an_ordered_pair_is_fixed_and_its_reverse_another_one() -> None:
    law, plain = GpuLaw(seed=3), GpuLaw(pair_sd=0.0)
    one, again = law.slowdown(SHORT, [LONG]), GpuLaw(seed=3).slowdown(SHORT, [LONG])
    there = one / plain.slowdown(SHORT, [LONG])
    back = law.slowdown(LONG, [SHORT]) / plain.slowdown(LONG, [SHORT])
    assert one == again
    assert there != back
    assert GpuLaw(seed=4).slowdown(SHORT, [LONG]) != one


def test_the_factors_of_pairs_are_spread_as_stated() -> None:
    plain = shared_slowdown(SHORT, LONG.pressure)
    logs = [log(GpuLaw(seed=seed).slowdown(SHORT, [LONG]) / plain) for seed in range(4000)]
    assert np.mean(logs) == pytest.approx(0.0, abs=0.005)
    assert np.std(logs) == pytest.approx(0.08, rel=0.05)


def test_disjoint_shares_disturb_little_and_time_slices_everybody_alike() -> None:
    law, slices = GpuLaw(pair_sd=0.0), GpuLaw(pair_sd=0.0, regime=Regime.TIME_SLICES)
    short, long = (replace(one, share=0.5) for one in (SHORT, LONG))
    assert 1.04 < law.slowdown(short, [long]) / law.slowdown(short, []) < 1.17
    assert law.slowdown(replace(short, share=0.6), [long]) > 2.0
    assert slices.slowdown(SHORT, [LONG, LONG]) == slices.slowdown(LONG, [SHORT, SHORT]) == pytest.approx(3.33)


def test_a_share_of_the_multiprocessors_slows_a_batch_that_needs_more() -> None:
    law = GpuLaw(pair_sd=0.0)
    half, idle = replace(LONG, share=0.5), KernelDemand("idle", 1, 0.1, 1.0, share=0.5)
    assert law.slowdown(half, []) == pytest.approx((1 + (0.8 / 0.5**0.8) ** 4 - 0.8**4) ** 0.25)
    assert law.slowdown(idle, []) == pytest.approx(1.0, abs=0.001)


def with_effects(**effects: float) -> GpuLaw:
    return GpuLaw(pair_sd=0.0, saturation=1.0, effects=replace(NO_EFFECTS, **effects))


def test_a_third_batch_adds_a_launch_gap_to_each_kernel() -> None:
    gaps, plain = with_effects(launch_gap_us=4.8), with_effects()
    assert gaps.slowdown(SHORT, [LONG]) == plain.slowdown(SHORT, [LONG])
    kernels_per_65_us = 0.5 / 0.5
    added = gaps.slowdown(SHORT, [LONG, LONG, LONG]) - plain.slowdown(SHORT, [LONG, LONG, LONG])
    assert added == pytest.approx(2 * 4.8 / 65 * kernels_per_65_us)


def test_a_higher_stream_is_spared_a_fifth_which_a_lower_one_bears() -> None:
    law, low, high = with_effects(priority_relief=0.2), replace(LONG, priority=2), replace(SHORT, priority=1)
    assert law.slowdown(high, [low]) == pytest.approx(1 + 0.8 * 1.6)
    assert law.slowdown(low, [high]) == pytest.approx(1 + 1.2 * 0.8 / 2.0 * 0.25)
    assert law.slowdown(high, [LONG]) == pytest.approx(1 + 1.6)


def test_tails_grow_beside_long_kernels_and_leave_the_mean_alone() -> None:
    law, plain = with_effects(tail_sd=0.6), with_effects().slowdown(SHORT, [LONG])
    luck = np.random.default_rng(1).standard_normal(20_000)
    beside_long = np.array([law.slowdown(SHORT, [LONG], drawn) for drawn in luck.tolist()])
    assert beside_long.mean() == pytest.approx(plain, rel=0.01)
    assert np.percentile(beside_long - 1, 99) == pytest.approx((plain - 1) * exp(0.45 * 2.326 - 0.45**2 / 2), rel=0.05)
    assert law.slowdown(LONG, [SHORT], 3.0) == with_effects().slowdown(LONG, [SHORT])


def test_batches_that_would_draw_more_than_the_cap_slow_the_clock() -> None:
    law = with_effects(mhz_per_w=1.0, boost_mhz=1500.0, power_cap_w=200.0)
    one = KernelDemand("one", 1, 1.0, 1.0, power_w=150.0)
    disjoint = replace(one, share=0.5)
    assert law.slowdowns([one], [[]], [0.0]) == [1.0]
    assert law.slowdowns([one] * 2, [[law.pair_terms(one, one)]] * 2, [0.0] * 2) == [
        2.0,
        2.0,
    ]  # by turns: each draws half
    alone = law.slowdown(disjoint, [disjoint])
    drawn_w = 2 * 350.0 / alone
    greedy = replace(disjoint, power_w=350.0)
    both = law.slowdowns([greedy] * 2, [[law.pair_terms(greedy, greedy)]] * 2, [0.0] * 2)
    assert both[0] == pytest.approx(alone / (1 - (drawn_w - 200.0) / 1500.0))


@pytest.mark.parametrize("regime", list(Regime))
@given(own=demands, others=st.lists(demands, max_size=4), more=demands)
def test_nobody_is_faster_beside_others_nor_beside_more_of_them(
    regime: Regime, own: KernelDemand, others: list[KernelDemand], more: KernelDemand
) -> None:
    law = GpuLaw(pair_sd=0.0, regime=regime)
    assert law.slowdown(own, []) == 1.0
    assert 1.0 <= law.slowdown(own, others) <= law.slowdown(own, [*others, more]) + 1e-9
