"""Reasons that lie in requests to come: what was held for them, or made smaller."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.scheduler.policy import OWN_PRICE
from tests.fakes.builders import MS, START_NS, only_launch
from tests.fakes.explained import HEAVY_MODEL, LIGHT_MODEL, device, explained, key_of
from tests.fakes.recorded import Recorded


def fifty_per_second(made: Recorded, slo_ms: float) -> None:
    """Four seconds of light requests of class 1, each alone on the device."""
    for i in range(200):
        light = only_launch(made.at(20 * i).arrive(LIGHT_MODEL, made.request(slo_ms)))
        made.at(20 * i + 10).finish(key_of(light), 10 * MS)


def test_an_idle_device_that_is_held_for_a_higher_class_says_so(tmp_path: Path) -> None:
    """A light one would wait for 5 ms on average, and has 1 ms to spare; what would launch has no deadline to keep."""
    with device(tmp_path / "events", lanes=1) as made:
        fifty_per_second(made, 11.0)
        assert made.at(4_000).arrive(HEAVY_MODEL, made.request(priority=2)) == []
        made.at(4_030).wake()
    found, text = explained(tmp_path / "events", "2.201")
    (wait,) = found.waits
    assert (wait.reason, wait.running) == ("expected", [])
    assert wait.keeps == pytest.approx(0.03)
    (cost,) = wait.costs
    assert cost.priority == 1
    assert cost.lost == pytest.approx(0.49 * 0.87, rel=0.02)
    assert cost.price == pytest.approx(made.core.policy.prices.price(1))
    assert found.launched is not None
    assert (found.launched.at_ns, found.launched.limit) == (START_NS + 4_030 * MS, "all")
    assert "held, though the device was idle: of deadlines of requests to come it was expected to cost 0.4" in text
    assert "of class 1 (each counts" in text


def test_a_launch_that_costs_its_own_class_more_than_it_keeps_is_held(tmp_path: Path) -> None:
    """Beside the heavy one a light one takes 16 ms of 12."""
    with device(tmp_path / "events") as made:
        fifty_per_second(made, 12.0)
        first = only_launch(made.at(4_000).arrive(LIGHT_MODEL, made.request()))
        assert made.arrive(HEAVY_MODEL, made.request(1_000.0)) == []
        made.at(4_010).finish(key_of(first), 10 * MS)
    found, text = explained(tmp_path / "events", "2.202")
    (wait,) = found.waits
    assert (wait.reason, len(wait.running)) == ("expected", 1)
    assert [(cost.priority, cost.price) for cost in wait.costs] == [(1, OWN_PRICE)]
    assert "held: of deadlines of requests to come it was expected to cost 0.4" in text


def test_a_batch_that_is_smaller_for_requests_to_come_says_so(tmp_path: Path) -> None:
    """Six of one shape would end in 15 ms, with next to nothing to spare, three in 12."""
    with device(tmp_path / "events") as made:
        fifty_per_second(made, 12.0)
        only_launch(made.at(4_000).arrive(LIGHT_MODEL, made.request()))
        only_launch(made.arrive(HEAVY_MODEL, *(made.request(15.02) for _ in range(7))))
    found, text = explained(tmp_path / "events", "2.202")
    assert found.launched is not None
    assert (found.launched.limit, found.launched.requests, found.launched.allowed) == ("expected", 3, 6)
    assert "6 could have shared it, but a larger one would have cost requests to come more" in text
