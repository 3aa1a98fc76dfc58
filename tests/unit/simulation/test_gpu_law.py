"""The emulated GPU's law, against numbers worked out by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.simulation.gpu_law import GpuLaw, KernelDemand, Regime, shared_slowdown

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
    partitions = GpuLaw(pair_sd=0.0, regime=Regime.PARTITIONS)
    slices = GpuLaw(pair_sd=0.0, regime=Regime.TIME_SLICES)
    assert 1.04 < partitions.slowdown(SHORT, [LONG]) < 1.17
    assert slices.slowdown(SHORT, [LONG, LONG]) == slices.slowdown(LONG, [SHORT, SHORT]) == pytest.approx(3.33)


@pytest.mark.parametrize("regime", list(Regime))
@given(own=demands, others=st.lists(demands, max_size=4), more=demands)
def test_nobody_is_faster_beside_others_nor_beside_more_of_them(
    regime: Regime, own: KernelDemand, others: list[KernelDemand], more: KernelDemand
) -> None:
    law = GpuLaw(pair_sd=0.0, regime=regime)
    assert law.slowdown(own, []) == 1.0
    assert 1.0 <= law.slowdown(own, others) <= law.slowdown(own, [*others, more]) + 1e-9
