"""Machines by their peaks."""

from __future__ import annotations

import pytest

from predictor.machines.peaks import MachinePeaks, likeness

V100 = MachinePeaks(15.7, 900.0, 80, 16 << 30)
P100 = MachinePeaks(9.3, 732.0, 56, 16 << 30)
K80 = MachinePeaks(4.4, 240.0, 13, 12 << 30)


def test_likeness_is_whole_for_the_same_and_less_the_further_peaks_are_apart() -> None:
    assert likeness(V100, V100) == 1.0
    assert 1.0 > likeness(V100, P100) > likeness(P100, K80) > likeness(V100, K80) > 0.0
    assert likeness(V100, K80) == pytest.approx(likeness(K80, V100))


def test_likeness_leaves_out_what_is_unknown_of_either() -> None:
    assert likeness(MachinePeaks(compute_tflops=15.7), V100) == 1.0
    assert 0.0 < likeness(MachinePeaks(compute_tflops=15.7), MachinePeaks(lanes=4)) < 1.0


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 10**400])
def test_peaks_that_are_no_positive_numbers_are_refused_in_words(value: float) -> None:
    with pytest.raises(ValueError, match=rf"memory_gb_per_s of a machine is {value}, but must be above 0 and at most"):
        MachinePeaks(memory_gb_per_s=value)
