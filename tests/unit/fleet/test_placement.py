"""Placement of models on machines: by memory, load and interference; few moves from what is there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import ConfigError
from backend.fleet.placement import SLOWDOWN, SOLO, MachineSpace, ModelDemand, ModelFigures, PredictedFigures, place

MS = 1e6


def model(
    name: str,
    rate_per_s: float = 1.0,
    memory_bytes: int = 1,
    replicas: int = 1,
    figures: dict[str, ModelFigures] | None = None,
) -> ModelDemand:
    return ModelDemand(name, rate_per_s, memory_bytes, figures or {"x": ModelFigures(10 * MS)}, replicas)


def machine(name: str, memory_bytes: int = 10, holds: tuple[str, ...] = (), kind: str = "x") -> MachineSpace:
    return MachineSpace(name, kind, memory_bytes, holds=holds)


def test_equal_models_are_spread() -> None:
    plan = place([model(n, rate_per_s=30) for n in "abcd"], [machine("p"), machine("q")])
    assert [len(on) for on in plan.holds.values()] == [2, 2]


def test_a_model_that_does_not_fit_is_an_error_in_words() -> None:
    with pytest.raises(ConfigError, match=r"model 'big' needs 11 bytes, .* the most is 10 bytes on 'p'"):
        place([model("big", memory_bytes=11)], [machine("p"), machine("q", memory_bytes=9)])


def test_models_that_fit_only_one_by_one_are_an_error_in_words() -> None:
    with pytest.raises(ConfigError, match=r"needs 6 bytes, .* the most is 4 bytes on 'p'"):
        place([model("a", memory_bytes=6), model("b", memory_bytes=6)], [machine("p")])


def test_a_machine_that_holds_more_than_its_memory_is_an_error() -> None:
    with pytest.raises(ConfigError, match="machine 'p' is said to hold model 'b' of 6 bytes"):
        place([model("a", memory_bytes=6), model("b", memory_bytes=6)], [machine("p", holds=("a", "b"))])


def test_more_replicas_than_machines_are_an_error() -> None:
    with pytest.raises(ConfigError, match="'a' is to be on 3 machines, but only 2 are of a type"):
        place([model("a", replicas=3)], [machine("p"), machine("q"), machine("r", kind="y")])


@pytest.mark.parametrize("what", ["models", "machines"])
def test_two_of_one_name_are_an_error(what: str) -> None:
    models = [model("a")] * (2 if what == "models" else 1)
    machines = [machine("p")] * (2 if what == "machines" else 1)
    with pytest.raises(ConfigError, match=f"two of the {what} to place are named"):
        place(models, machines)


def test_a_model_that_one_machine_cannot_serve_alone_gets_another_one() -> None:
    plan = place([model("a", rate_per_s=150)], [machine("p"), machine("q"), machine("r")])
    assert sum("a" in on for on in plan.holds.values()) >= 2


def test_a_model_goes_where_it_is_fast() -> None:
    both = {"x": ModelFigures(10 * MS), "y": ModelFigures(50 * MS)}
    plan = place([model("a", 10, figures=both)], [machine("slow", kind="y"), machine("fast")])
    assert plan.holds == {"slow": (), "fast": ("a",)}


def test_models_that_slow_each_other_down_are_kept_apart() -> None:
    loud, quiet = ModelFigures(10 * MS, 1.0, 0.0, 9.0), ModelFigures(10 * MS, 1.0, 0.0, 0.0)
    tender = ModelFigures(10 * MS, 1.0, 2.0, 0.0)
    models = [
        model("loud", 20, figures={"x": loud}),
        model("quiet", 20, figures={"x": quiet}),
        model("tender", 20, figures={"x": tender}),
    ]
    plan = place(models, [machine("p", 2), machine("q", 2)])
    assert not any({"loud", "tender"} <= set(on) for on in plan.holds.values())


def test_nothing_moves_where_nothing_is_gained() -> None:
    machines = [machine("p", holds=("a", "b")), machine("q", holds=("c", "d"))]
    assert place([model(n) for n in "abcd"], machines).moves == ()


def test_a_few_moves_that_are_worth_it() -> None:
    machines = [machine("p", holds=("a", "b", "c", "d")), machine("q")]
    plan = place([model(n, rate_per_s=22) for n in "abcd"], machines)
    assert 1 <= sum(move.action == "load" for move in plan.moves) <= 3
    assert plan.after < plan.before
    assert all(move.gain > 0.0 for move in plan.moves if move.action == "load")


def test_a_model_that_is_wanted_no_more_is_unloaded() -> None:
    plan = place([model("a")], [machine("p", holds=("old", "a"))])
    assert [(m.action, m.model, m.machine) for m in plan.moves] == [("unload", "old", "p")]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 200), st.integers(1, 5), st.integers(1, 2)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from("xy")), min_size=1, max_size=5),
)
def test_every_plan_fits_holds_all_models_and_is_the_same_again(
    wanted: list[tuple[float, int, int]], space: list[tuple[int, str]]
) -> None:
    both = {"x": ModelFigures(10 * MS, 1.0, 0.3, 0.8), "y": ModelFigures(25 * MS, 1.0, 0.2, 0.5)}
    models = [model(f"m{i}", rate, size, n, both) for i, (rate, size, n) in enumerate(wanted)]
    machines = [machine(f"p{i}", size, kind=kind) for i, (size, kind) in enumerate(space)]
    try:
        plan = place(models, machines)
    except ConfigError:
        return
    sizes = {m.name: m.memory_bytes for m in models}
    for one in machines:
        assert sum(sizes[name] for name in plan.holds[one.name]) <= one.memory_bytes
    for one_model in models:
        assert sum(one_model.name in on for on in plan.holds.values()) >= one_model.replicas
    assert plan.after <= plan.before + 1e-9
    assert place(models, machines) == plan


def test_the_largest_are_placed_first_where_the_busiest_first_do_not_fit() -> None:
    models = [model("busy", 90, memory_bytes=4), model("large", 1, memory_bytes=10)]
    plan = place(models, [machine("p", 10), machine("q", 5)])
    assert plan.holds == {"p": ("large",), "q": ("busy",)}


def test_a_plan_names_the_figures_that_were_predicted() -> None:
    guessed = ModelFigures(10 * MS, predicted=(SOLO, SLOWDOWN))
    plan = place([model("a", figures={"x": guessed}), model("b")], [machine("p")])
    assert plan.predicted == (PredictedFigures("a", "p", (SOLO, SLOWDOWN)),)
