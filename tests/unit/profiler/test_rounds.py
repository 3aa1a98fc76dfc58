"""Rounds of one batch size, by a clock that only the runs move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from profiler.rounds import ROUNDS_MIN, Rounds, interval

MS = 1_000_000


class Fake:
    """A run lasts what `duration_ns(round)` says, and nothing else takes time."""

    def __init__(self, duration_ns: Callable[[int], int], budget_ms: int = 8000) -> None:
        self.now_ns = 0
        self.round = 0
        self._duration_ns = duration_ns
        self.rounds = Rounds(self.run, budget_ms * MS, clock=lambda: self.now_ns)

    def run(self) -> int:
        self.now_ns += self._duration_ns(self.round)
        return self._duration_ns(self.round)

    def finish(self) -> Rounds:
        while not self.rounds.done:
            self.rounds.one()
            self.round += 1
        return self.rounds


def test_a_steady_model_is_done_after_the_least_rounds() -> None:
    measured = Fake(lambda _: 10 * MS).finish().result()
    assert (measured.p50_ns, measured.p95_ns, measured.rounds, measured.stable) == (10 * MS, 10 * MS, ROUNDS_MIN, True)
    assert measured.p50_interval_ns == (10 * MS, 10 * MS)


def test_slow_phases_move_neither_quantile_and_are_counted() -> None:
    measured = Fake(lambda i: (16 if i % 4 == 3 else 10) * MS).finish().result()
    assert (measured.p50_ns, measured.p95_ns) == (10 * MS, 10 * MS)
    assert measured.dropped > 0


def test_a_noisy_model_uses_its_budget_and_says_so() -> None:
    fake = Fake(lambda i: (9 + i % 3) * MS, budget_ms=3000)
    measured = fake.finish().result()
    assert 3000 * MS <= fake.now_ns < 3400 * MS
    assert not measured.stable
    assert measured.p50_interval_ns == (9 * MS, 11 * MS)


def test_a_small_budget_makes_short_rounds() -> None:
    fake = Fake(lambda i: (9 + i % 3) * MS, budget_ms=600)
    assert fake.finish().result().rounds >= ROUNDS_MIN
    assert 600 * MS <= fake.now_ns < 800 * MS


def test_a_clock_too_coarse_gives_no_zero() -> None:
    times = iter(range(0, 10**12, 100 * MS))
    rounds = Rounds(lambda: 0, MS, clock=lambda: next(times))
    rounds.one()
    assert rounds.result().p50_ns == 1


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, (39, 60)), (0.95, (90, 100))])
def test_intervals_are_order_statistics(quantile: float, expected: tuple[int, int]) -> None:
    low, high = interval(list(range(101)), quantile)
    assert (low, high) == pytest.approx(expected, abs=2)
