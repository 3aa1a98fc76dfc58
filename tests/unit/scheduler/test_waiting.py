"""The order in which one model's requests wait."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.scheduler.messages import Request
from backend.scheduler.waiting import BEST_EFFORT_NS, CLASS_NS, WaitingQueue, rank_ns


def request(id_: int, arrival: int = 0, deadline: int | None = None, priority: int = 1) -> Request:
    return Request(id_, 1, arrival, deadline, priority)


def test_a_request_ranks_by_its_deadline_and_a_fixed_time_per_class() -> None:
    assert rank_ns(request(1, 5, 70)) == 70
    assert rank_ns(request(1, 5, 70, priority=3)) == 70 + 2 * CLASS_NS
    assert rank_ns(request(1, 5)) == 5 + BEST_EFFORT_NS


def test_the_lowest_rank_is_the_head_and_equal_ranks_go_by_number() -> None:
    queue = WaitingQueue()
    for r in (request(1, 0, 50), request(3, 0, 40), request(2, 0, 40), request(4, 0, 30, priority=2)):
        queue.add(r)
    assert [r.id for r in queue.by_rank()] == [2, 3, 1, 4]
    assert queue.head() == request(2, 0, 40)


def test_in_order_ranks_by_arrival_alone() -> None:
    queue = WaitingQueue(in_order=True)
    for r in (request(1, 30, 31), request(2, 10, 99, priority=9), request(3, 20)):
        queue.add(r)
    assert [r.id for r in queue.by_rank()] == [2, 3, 1]


def test_an_empty_queue_has_no_heads() -> None:
    queue = WaitingQueue()
    assert (queue.head(), queue.late_head(), len(queue), list(queue.ids())) == (None, None, 0, [])
    queue.check()


def test_who_is_given_up_waits_behind_in_the_order_of_giving_up() -> None:
    queue = WaitingQueue()
    for r in (request(1, 0, 10), request(2, 0, 20), request(3, 0, 30)):
        queue.add(r)
    for id_ in (1, 2):
        head = queue.head()
        assert head is not None and head.id == id_
        queue.give_up(head)
    assert (queue.head(), queue.late_head()) == (request(3, 0, 30), request(1, 0, 10))
    assert [r.id for r in queue.by_lateness()] == [1, 2]
    assert len(queue) == 3
    assert 2 in queue


def test_the_request_that_becomes_late_first_is_known_whatever_its_class_and_deadline() -> None:
    queue = WaitingQueue()
    low = request(1, 0, 10, priority=3)
    for r, late_after_ns in ((low, 9.0), (request(2, 0, 20), 12.0), (request(3, 0, 21), 11.0), (request(4, 0), inf)):
        queue.add(r, late_after_ns)
    assert queue.head() == request(2, 0, 20)
    assert queue.first_late() == low
    queue.give_up(low)
    assert queue.first_late() == request(3, 0, 21)
    queue.remove(3)
    assert queue.first_late() == request(2, 0, 20)
    queue.remove(2)
    assert queue.first_late() is None


def test_a_number_waits_once() -> None:
    queue = WaitingQueue()
    queue.add(request(1))
    with pytest.raises(ValueError, match="request 1 already waits"):
        queue.add(request(1, 5))
    queue.remove(1)
    with pytest.raises(KeyError):
        queue.remove(1)
    queue.add(request(1, 5))
    queue.check()


def test_a_request_postponed_makes_the_next_one_the_first_to_be_late() -> None:
    queue = WaitingQueue()
    first, second = request(1, 0, 30), request(2, 0, 20)
    queue.add(first, 9.0)
    queue.add(second, 12.0)
    assert queue.postpone(first, 25.0)
    assert queue.first_late() == second
    assert not queue.postpone(first, 25.0) and not queue.postpone(first, 3.0)
    queue.check()
    queue.give_up(second)
    assert queue.first_late() == first


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("arr+gp"), st.integers(0, 9), st.integers(0, 3))), st.booleans())
def test_each_request_waits_in_one_place_whatever_is_done(steps: list[tuple[str, int, int]], in_order: bool) -> None:
    queue = WaitingQueue(in_order=in_order)
    waiting: dict[int, Request] = {}
    for step, id_, when in steps:
        if step == "r" and id_ in waiting:
            queue.remove(id_)
            del waiting[id_]
        elif step in "a+" and id_ not in waiting:
            waiting[id_] = request(id_, when, when if step == "a" else None)
            queue.add(waiting[id_], when if step == "a" else inf)
        elif step == "g" and (due := queue.first_late()) is not None:
            queue.give_up(due)
        elif step == "p" and (due := queue.first_late()) is not None:
            queue.postpone(due, when * 2.0)
        queue.check()
        found = {r.id: r for r in (*queue.by_rank(), *queue.by_lateness())}
        assert found == waiting
        assert len(queue) == len(waiting)
        assert set(queue.ids()) == set(waiting)
