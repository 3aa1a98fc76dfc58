"""One predictor for several machines, in a world where one machine's slowdowns are a power of another's."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import cache
from math import exp, inf, nan

import numpy as np
import pytest

from predictor.features import Own
from predictor.machines.machine_predictor import MACHINES_MAX, MachinePredictor
from predictor.machines.peaks import MachinePeaks
from predictor.workload import Load

PEAKS = {"fast": MachinePeaks(100.0, 1_000.0), "middle": MachinePeaks(70.0, 800.0), "slow": MachinePeaks(10.0, 150.0)}
FORM = {"fast": (-1.0, 1.0), "middle": (-0.8, 0.9), "slow": (-0.1, 0.4)}
"""Log of what a usual co-runner adds, and the exponent."""
KINDS = [(model, size) for model in "abcdefgh" for size in (1, 4)]
SIZES = np.random.default_rng(5).standard_normal((2, len(KINDS))) * 0.2
MODELS = np.random.default_rng(6).standard_normal((2, 8)).repeat(2, axis=1) * 0.6
NUMBERS = {kind: (SIZES + MODELS)[:, i] for i, kind in enumerate(KINDS)}


def own(kind: tuple[str, int], solo_ns: int = 0) -> Own:
    return Own(*kind, Load(solo_ns, 0.0, 0.0, 0.0))


def truth(machine: str, kind: tuple[str, int], *others: tuple[str, int]) -> float:
    origin, power = FORM[machine]
    adds = [exp(origin + power * (NUMBERS[kind][0] + NUMBERS[other][1])) for other in others]
    return 1.0 + sum(adds)


def learn(predictor: MachinePredictor, machine: str, count: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        i, j = rng.integers(0, len(KINDS), 2)
        predictor.learn_one(machine, own(KINDS[i]), [(own(KINDS[j]), 1.0)], truth(machine, KINDS[i], KINDS[j]))


@cache
def trained() -> bytes:
    """State of a predictor that knows two machines well."""
    predictor = MachinePredictor()
    for machine in ("fast", "middle"):
        predictor.add_machine(machine, PEAKS[machine])
        learn(predictor, machine, 300)
    predictor.renew()
    return json.dumps(predictor.state()).encode()


def experienced() -> MachinePredictor:
    predictor = MachinePredictor()
    predictor.restore(json.loads(trained()))
    return predictor


def error(predictor: MachinePredictor, machine: str) -> float:
    """MAPE over all pairs, and of sets of three."""
    sets = [(i, j) for i in KINDS for j in KINDS] + [(i, j, k) for i in KINDS for j, k in itertools.pairwise(KINDS)]
    ratios = [
        predictor.predict_one(machine, own(i), [(own(j), 1.0) for j in others]) / truth(machine, i, *others)
        for i, *others in sets
    ]
    return float(np.mean(np.abs(np.array(ratios) - 1.0)))


def test_known_machines_and_a_few_samples_are_better_than_either_alone() -> None:
    both, alone = experienced(), MachinePredictor()
    both.add_machine("slow", PEAKS["slow"])
    alone.add_machine("slow", PEAKS["slow"])
    before = error(both, "slow")
    for predictor in (both, alone):
        learn(predictor, "slow", 20, seed=1)
        predictor.renew()
    assert error(both, "slow") < 0.4 * min(before, error(alone, "slow"))
    assert error(both, "slow") < 0.05


def test_many_samples_leave_little_error_on_any_machine() -> None:
    predictor = experienced()
    assert error(predictor, "fast") < 0.04
    assert error(predictor, "middle") < 0.04


def test_a_model_that_never_ran_on_a_machine_is_expected_as_elsewhere() -> None:
    predictor = experienced()
    predictor.add_machine("slow", PEAKS["slow"])
    rng = np.random.default_rng(2)
    kinds = [kind for kind in KINDS if kind[0] != "a"]
    for _ in range(60):
        i, j = rng.integers(0, len(kinds), 2)
        predictor.learn_one("slow", own(kinds[i]), [(own(kinds[j]), 1.0)], truth("slow", kinds[i], kinds[j]))
    predictor.renew()
    ratios = [
        predictor.predict_one("slow", own(i), [(own(j), 1.0)]) / truth("slow", i, j)
        for i, j in [*((("a", 1), kind) for kind in kinds), *((kind, ("a", 4)) for kind in kinds)]
    ]
    assert float(np.mean(np.abs(np.array(ratios) - 1.0))) < 0.08


def test_a_size_is_expected_as_the_others_of_its_model() -> None:
    predictor = MachinePredictor()
    predictor.add_machine("slow", PEAKS["slow"])
    for size in (1, 2, 4):
        for _ in range(3):
            predictor.learn_one("slow", own(("heavy", size)), [(own(("heavy", size)), 1.0)], 4.0)
            predictor.learn_one("slow", own(("light", size)), [(own(("light", size)), 1.0)], 1.1)
    heavy, light = (predictor.interference("slow", own((model, 8))) for model in ("heavy", "light"))
    assert heavy.log_sensitivity > light.log_sensitivity + 0.5


def test_spreads_shrink_with_samples_and_are_wide_for_models_that_nobody_knows() -> None:
    predictor = experienced()
    predictor.add_machine("slow", PEAKS["slow"])
    before = predictor.interference("slow", own(("a", 1)))
    unknown = predictor.interference("slow", own(("z", 1)))
    assert unknown.log_sensitivity_sd > before.log_sensitivity_sd
    learn(predictor, "slow", 200)
    after = predictor.interference("slow", own(("a", 1)))
    assert after.log_sensitivity_sd < 0.5 * before.log_sensitivity_sd
    assert after.log_pressure_sd < before.log_pressure_sd


def test_solo_latencies_tell_models_apart_where_slowness_goes_with_sensitivity() -> None:
    """On a third machine what is slower than usual alone is more sensitive; most models ran there."""
    predictor = MachinePredictor()
    models = [f"m{i}" for i in range(24)]
    solo_ns = {"fast": 1_000_000, "slow": 1_000_000}
    for machine in solo_ns:
        predictor.add_machine(machine, PEAKS[machine])
    for model in models:
        predictor.learn_one("fast", own((model, 1), 1_000_000), [(own(("x", 1), 1_000_000), 1.0)], 1.5)
    slower = {model: 1_000_000 * (1 + 3 * (i % 2)) for i, model in enumerate(models)}
    for model in models:
        predictor.add_model("slow", own((model, 1), slower[model]))
    for model in models[:16]:
        measured = 2.5 if slower[model] > 1_000_000 else 1.3
        predictor.learn_one("slow", own((model, 1), slower[model]), [(own(("x", 1), 1_000_000), 1.0)], measured)
    predictor.renew()
    fast, slow = (
        predictor.predict_one("slow", own((model, 1), slower[model]), [(own(("x", 1), 1_000_000), 1.0)])
        for model in models[-2:]
    )
    assert slow - 1.0 > 1.7 * (fast - 1.0)


def test_predictions_are_additive_over_co_runners_and_their_overlaps() -> None:
    predictor = experienced()
    i, j, k = KINDS[0], KINDS[3], KINDS[6]
    apart = [predictor.predict_one("fast", own(i), [(own(other), t)]) - 1.0 for other, t in ((j, 0.5), (k, 1.0))]
    together = predictor.predict_one("fast", own(i), [(own(j), 0.5), (own(k), 1.0)]) - 1.0
    assert together == pytest.approx(sum(apart))
    assert predictor.predict_one("fast", own(i), []) == 1.0


def test_state_survives_and_predicts_the_same() -> None:
    predictor, fresh = experienced(), MachinePredictor()
    predictor.add_machine("slow", PEAKS["slow"])
    learn(predictor, "slow", 25)
    predictor.renew()
    fresh.restore(json.loads(json.dumps(predictor.state())))
    assert fresh.state() == predictor.state()
    assert fresh.machines == predictor.machines
    for machine in PEAKS:
        asked = [fresh.predict_one(machine, own(i), [(own(j), 1.0)]) for i in KINDS for j in KINDS]
        before = [predictor.predict_one(machine, own(i), [(own(j), 1.0)]) for i in KINDS for j in KINDS]
        np.testing.assert_allclose(asked, before, rtol=0.02)


def test_what_is_no_state_is_refused_and_changes_nothing() -> None:
    predictor = experienced()
    before = predictor.state()
    broken = json.loads(trained())
    broken["strength"] = [0.0, 0.1]
    states: list[dict[str, object]] = [{}, {"machines": [], "strength": [1.0]}, broken]
    for state in states:
        with pytest.raises(ValueError):
            predictor.restore(state)
    assert predictor.state() == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.predict_one("huge", own(KINDS[0]), []), "machine 'huge' is unknown.*known: fast, middle"),
        (lambda p: p.learn_one("huge", own(KINDS[0]), [], 1.0), "machine 'huge' is unknown"),
        (lambda p: p.interference("huge", own(KINDS[0])), "machine 'huge' is unknown"),
        (lambda p: p.add_model("huge", own(KINDS[0])), "machine 'huge' is unknown"),
        (lambda p: p.learn_one("fast", own(KINDS[0]), [], nan), "cannot learn from slowdown nan"),
        (lambda p: p.learn_one("fast", own(KINDS[0]), [], 0.0), "cannot learn from slowdown 0.0"),
        (lambda p: p.learn_one("fast", own(KINDS[0]), [(own(KINDS[1]), -1.0)], 1.0), "overlap is -1.0, but must be"),
        (lambda p: p.predict_one("fast", own(KINDS[0]), [(own(KINDS[1]), inf)]), "overlap is inf, but must be"),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_changes_nothing(
    call: Callable[[MachinePredictor], object], words: str
) -> None:
    predictor = experienced()
    before = predictor.state()
    with pytest.raises(ValueError, match=words):
        call(predictor)
    assert predictor.state() == before


def test_state_stays_bounded() -> None:
    predictor = MachinePredictor()
    for i in range(MACHINES_MAX + 3):
        predictor.add_machine(f"m{i}", PEAKS["fast"])
    assert list(predictor.machines) == [f"m{i}" for i in range(3, MACHINES_MAX + 3)]
    predictor = MachinePredictor()
    predictor.add_machine("fast", PEAKS["fast"])
    sizes = []
    for i in range(1_400):
        predictor.learn_one("fast", own((f"m{i}", 1), 1_000), [(own((f"m{i + 1}", 1), 1_000), 1.0)], 1.5)
        sizes.append(len(json.dumps(predictor.state())) if i in (1_100, 1_399) else 0)
    assert 0 < sizes[-1] < 1.05 * sizes[1_100]


def test_peaks_that_change_keep_what_was_learned() -> None:
    predictor = experienced()
    before = error(predictor, "fast")
    predictor.add_machine("fast", PEAKS["middle"])
    assert predictor.machines["fast"] == PEAKS["middle"]
    assert error(predictor, "fast") == pytest.approx(before, abs=0.01)


def test_wild_samples_leave_finite_predictions() -> None:
    predictor, rng = experienced(), np.random.default_rng(7)
    predictor.add_machine("slow", PEAKS["slow"])
    for _ in range(300):
        kinds = [KINDS[i] for i in rng.integers(0, len(KINDS), 1 + int(rng.integers(0, 8)))]
        solo_ns = int(10 ** rng.uniform(0, 12))
        co_runners = [(own(kind, solo_ns), float(10 ** rng.uniform(-3, 2))) for kind in kinds[1:]]
        machine = ("fast", "slow")[int(rng.integers(0, 2))]
        predictor.learn_one(machine, own(kinds[0], solo_ns), co_runners, float(10 ** rng.uniform(-5, 5)))
    predictor.renew()
    for machine in PEAKS:
        for kind in (*KINDS, ("z", 1)):
            assert 1.0 <= predictor.predict_one(machine, own(kind, 10**6), [(own(KINDS[0]), 3.0)]) <= 1_000.0
            assert all(np.isfinite(predictor.interference(machine, own(kind))))
