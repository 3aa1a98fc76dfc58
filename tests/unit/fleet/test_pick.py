"""Choice of an endpoint: by predicted finish, by harm to others, and never one that does not hold the model."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.fleet.decisions import Picked, RouteRequest, Shed
from backend.fleet.device_table import STALE_NS
from backend.fleet.endpoints import Fleet
from backend.fleet.pick import pick
from tests.fakes.fleets import MS, START_NS, batch, fleet_of, model_state, observed, snapshot_of


def first(fleet: Fleet, request: RouteRequest | None = None, now_ns: int = START_NS) -> str:
    return answer(fleet, request, now_ns).endpoints[0]


def answer(fleet: Fleet, request: RouteRequest | None = None, now_ns: int = START_NS) -> Picked:
    found = pick(fleet, request or RouteRequest("m"), now_ns)
    assert isinstance(found, Picked)
    return found


def finish_ms(fleet: Fleet, request: RouteRequest | None = None) -> float:
    return (answer(fleet, request).predicted_finish_ns[0] - START_NS) / MS


def test_a_model_that_nobody_holds_is_unknown() -> None:
    fleet = observed({"a": snapshot_of([model_state("n")]), "b": snapshot_of([])})
    assert pick(fleet, RouteRequest("m"), START_NS) == Shed("no server holds model 'm'", 404)
    assert pick(fleet, RouteRequest("n", "7"), START_NS) == Shed("no server holds model 'n' of version 7", 404)


def test_nothing_is_said_of_a_model_that_a_silent_endpoint_may_hold() -> None:
    fleet = fleet_of("a", "b")
    assert pick(fleet, RouteRequest("m"), START_NS) is None
    fleet.observe("a", snapshot_of([model_state("n")]), START_NS)
    assert pick(fleet, RouteRequest("m"), START_NS) is None


def test_a_model_is_unavailable_where_all_that_hold_it_are_stale() -> None:
    fleet = observed({"a": snapshot_of([model_state("m")]), "b": snapshot_of([model_state("n")])})
    fleet.lost("a", START_NS)
    found = pick(fleet, RouteRequest("m"), START_NS)
    assert isinstance(found, Shed)
    assert found.status == 503


def test_nothing_is_said_where_all_endpoints_are_stale() -> None:
    fleet = observed({"a": snapshot_of([model_state()])})
    assert pick(fleet, RouteRequest("m"), START_NS + STALE_NS + 1) is None


def test_a_version_is_asked_for_and_no_version_is_the_highest() -> None:
    both = [model_state(version="9", solo_ms=1.0), model_state(version="10", solo_ms=30.0)]
    fleet = observed({"a": snapshot_of(both), "b": snapshot_of([model_state(version="9", solo_ms=20.0)])})
    assert first(fleet) == "b"
    assert first(fleet, RouteRequest("m", "9")) == "a"
    assert answer(fleet, RouteRequest("m", "10")).endpoints == ("a",)


def test_the_faster_device_is_first_and_all_are_ranked() -> None:
    fleet = observed({n: snapshot_of([model_state(solo_ms=ms)]) for n, ms in (("a", 30), ("b", 10), ("c", 20))})
    assert answer(fleet).endpoints == ("b", "c", "a")


def test_a_running_batch_is_waited_for() -> None:
    fleet = observed({"a": snapshot_of([model_state()], [batch(remaining_ms=7)])})
    assert finish_ms(fleet) == 17.0


def test_a_running_batch_ends_as_time_passes() -> None:
    fleet = observed({"a": snapshot_of([model_state()], [batch(remaining_ms=7)])})
    assert answer(fleet, now_ns=START_NS + 5 * MS).predicted_finish_ns[0] == START_NS + 17 * MS


def test_a_free_lane_is_not_waited_for() -> None:
    fleet = observed({"a": snapshot_of([model_state()], [batch(remaining_ms=7)], lanes=2)})
    assert finish_ms(fleet) == 10.0


def test_only_requests_of_the_same_or_a_higher_class_are_waited_for() -> None:
    models = [model_state(), model_state("n", waiting=2, priority=2)]
    assert finish_ms(observed({"a": snapshot_of(models, [batch("n")])}), RouteRequest("m", priority=1)) == 20.0
    assert finish_ms(observed({"a": snapshot_of(models, [batch("n")])}), RouteRequest("m", priority=2)) == 40.0


def test_what_waits_is_done_as_time_passes() -> None:
    fleet = observed({"a": snapshot_of([model_state(), model_state("n", waiting=2)])})
    assert answer(fleet, now_ns=START_NS + 12 * MS).predicted_finish_ns[0] == START_NS + 30 * MS


def test_requests_of_the_model_share_a_batch() -> None:
    alone = observed({"a": snapshot_of([model_state(max_batch_size=8, waiting=3)], [batch(remaining_ms=5)])})
    assert round(finish_ms(alone)) == 18
    full = observed({"a": snapshot_of([model_state(max_batch_size=4, waiting=4)], [batch(remaining_ms=5)])})
    assert round(finish_ms(full)) == 28


def test_co_runners_slow_it_down() -> None:
    models = [model_state(sensitivity=0.5), model_state("n", pressure=2.0)]
    fleet = observed({"a": snapshot_of(models, [batch("n", 100)], lanes=2)})
    assert round(finish_ms(fleet), 3) == 20.0


def test_a_tight_batch_of_others_is_spared() -> None:
    """Both would finish it at the same time, but one has a batch that it would take past its deadline."""
    models = [model_state(pressure=1.0), model_state("n", sensitivity=0.5)]
    tight, loose = batch("n", 20, slack_ms=2), batch("n", 20, slack_ms=200)
    fleet = observed({"a": snapshot_of(models, [tight], lanes=2), "b": snapshot_of(models, [loose], lanes=2)})
    assert first(fleet) == "b"


def test_a_deadline_that_no_endpoint_keeps_goes_where_least_harm_is_done() -> None:
    """The idle device is too slow to keep it; on the fast one others wait."""
    fast = snapshot_of([model_state(solo_ms=10.0), model_state("n", waiting=50)])
    fleet = observed({"fast": fast, "slow": snapshot_of([model_state(solo_ms=40.0)])})
    assert first(fleet, RouteRequest("m", deadline_ns=START_NS + 5 * MS)) == "slow"


def test_equal_endpoints_take_turns() -> None:
    fleet = observed({f"e{i}": snapshot_of([model_state()]) for i in range(10)})
    found = Counter(first(fleet) for _ in range(100))
    assert found == Counter({f"e{i}": 10 for i in range(10)})


def test_requests_between_two_snapshots_do_not_herd() -> None:
    """The device that the last snapshot showed idle does not get all of them."""
    busy = snapshot_of([model_state(waiting=2)], [batch()])
    fleet = observed({"idle": snapshot_of([model_state()]), "one": busy, "two": busy})
    found = Counter(first(fleet) for _ in range(9))
    assert found == {"idle": 5, "one": 2, "two": 2}


@st.composite
def _events(draw: st.DrawFn) -> list[tuple[object, ...]]:
    kinds = st.one_of(
        st.tuples(st.just("pick"), st.sampled_from("mno"), st.integers(1, 9), st.integers(1, 3)),
        st.tuples(st.just("observe"), st.integers(0, 2), st.sets(st.sampled_from("mno")), st.integers(0, 4)),
        st.tuples(st.just("lost"), st.integers(0, 2)),
        st.tuples(st.just("answered"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(0, 1500)),
    )
    return draw(st.lists(kinds, max_size=40))


@settings(max_examples=60, deadline=None)
@given(_events())
def test_every_pick_is_of_a_fresh_endpoint_that_holds_the_model(events: list[tuple[object, ...]]) -> None:
    names = ("a", "b", "c")
    fleet, now_ns, sequence = fleet_of(*names), START_NS, 0
    held: dict[str, tuple[int, set[str]]] = {}
    arrivals: Counter[tuple[str, str]] = Counter()
    picks: list[Picked] = []
    for kind, *rest in events:
        if kind == "wait":
            now_ns += int(str(rest[0])) * MS
        elif kind == "lost":
            name = names[int(str(rest[0]))]
            fleet.lost(name, now_ns)
            held.pop(name, None)
        elif kind == "answered" and picks:
            fleet.answered(picks[int(str(rest[0])) % len(picks)], now_ns)
        elif kind == "observe":
            name, models, more = names[int(str(rest[0]))], rest[1], int(str(rest[2]))
            assert isinstance(models, set)
            sequence += 1
            for model in models:
                arrivals[name, model] += more
            states = [model_state(m, waiting=more, arrivals=arrivals[name, m]) for m in sorted(models)]
            fleet.observe(name, snapshot_of(states, sequence=sequence, at_ns=now_ns), now_ns)
            held[name] = now_ns, models
        elif kind == "pick":
            found = pick(fleet, RouteRequest(str(rest[0]), rows=int(str(rest[1])), priority=int(str(rest[2]))), now_ns)
            fresh = {name for name, (at_ns, _) in held.items() if at_ns + STALE_NS >= now_ns}
            holders = {name for name in fresh if rest[0] in held[name][1]}
            if isinstance(found, Picked):
                picks.append(found)
                assert set(found.endpoints) == holders
                assert all(finish_ns >= now_ns for finish_ns in found.predicted_finish_ns)
            else:
                assert not holders
        fleet.check()
