"""Solo times of a fake engine whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from profiler.solo import measure_solo
from tests.fakes.graphs import MS


class FakeEngine:
    """Its time is its own: a run lasts what `duration_ns(size, run)` says and nothing else takes time."""

    def __init__(self, duration_ns: Callable[[int, int], int]) -> None:
        self.duration_ns = duration_ns
        self.now_ns = 0
        self.sizes: list[int] = []

    def clock(self) -> int:
        return self.now_ns

    def run(self, size: int) -> int:
        taken_ns = self.duration_ns(size, len(self.sizes))
        self.sizes.append(size)
        self.now_ns += taken_ns
        return taken_ns

    def measure(self, sizes: Sequence[int], budget_ns: int) -> dict[int, int]:
        return measure_solo(self.run, sizes, budget_ns=budget_ns, clock=self.clock)


def test_a_steady_model_is_soon_known() -> None:
    engine = FakeEngine(lambda size, _: size * MS)
    assert engine.measure([8, 1, 4, 2], 2000 * MS) == {n: n * MS for n in (1, 2, 4, 8)}
    assert [engine.sizes.count(n) for n in (1, 2, 4, 8)] == [1 + 8] * 4
    assert engine.now_ns < 200 * MS


def test_the_first_run_of_a_size_does_not_count() -> None:
    engine = FakeEngine(lambda size, i: 500 * MS if i == 0 else size * MS)
    assert engine.measure([1, 2], 2000 * MS)[1] == MS
    assert engine.sizes.count(1) == 1 + 8


def test_a_noisy_model_uses_its_budget_and_no_more() -> None:
    noise = np.random.default_rng(1).lognormal(0, 0.5, 1000)
    engine = FakeEngine(lambda size, i: round(10 * size * MS * noise[i]))
    measured = engine.measure([1, 2], 1000 * MS)
    assert 900 * MS < engine.now_ns < 1200 * MS
    assert engine.sizes.count(1) > 1 + 8
    assert measured[1] == pytest.approx(10 * MS, rel=0.3)


def test_rare_disturbances_do_not_move_the_median() -> None:
    engine = FakeEngine(lambda _, i: 40 * MS if i % 7 == 3 else MS)
    assert engine.measure([1], 2000 * MS)[1] == MS


def test_a_slow_model_is_measured_past_the_budget_at_size_one_only() -> None:
    engine = FakeEngine(lambda size, _: 3000 * size * MS)
    assert engine.measure([1, 2, 4], 2000 * MS) == {1: 3000 * MS}
    assert engine.sizes == [1] * 4


def test_sizes_that_do_not_fit_are_left_out() -> None:
    engine = FakeEngine(lambda size, _: 50 * size * MS)
    measured = engine.measure([1, 2, 4, 8], 1000 * MS)
    assert list(measured) == [1, 2]
    assert engine.now_ns <= 1100 * MS


def test_runs_are_bounded_and_positive() -> None:
    durations = [0, 100, 200]
    engine = FakeEngine(lambda _, i: durations[i % 3])
    engine.measure([1], 10_000 * MS)
    assert len(engine.sizes) <= 1 + 200
    assert FakeEngine(lambda *_: 0).measure([1], MS) == {1: 1}
