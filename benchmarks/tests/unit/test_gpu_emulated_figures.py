"""Figures over draws, requests and the largest rate, each against what can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from backend.load.arrivals import Arrival
from benchmarks.gpu_emulated import rate_search
from benchmarks.gpu_emulated.drawn_gpu import drawn_gpu
from benchmarks.gpu_emulated.figures import difference, mean_kept, shown_difference
from benchmarks.gpu_emulated.parts import LANES
from benchmarks.gpu_emulated.plan import FULL, QUICK, STOCK_SERVED, TWO_CLASSES, Scenario, Served
from benchmarks.gpu_emulated.rate_search import largest_rate
from benchmarks.gpu_emulated.records import GpuRecords
from benchmarks.gpu_emulated.requests import classes, full_rate_per_s, rate_shares, request_plan
from benchmarks.gpu_emulated.runs import RunCase, RunFigures
from benchmarks.gpu_emulated.served.section import section
from benchmarks.gpu_emulated.served.turns import LoadKept, Turn, loads_kept, turns
from benchmarks.harness.parts import record_file


def figures(draw: int = 0, met: tuple[int, int] = (9, 5), load: float = 1.0) -> RunFigures:
    by_class = {"1": met[0], "2": met[1]}
    return RunFigures("naive", draw, "two classes", load, 2, 2.0, {"1": 10, "2": 10}, by_class, 0.1, 1.0, 0.0)


def test_a_difference_is_taken_draw_by_draw() -> None:
    found = difference({0: 3.0, 1: 5.0, 2: 1.0}, {0: 1.0, 1: 1.0, 2: 2.0, 3: 9.0})
    assert found is not None
    assert found.mean == pytest.approx(5 / 3)
    assert found[1:] == (-1.0, 4.0, 2, 1, 3)
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_a_difference_is_shown_where_enough_draws_agree_on_its_sign() -> None:
    found = difference({0: 3.0, 1: 5.0, 2: 1.0}, {0: 1.0, 1: 1.0, 2: 2.0})
    assert shown_difference(found, 2) == "+1.7 (-1.0 to +4.0)"
    assert shown_difference(found, 3) == "no sign (2 above, 1 below)"
    assert shown_difference(None, 3) == "–"


def test_equal_draws_have_no_sign() -> None:
    assert shown_difference(difference({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}), 1) == "no sign (0 above, 0 below)"


def test_deadlines_kept_are_means_over_draws_of_all_and_by_class() -> None:
    assert mean_kept({0: figures(), 1: figures(1, (10, 6))}) == "75.0 (95 / 55)"
    assert mean_kept({}) == "–"
    assert figures().goodput_per_s == 7.0


def test_rates_of_a_heavy_tail_fall_with_the_rank() -> None:
    shares = rate_shares(60, Scenario("tail", models=60, tail=True))
    assert sum(shares) == pytest.approx(1.0)
    assert shares[0] / shares[1] == pytest.approx(2.0)
    assert shares[0] / shares[59] == pytest.approx(60.0)
    assert rate_shares(4, TWO_CLASSES) == [0.25] * 4


def test_every_class_has_every_deadline() -> None:
    assert classes(12, 1) == [1] * 12
    assert classes(12, 2) == [1, 1, 1, 2, 2, 2] * 2
    assert classes(12, 4) == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_at_load_1_batches_of_four_keep_the_gpu_busy() -> None:
    drawn = drawn_gpu(0, 12)
    rate_per_s = full_rate_per_s(drawn, [1 / 12] * 12)
    busy = sum(rate_per_s / 12 / 4 * m.demand(4).busy_share * m.solo_ns(4) / 1e9 for m in drawn.models)
    assert busy == pytest.approx(1.0)
    plan = request_plan(drawn, TWO_CLASSES, 0.5, 40.0, 1)
    assert len(plan) / 40.0 == pytest.approx(0.5 * rate_per_s, rel=0.05)


def test_a_draw_is_the_same_each_time_and_unlike_the_next() -> None:
    drawn_gpu.cache_clear()
    first = drawn_gpu(3, 12)
    drawn_gpu.cache_clear()
    assert drawn_gpu(3, 12) == first
    assert drawn_gpu(4, 12).models[0] != first.models[0]
    assert first.law.seed != drawn_gpu(4, 12).law.seed


def test_the_largest_rate_is_found_to_the_last_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(case: RunCase) -> RunFigures:
        return figures(met=(10, 10) if case.load <= 0.3 else (10, 9), load=case.load)

    monkeypatch.setattr(rate_search, "run_case", run)
    found = largest_rate(RunCase("naive", 0, TWO_CLASSES, 1.0, 2, 2.0, 0.0), 0.99, 6)
    assert 0.3 - 1 / 64 < found.load <= 0.3
    assert found.rate_per_s == 10.0


def test_the_best_number_of_lanes_is_that_of_the_mean_over_the_first_draws(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(QUICK, lane_draws=2, rivals=("naive",), limits=())
    records = GpuRecords(plan, tmp_path)
    for draw, kept in enumerate([{2: (10, 2), 8: (8, 8)}, {2: (7, 7), 8: (9, 6)}]):
        found = [msgspec.structs.replace(figures(draw, met), lanes=lanes) for lanes, met in kept.items()]
        records.keep(record_file(LANES, draw), found)
    assert records.best_lanes("naive", 1.0) == 8


def test_fewer_draws_need_no_more_signs_than_there_are() -> None:
    few = FULL.with_draws(3)
    assert (few.draws, few.lane_draws, few.signs) == (3, 3, 3)
    assert FULL.with_draws(None) is FULL


def turn(rival: str, repeat: int, met: tuple[int, int]) -> Turn:
    return Turn(rival, repeat, [LoadKept(1.0, 1.0, {"1": 10, "2": 30}, {"1": met[0], "2": met[1]})], 0.01, 3.0)


def test_a_section_sets_the_server_next_to_virtual_time() -> None:
    served = Served(rivals=(STOCK_SERVED, "naive"), loads=(1.0,), repeats=2, chances=1)
    real = [turn(*of, met) for of, met in zip(turns(served), [(5, 15), (10, 18), (9, 18), (5, 15)], strict=True)]
    text = section(served, real, [turn(rival, repeat, (9, 21)) for rival, repeat in turns(served)])
    assert "| *stock Triton* | 50.0 (50 / 50); 75.0 (90 / 70); -25.0 |" in text
    assert "| *naive* | 68.8 (95 / 60); 75.0 (90 / 70); -6.2 |" in text
    assert "at most 3 ms late (p99, real time), 0 failed, the machine's host took at most 1 % of the CPU" in text


def test_rivals_take_turns_on_the_server_another_one_first_each_time() -> None:
    served = Served(rivals=("edf", "naive"), repeats=2)
    assert turns(served) == [("edf", 0), ("naive", 0), ("naive", 1), ("edf", 1)]


def test_requests_of_a_turn_are_counted_where_they_belong() -> None:
    """Two loads of which the first half does not count, in a time that is dilated ten times."""
    served = Served(loads=(0.5, 1.0), seconds=1.0, warm_s=1.0)
    arrivals = [Arrival(at_s, "m0", 1e3, 1) for at_s in (5.0, 15.0, 25.0, 35.0, 39.0)]
    first, second = loads_kept(served, [a.outcome(a.at_s, a.at_s + 0.5, "ok") for a in arrivals])
    assert (first.requests, second.requests) == ({"1": 1}, {"1": 2})
    assert second.kept() == 1.0
