"""Figures of models on types of machines: measured ones as they are, others from the types where they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import msgspec
import pytest

from backend.fleet.machine_figures import MEASURED, MachineFigures
from backend.fleet.placement import SLOWDOWN, SOLO, ModelFigures
from backend.fleet.snapshot import DeviceSnapshot, MachineFacts, ModelState
from tests.fakes.fleets import model_state, snapshot_of

FAST = MachineFacts("A100", True, compute_tflops=312.0, memory_gb_per_s=1555.0)
LIKE_FAST = MachineFacts("A100 too", True, compute_tflops=300.0, memory_gb_per_s=1500.0)
SLOW = MachineFacts("T4", True, compute_tflops=65.0, memory_gb_per_s=320.0)
LOUD, MEEK = 3.0, 0.5
"""Pressures beside the others' 1."""
PRESSURES = {"a": 1.0, "b": 1.0, "loud": LOUD, "meek": MEEK}


def run(name: str, solo_ms: float, factor: float = 1.0, unit: float = 1.0, arrivals: int = MEASURED) -> ModelState:
    """A model that has run. factor: on what co-runners add; unit: of the device's pressures."""
    pressure = PRESSURES.get(name, 1.0)
    return model_state(name, solo_ms, arrivals=arrivals, sensitivity=0.4 * factor / unit, pressure=unit * pressure)


def device(machine: MachineFacts, *models: ModelState) -> DeviceSnapshot:
    return msgspec.structs.replace(snapshot_of(models), machine=machine)


def told(*devices: DeviceSnapshot) -> MachineFigures:
    found = MachineFigures()
    for one in devices:
        found.observe(one.machine.name, [one])
    return found


def known(figures: MachineFigures, model: str, machine: MachineFacts) -> ModelFigures:
    found = figures.figures(model, machine.name)
    assert found is not None
    return found


def adds(figures: Mapping[str, ModelFigures], own: str, other: str) -> float:
    return figures[own].sensitivity * figures[other].pressure


def test_what_was_measured_stands() -> None:
    figures = told(device(FAST, run("a", 10.0)), device(SLOW, run("a", 40.0, 2.0), run("b", 20.0)))
    assert known(figures, "a", SLOW) == ModelFigures(40e6, 1.0, 0.8, 1.0)
    assert known(figures, "a", FAST).predicted == ()


def test_where_it_never_ran_a_model_is_as_slow_as_others_are_there() -> None:
    figures = told(device(FAST, run("a", 10.0), run("b", 4.0)), device(SLOW, run("b", 12.0)))
    found = known(figures, "a", SLOW)
    assert found.solo_ns == pytest.approx(30e6)
    assert found.predicted == (SOLO, SLOWDOWN)


def test_a_type_that_is_alike_counts_more_than_one_that_is_not() -> None:
    figures = told(device(FAST, run("a", 10.0)), device(SLOW, run("a", 80.0)), device(LIKE_FAST))
    by_fast, by_slow = 10.0 * 312 / 300, 80.0 * 65 / 300
    found_ms = known(figures, "a", LIKE_FAST).solo_ns / 1e6
    assert min(by_fast, by_slow) < found_ms < max(by_fast, by_slow)
    assert abs(found_ms - by_fast) < abs(found_ms - sqrt(by_fast * by_slow))


def test_a_type_of_which_nothing_is_told_is_not_guessed() -> None:
    figures = told(device(FAST, run("a", 10.0)), device(MachineFacts("unknown", True)))
    assert figures.figures("a", "unknown") is None
    assert figures.figures("never seen", FAST.name) is None
    assert figures.figures("a", "never seen") is None


def test_who_is_loud_elsewhere_is_expected_to_be_loud_here() -> None:
    models = [run(name, 10.0) for name in PRESSURES]
    figures = told(device(FAST, *models), device(SLOW, *(run(name, 40.0, arrivals=0) for name in PRESSURES)))
    found = {name: known(figures, name, SLOW) for name in PRESSURES}
    assert {one.predicted for one in found.values()} == {(SLOWDOWN,)}
    assert adds(found, "a", "loud") > 1.5 * adds(found, "a", "b") > 1.5 * adds(found, "a", "meek")


def test_a_new_model_is_expected_in_the_units_of_those_that_ran_there() -> None:
    there = [run(name, 40.0, unit=8.0) for name in ("a", "b", "meek")]
    figures = told(device(FAST, *(run(name, 10.0) for name in PRESSURES)), device(SLOW, *there))
    found = {name: known(figures, name, SLOW) for name in PRESSURES}
    assert found["loud"].predicted == (SOLO, SLOWDOWN)
    assert adds(found, "a", "loud") == pytest.approx(0.4 * LOUD, rel=0.3)
    assert adds(found, "loud", "a") == pytest.approx(0.4, rel=0.3)


def test_own_samples_correct_what_other_types_made_expect() -> None:
    before = told(device(FAST, *(run(name, 10.0) for name in PRESSURES)), device(SLOW))
    expected = {name: known(before, name, SLOW) for name in PRESSURES}
    before.observe(SLOW.name, [device(SLOW, run("a", 40.0, 3.0), run("b", 40.0, 3.0), run("meek", 40.0, 3.0))])
    after = {name: known(before, name, SLOW) for name in PRESSURES}
    assert adds(after, "a", "loud") > 1.5 * adds(expected, "a", "loud")


def test_a_device_that_only_guesses_does_not_replace_what_another_measured() -> None:
    figures = told(device(SLOW, run("a", 40.0)), device(SLOW, run("a", 99.0, 7.0, arrivals=0)))
    assert known(figures, "a", SLOW).solo_ns == 40e6


def test_the_state_comes_back_whole() -> None:
    figures = told(device(FAST, *(run(name, 10.0) for name in PRESSURES)), device(SLOW, run("a", 30.0)))
    again = MachineFigures()
    again.restore(msgspec.json.decode(msgspec.json.encode(figures.state())))
    for name in PRESSURES:
        one, other = known(figures, name, SLOW), known(again, name, SLOW)
        assert one.predicted == other.predicted
        assert one[:4] == pytest.approx(other[:4], rel=0.05)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "version 2 of figures is not known here, only 1"),
        ({"types": {}}, "of different types of machines"),
        ({"types": {"A100": {"a": [0.0, 1.0, 0.0, 0.0, True]}}}, "a solo latency is 0.0 ns"),
        ({"types": {"A100": {"a": [1.0, -1.0, 0.0, 0.0, True]}}}, "must be 0 or more"),
        ({"predictor": {}}, "Expected"),
    ],
)
def test_a_state_that_is_none_changes_nothing(change: dict[str, object], sentence: str) -> None:
    figures = told(device(FAST, run("a", 10.0)))
    state = msgspec.json.decode(msgspec.json.encode(figures.state()))
    with pytest.raises(ValueError, match=sentence):
        figures.restore(state | change)
    assert known(figures, "a", FAST).solo_ns == 10e6
