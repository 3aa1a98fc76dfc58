"""Windows that a load is compared by: the same arrivals with it and without."""

from __future__ import annotations

import pytest

from backend.load.arrivals import Traffic
from backend.load.outcomes import Outcome
from benchmarks.load_interference import twice, window


def outcome(at_s: float, latency_ms: float) -> Outcome:
    return Outcome("a", at_s, at_s, at_s + latency_ms / 1e3, 50.0, 1, "ok")


LATE_BESIDE = [outcome(at_s, 20.0) for at_s in (0.5, 2.5, 3.5, 7.5, 8.5)] + [outcome(4.5, 80.0), outcome(9.5, 40.0)]


@pytest.mark.parametrize(
    ("loaded_s", "again_s", "cut_s", "kept", "kept_without", "requests"),
    [
        ((2.0, 5.0), 5.0, 7.0, 2 / 3, 1.0, 3),  # with the load first
        ((7.0, 10.0), -5.0, 12.0, 1.0, 2 / 3, 3),  # and second
        ((2.0, 8.0), 5.0, 7.0, 0.5, 1.0, 2),  # a second longer than the arrivals that come twice
        ((7.0, 30.0), -5.0, 12.0, 1.0, 2 / 3, 3),
    ],
)
def test_what_arrived_during_the_load_is_compared_with_the_same_arrivals_without_it(
    loaded_s: tuple[float, float], again_s: float, cut_s: float, kept: float, kept_without: float, requests: int
) -> None:
    found = window(LATE_BESIDE, loaded_s, again_s, cut_s)
    assert found is not None
    assert (found.kept, found.kept_without, found.requests) == (kept, kept_without, requests)
    assert found.took_s == loaded_s[1] - loaded_s[0]
    assert found.drop == pytest.approx(100 * (kept_without - kept))


@pytest.mark.parametrize(
    "loaded_s",
    [
        (0.6, 0.8),  # nothing arrived
        (2.0, 12.5),  # all of the arrivals without it were disturbed as well
    ],
)
def test_a_load_that_leaves_nothing_to_compare_is_no_measurement(loaded_s: tuple[float, float]) -> None:
    assert window(LATE_BESIDE, loaded_s, 5.0, 7.0) is None


def test_the_same_arrivals_come_twice_after_a_lead() -> None:
    plan = twice([Traffic("a", 20.0, 50.0), Traffic("b", 5.0, 90.0)], 10.0, seed=1)
    times = [a.at_s for a in plan]
    assert times == sorted(times)
    first, second = ([a for a in plan if begin <= a.at_s < begin + 10.0] for begin in (2.0, 12.0))
    assert len(first) > 100
    assert [(a.model, a.slo_ms) for a in first] == [(a.model, a.slo_ms) for a in second]
    assert [a.at_s + 10.0 for a in first] == pytest.approx([a.at_s for a in second])
