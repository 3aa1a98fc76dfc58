"""Snapshots, staleness and requests on their way, as the router keeps them."""

from __future__ import annotations

import pytest

from backend.fleet.decisions import Picked, RouteRequest, Shed
from backend.fleet.device_table import STALE_NS, WAITING
from backend.fleet.endpoints import Endpoint, Fleet
from backend.fleet.in_flight import EXPIRE_NS
from backend.fleet.pick import pick
from tests.fakes.fleets import MS, START_NS, fleet_of, model_state, observed, snapshot_of


def picked(fleet: Fleet, now_ns: int = START_NS, model: str = "m") -> Picked:
    found = pick(fleet, RouteRequest(model), now_ns)
    assert isinstance(found, Picked)
    fleet.check()
    return found


def test_two_endpoints_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two endpoints are named 'a'"):
        Fleet([Endpoint("a", "10.0.0.1:1"), Endpoint("a", "10.0.0.2:1")])


def test_a_snapshot_that_is_older_changes_nothing() -> None:
    fleet = observed({"a": snapshot_of([model_state(waiting=3)], sequence=5)})
    fleet.observe("a", snapshot_of([model_state(waiting=7)], sequence=4), START_NS)
    assert fleet.table.facts[WAITING, 0] == 2  # and one is taken to be launched, on the free lane


def test_an_endpoint_is_stale_a_second_after_its_last_snapshot() -> None:
    fleet = observed({"a": snapshot_of([model_state()])})
    assert fleet.is_fresh("a", START_NS + STALE_NS)
    assert not fleet.is_fresh("a", START_NS + STALE_NS + 1)


def test_an_endpoint_that_is_lost_is_stale_at_once_and_fresh_with_its_next_snapshot() -> None:
    fleet = observed({"a": snapshot_of([model_state()], sequence=9)})
    fleet.lost("a", START_NS)
    assert not fleet.is_fresh("a", START_NS)
    fleet.observe("a", snapshot_of([model_state()], sequence=2), START_NS + MS)
    assert fleet.is_fresh("a", START_NS + MS)


def test_one_of_two_devices_may_be_lost() -> None:
    fleet = fleet_of("a")
    fleet.observe("a", snapshot_of([model_state("one")], device="gpu-0"), START_NS)
    fleet.observe("a", snapshot_of([model_state("two")], device="gpu-1"), START_NS)
    fleet.lost("a", START_NS, "gpu-0")
    assert fleet.is_fresh("a", START_NS)
    assert picked(fleet, model="two").endpoints == ("a",)
    shed = pick(fleet, RouteRequest("one"), START_NS)
    assert isinstance(shed, Shed)
    assert shed.status == 503


def test_a_request_is_in_flight_until_a_snapshot_counts_its_arrival() -> None:
    fleet = observed({"a": snapshot_of([model_state(arrivals=10)])})
    picked(fleet)
    picked(fleet)
    fleet.observe("a", snapshot_of([model_state(arrivals=11)], sequence=2), START_NS)
    assert len(fleet.in_flight) == 1
    fleet.observe("a", snapshot_of([model_state(arrivals=12)], sequence=3), START_NS)
    assert len(fleet.in_flight) == 0


def test_arrivals_of_others_leave_nothing_below_zero() -> None:
    fleet = observed({"a": snapshot_of([model_state(arrivals=10)])})
    picked(fleet)
    fleet.observe("a", snapshot_of([model_state(arrivals=500)], sequence=2), START_NS)
    fleet.check()
    assert len(fleet.in_flight) == 0


def test_an_answered_request_still_stands_for_its_own_arrival() -> None:
    """Else a snapshot that is older than its answer would take a later request for it."""
    fleet = observed({"a": snapshot_of([model_state(arrivals=0)])})
    first = picked(fleet)
    picked(fleet)
    fleet.answered(first, START_NS + MS)
    fleet.answered(first, START_NS + MS)
    assert len(fleet.in_flight) == 1
    fleet.observe("a", snapshot_of([model_state(arrivals=1)], sequence=2), START_NS + 2 * MS)
    assert len(fleet.in_flight) == 1


def test_a_request_that_never_arrives_expires() -> None:
    fleet = observed({"a": snapshot_of([model_state()])})
    picked(fleet)
    fleet.expire(START_NS + EXPIRE_NS - 1)
    assert len(fleet.in_flight) == 1
    fleet.expire(START_NS + EXPIRE_NS)
    assert len(fleet.in_flight) == 0
    fleet.check()


def test_a_publisher_that_began_anew_counts_from_zero() -> None:
    fleet = observed({"a": snapshot_of([model_state(arrivals=100)], sequence=50)})
    picked(fleet)
    fleet.observe("a", snapshot_of([model_state(arrivals=1)], sequence=1, publisher="second"), START_NS)
    assert len(fleet.in_flight) == 0


def test_a_model_that_a_short_snapshot_does_not_show_is_not_held() -> None:
    fleet = observed({"a": snapshot_of([model_state("m"), model_state("n")])})
    picked(fleet)
    fleet.observe("a", snapshot_of([model_state("n")], sequence=2), START_NS)
    assert isinstance(pick(fleet, RouteRequest("m"), START_NS), Shed)
    assert fleet.models() == [("n", ""), ("n", "1")]
    fleet.check()


def test_a_model_that_a_long_snapshot_does_not_show_may_be_held() -> None:
    """A snapshot has no place for more than so many."""
    others = [model_state(f"n{i}") for i in range(200)]
    fleet = observed({"a": snapshot_of([model_state("m"), *others]), "b": snapshot_of([model_state("n1")])})
    fleet.observe("a", snapshot_of(others, sequence=2), START_NS)
    assert picked(fleet).endpoints == ("a",)
    fleet.observe("b", snapshot_of([model_state("m")], sequence=2), START_NS)
    assert picked(fleet).endpoints == ("b",)


def test_a_clock_that_is_wrong_counts_as_the_time_of_receipt() -> None:
    ahead = observed({"a": snapshot_of([model_state(waiting=1)], at_ns=START_NS + 10**12)})
    right = observed({"a": snapshot_of([model_state(waiting=1)])})
    assert picked(ahead).predicted_finish_ns == picked(right).predicted_finish_ns


def test_a_request_may_arrive_on_another_device_of_its_endpoint() -> None:
    """The server hands it to whichever of its devices is best by its own forecast."""
    fleet = fleet_of("a")
    fleet.observe("a", snapshot_of([model_state(solo_ms=5.0)], device="gpu-0"), START_NS)
    fleet.observe("a", snapshot_of([model_state(solo_ms=20.0)], device="gpu-1"), START_NS)
    assert picked(fleet).endpoints == ("a",)
    fleet.observe("a", snapshot_of([model_state(arrivals=1)], device="gpu-1", sequence=2), START_NS)
    assert len(fleet.in_flight) == 0
    fleet.check()


def test_a_device_with_more_lanes_than_any_before_has_all_of_them() -> None:
    fleet = observed({"a": snapshot_of([model_state()]), "b": snapshot_of([model_state()], lanes=6)})
    found = [picked(fleet).endpoints[0] for _ in range(7)]
    assert found.count("b") == 6
