"""Estimate of a device between two snapshots: batches end, what waits takes their lanes, requests are taken in."""

from __future__ import annotations

from math import inf

import pytest

from backend.fleet import device_estimate
from backend.fleet.device_estimate import DeviceEstimate, rank_of, slowdown, solo_ns
from backend.fleet.in_flight import RequestCost, SentRequest
from backend.fleet.snapshot import MAX_RUNNING, DeviceSnapshot, ModelState
from backend.scheduler import waiting
from backend.scheduler.messages import Request
from tests.fakes.fleets import MS, batch, model_state, snapshot_of


def estimate_of(snapshot: DeviceSnapshot, *shown: SentRequest, told: bool = True) -> DeviceEstimate:
    """The estimate at instant 0. shown: of model m, the newest first."""
    models = {(state.name, state.version): state for state in snapshot.models}
    return DeviceEstimate(snapshot, models, 0.0, lambda key: shown if key[0] == "m" else (), told=told)


def request(
    number: int, due_ms: float = inf, sent_ms: float = 0.0, work_ms: float = 10.0, model: str = "m"
) -> SentRequest:
    cost = RequestCost(work_ms * MS, work_ms * MS, 0.0, 0.0, 4)
    return SentRequest(
        number, ("a", model, "1"), 0, 1, rank_of(due_ms * MS, 1, sent_ms * MS), sent_ms * MS, due_ms * MS, cost
    )


def lefts_ms(estimate: DeviceEstimate) -> list[float]:
    return sorted(round(one.left / MS, 3) for one in estimate.batches)


def test_ranks_are_those_of_the_scheduler() -> None:
    assert (device_estimate.CLASS_NS, device_estimate.BEST_EFFORT_NS) == (waiting.CLASS_NS, waiting.BEST_EFFORT_NS)
    for due_ns in (None, 7 * MS):
        theirs = waiting.rank_ns(Request(1, 1, 5 * MS, due_ns, 3))
        assert rank_of(inf if due_ns is None else due_ns, 3, 5 * MS) == theirs


def test_batches_end_as_time_passes_and_what_waits_takes_their_lanes() -> None:
    estimate = estimate_of(snapshot_of([model_state(waiting=2)], [batch(remaining_ms=4)]))
    assert (lefts_ms(estimate), estimate.waiting) == ([4.0], 2)
    estimate.advance(5 * MS)
    assert (lefts_ms(estimate), estimate.waiting) == ([9.0], 1)
    estimate.advance(30 * MS)
    assert (lefts_ms(estimate), estimate.waiting) == ([], 0)


def test_requests_wait_by_rank_and_late_ones_last() -> None:
    estimate = estimate_of(snapshot_of([model_state()], [batch(remaining_ms=20)]))
    for number, due_ms in ((1, 200.0), (2, 100.0), (3, 5.0)):
        estimate.add(request(number, due_ms, model=f"n{number}"))
    order = []
    for at_ms in (21, 31, 41):
        estimate.advance(at_ms * MS)
        order += [number for one in estimate.batches for number in one.numbers]
        estimate.answered(order[-1], at_ms * MS)
    assert order == [2, 1, 3]


def test_requests_of_a_model_join_a_batch_until_it_is_full() -> None:
    estimate = estimate_of(snapshot_of([model_state()], [batch(remaining_ms=20)]))
    for number in range(1, 6):
        estimate.add(request(number))
    assert [one.lane.numbers for one in estimate.queue] == [[1, 2, 3, 4], [5]]
    assert {rows for rows, _ in estimate.open_batches().values()} == {1}


def test_a_batch_with_a_request_ends_with_its_answer_and_not_before() -> None:
    estimate = estimate_of(snapshot_of([model_state()]))
    estimate.add(request(1))
    estimate.advance(500 * MS)
    assert lefts_ms(estimate) == [1.0]
    estimate.answered(1, 501 * MS)
    assert estimate.batches == []


def test_a_batch_ends_when_predicted_where_nobody_tells_of_answers() -> None:
    estimate = estimate_of(snapshot_of([model_state()]), told=False)
    estimate.add(request(1))
    estimate.advance(11 * MS)
    assert estimate.batches == []


def test_an_early_answer_frees_the_lane_for_what_waits() -> None:
    estimate = estimate_of(snapshot_of([model_state()]))
    estimate.add(request(1, work_ms=50.0))
    estimate.add(request(2, model="n"))
    estimate.answered(1, 5 * MS)
    assert [one.numbers for one in estimate.batches] == [[2]]
    assert estimate.queue == []


def test_a_snapshot_s_requests_get_their_numbers_back_the_newest_wait() -> None:
    snapshot = snapshot_of([model_state(waiting=2)], [batch(remaining_ms=4)])
    estimate = estimate_of(snapshot, request(9), request(8), request(7))
    assert sorted(number for one in estimate.queue for number in one.lane.numbers) == [8, 9]
    assert [one.numbers for one in estimate.batches] == [[7]]


def test_co_runners_are_slowed_down_while_a_batch_runs() -> None:
    models = [model_state("m", sensitivity=0.5), model_state("n", pressure=1.0)]
    estimate = estimate_of(snapshot_of(models, [batch("m", 20)], lanes=2))
    cost = RequestCost(10 * MS, 10 * MS, 1.0, 0.0, 1)
    estimate.add(request(1, model="n")._replace(cost=cost))
    assert lefts_ms(estimate) == [10.0, 30.0]
    estimate.answered(1, 10 * MS)
    assert lefts_ms(estimate) == [pytest.approx(20 / 1.5, abs=0.001)]


def test_solo_latencies_between_and_beyond_known_sizes() -> None:
    state = model_state(max_batch_size=8)
    assert [solo_ns(state, rows) / MS for rows in (1, 3, 8, 16)] == [10.0, 12.0, 17.0, 34.0]


def test_a_slowdown_is_bounded() -> None:
    assert slowdown(model_state(sensitivity=1e9), 1e9) == 20.0


@pytest.mark.parametrize("name", ["x", "-1", "9" * 5000, ""])
def test_a_class_that_is_no_number_counts_as_the_first(name: str) -> None:
    state = ModelState("m", "1", 1, 0, {name: 1}, 1, [(1, MS)], 1.0, 0.0, 0.0, None, 1)
    estimate = estimate_of(snapshot_of([state], [batch(remaining_ms=4)]))
    assert [one.rank for one in estimate.queue] == [0.5 * waiting.BEST_EFFORT_NS]


def test_numbers_beyond_reason_cost_nothing() -> None:
    state = ModelState("m", "1", 4, 0, {"1": 1 << 60}, 1 << 60, [(1, MS)], 1.0, 0.0, 0.0, None, 1)
    estimate = estimate_of(snapshot_of([state], lanes=1 << 60))
    assert estimate.lanes == MAX_RUNNING
    assert len(estimate.batches) + len(estimate.queue) <= 64
