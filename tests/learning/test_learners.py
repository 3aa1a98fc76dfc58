"""What every learner promises, and what only ours does."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from predictor.features import ZERO_SUMS, CoRunner, Exposure, Own, contribution, exposure, exposure_of_sums
from predictor.learners import LEARNERS, Learner
from predictor.learners.isochrone import Isochrone
from predictor.learners.linear import Offline, Rls, Sgd, fit
from predictor.learners.regression import Regression
from predictor.learners.stacked_rls import StackedRls
from predictor.samples import co_runners_of, own_of
from predictor.workload import Load
from tests.fakes.contended_samples import Contention, generate

Batch = tuple[Own, Exposure, float]
MS = 1_000_000


def batches(count: int, law: str = "mixed", noise: float = 0.05) -> list[Batch]:
    found = []
    for sample in generate(Contention(law, lanes=4, count=count, models=6, noise=noise)):
        own = own_of(sample)
        found.append((own, exposure(own, co_runners_of(sample)), sample.slowdown))
    return found


@pytest.fixture(scope="module")
def some() -> list[Batch]:
    return batches(400)


def taught(name: str, samples: list[Batch]) -> Learner:
    learner = LEARNERS[name]()
    for sample in samples:
        learn(learner, sample)
    return learner


def learn(learner: Learner, sample: Batch) -> None:
    learner.learn_one(*sample)
    if isinstance(learner, Isochrone) and (job := learner.refit()) is not None:
        learner.install(job())


def test_the_contract_names_seven() -> None:
    assert list(LEARNERS) == ["none", "mean", "count", "offline", "sgd", "rls", "isochrone"]


@pytest.mark.parametrize("name", LEARNERS)
def test_the_same_samples_make_the_same_predictions(name: str, some: list[Batch]) -> None:
    one, two = taught(name, some), taught(name, some)
    assert [one.predict_one(o, e) for o, e, _ in some] == [two.predict_one(o, e) for o, e, _ in some]
    assert one.state() == two.state()


@pytest.mark.parametrize("name", LEARNERS)
def test_before_any_sample_a_batch_alone_takes_its_solo_time(name: str) -> None:
    own = Own("a", 1, Load(MS, 0.5, 0.5, 0.5))
    assert LEARNERS[name]().predict_one(own, exposure(own, [])) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", LEARNERS)
def test_state_survives_a_round_trip(name: str, some: list[Batch]) -> None:
    learner, other = taught(name, some[:300]), LEARNERS[name]()
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(learner.state())))
    for sample in some[300:]:
        assert other.predict_one(*sample[:2]) == learner.predict_one(*sample[:2])
        learn(learner, sample)
        learn(other, sample)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_foreign_state_is_refused(name: str) -> None:
    learner = LEARNERS[name]()
    before = learner.state()
    with pytest.raises((ValueError, msgspec.ValidationError)):
        learner.restore({"something": 1})
    assert learner.state() == before


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_what_is_no_number_is_refused(name: str, bad: float, some: list[Batch]) -> None:
    learner = taught(name, some[:50])
    before, (own, seen, _) = learner.state(), some[0]
    wrong = seen._replace(sums=(1.0, bad, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="no finite numbers"):
        learner.predict_one(own, wrong)
    with pytest.raises(ValueError, match="no finite numbers"):
        learner.learn_one(own, wrong, 1.0)
    for slowdown in (bad, 0.0, -1.0):
        with pytest.raises(ValueError, match="cannot learn from slowdown"):
            learner.learn_one(own, seen, slowdown)
    assert learner.state() == before


@pytest.mark.parametrize("name", LEARNERS)
def test_state_stays_constant_in_size(name: str) -> None:
    rng, learner, sizes = np.random.default_rng(0), LEARNERS[name](), []
    load = Load(MS, 0.5, 0.4, 0.3)
    for i in range(10_000):
        own = Own(f"m{i % 300}", 1 + i % 7, load)
        seen = Exposure((1.0, *rng.uniform(0, 1, 3).tolist(), 0.0, 0.0), (0.0, 0.0, 0.0), (("b", 1.0),), i)
        learner.learn_one(own, seen, float(rng.uniform(1, 2)))
        if i in (4_999, 9_999):
            sizes.append(len(msgspec.msgpack.encode(learner.state())))
    assert sizes[1] <= sizes[0] * 1.01 + 16


_POOR: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "constant": lambda _: np.array((0.5, 0.4, 0.3, 0.6, 0.2, 0.1)),
    "collinear": lambda rng: rng.uniform() * np.array((1.0, 0.5, 0.25, 1.0, 0.5, 0.25)),
    "sparse": lambda rng: np.eye(6)[rng.integers(6)] * (rng.uniform() < 0.01),
    "huge": lambda rng: rng.uniform(0, 1e6, 6),
    "once huge": lambda rng: rng.uniform(0, 1, 6) * (1e200 if rng.uniform() < 0.001 else 1.0),
    "denormal": lambda rng: rng.uniform(0, 1, 6) * 5e-320,
}


def endure(learner: Learner, kind: str, count: int) -> None:
    """Poor excitation makes plain forgetting explode; what follows must be predicted within the spread of the noise."""
    rng, errors = np.random.default_rng(2), []
    for i in range(count):
        x = _POOR[kind](rng).tolist()
        own = Own("a", 1, Load(MS, *x[:3]))
        seen = exposure_of_sums(own, (1.0, *x[3:], 0.0, 0.0))
        truth = float(np.exp(0.1 * rng.standard_normal()))
        if i >= 100 and i % 7 == 0:
            errors.append(abs(learner.predict_one(own, seen) - truth))
        learner.learn_one(own, seen, truth)
    assert np.isfinite(errors).all()
    assert np.mean(errors) < 0.3
    assert np.max(errors) < 20
    for own, seen, truth in batches(60):
        learner.learn_one(own, seen, truth)
        assert 0.1 <= learner.predict_one(own, seen) <= 20


_ENDURING: dict[str, Callable[[], Learner]] = {**LEARNERS, "rls, forgetting": lambda: Rls(0.98)}


@pytest.mark.parametrize("kind", _POOR)
@pytest.mark.parametrize("name", _ENDURING)
def test_poor_excitation_explodes_nobody(name: str, kind: str) -> None:
    endure(_ENDURING[name](), kind, 2_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", _POOR)
@pytest.mark.parametrize("name", _ENDURING)
def test_poor_excitation_explodes_nobody_for_long(name: str, kind: str) -> None:
    endure(_ENDURING[name](), kind, 100_000)


def test_the_papers_three_start_from_the_same_weights(some: list[Batch]) -> None:
    weights = fit(some[:300])
    starts = []
    for learner in (Offline(), Sgd(), Rls()):
        learner.start(weights)
        starts.append([learner.predict_one(o, e) for o, e, _ in some[300:]])
    assert starts[0] == starts[1] == starts[2]


def test_offline_stays_as_it_is_then(some: list[Batch]) -> None:
    learner = Offline()
    learner.start(fit(some[:100]))
    before = learner.predict_one(*some[0][:2])
    for sample in some:
        learner.learn_one(*sample)
    assert learner.predict_one(*some[0][:2]) == before


def test_linear_contention_is_learned_by_the_papers_rls() -> None:
    rng, truth = np.random.default_rng(1), np.array((1.05, -0.1, 0.2, 0.05, 0.6, 0.25, 0.9))
    learner = Rls()
    for _ in range(1_000):
        x = rng.uniform(0, 1, 6).tolist()
        own = Own("a", 1, Load(MS, *x[:3]))
        seen = exposure_of_sums(own, (1.0, *x[3:], 0.0, 0.0))
        learner.learn_one(own, seen, float(truth @ (1.0, *x)))
    assert learner.predict_one(own, seen) == pytest.approx(float(truth @ (1.0, *x)), abs=1e-2)


def test_a_bank_is_its_regressions_one_by_one() -> None:
    rng = np.random.default_rng(0)
    prior, variance, forgetting = rng.normal(size=(3, 5)), rng.uniform(0.5, 2.0, (3, 5)), [1.0, 0.98, 0.9]
    bank = StackedRls(prior, variance, forgetting)
    single = [Regression(p, v, f) for p, v, f in zip(prior, variance, forgetting, strict=True)]
    for _ in range(100):
        x, y = rng.normal(size=(3, 1, 5)), rng.normal(size=(3, 1))
        bank.learn(x, y)
        for regression, row, target in zip(single, x, y, strict=True):
            regression.learn(row[0], float(target[0]))
    assert np.allclose(bank.weights, [r.weights for r in single], atol=1e-9)


def test_a_block_of_samples_is_as_good_as_each() -> None:
    rng = np.random.default_rng(0)
    each, blocks = (
        StackedRls(np.zeros((1, 5)), np.ones((1, 5)), [1.0]),
        StackedRls(np.zeros((1, 5)), np.ones((1, 5)), [1.0]),
    )
    x, y = rng.normal(size=(1, 80, 5)), rng.normal(size=(1, 80))
    for i in range(80):
        each.learn(x[:, i : i + 1], y[:, i : i + 1])
    for i in range(0, 80, 8):
        blocks.learn(x[:, i : i + 8], y[:, i : i + 8])
    assert np.allclose(each.weights, blocks.weights, atol=1e-9)


# Ours


@pytest.mark.parametrize("law", ["additive", "bottleneck", "saturating", "favouring", "mixed"])
def test_ours_is_far_better_than_rls_beyond_two(law: str) -> None:
    ours, rls = Isochrone(), Rls()
    errors: list[tuple[float, float]] = []
    for own, seen, slowdown in batches(1_000, law, noise=0.02):
        errors.append(tuple(abs(m.predict_one(own, seen) - slowdown) / slowdown for m in (ours, rls)))  # type: ignore[arg-type]
        learn(ours, (own, seen, slowdown))
        rls.learn_one(own, seen, slowdown)
    mine, theirs = np.mean(errors[500:], axis=0).tolist()
    assert mine < 0.6 * theirs
    assert mine < 0.04  # the noise itself is 0.016


def test_a_spell_of_the_machine_is_felt() -> None:
    """Every 40 batches the machine turns a quarter faster or slower, whoever runs."""
    steady = batches(1_600)
    moody = [(own, seen, slowdown * (0.87 if i // 40 % 2 else 1.15)) for i, (own, seen, slowdown) in enumerate(steady)]
    for samples, most in ((steady, 0.06), (moody, 0.09)):
        learner, errors = Isochrone(), []
        for i, sample in enumerate(samples):
            if i >= 800:
                errors.append(abs(learner.predict_one(*sample[:2]) / sample[2] - 1.0))
            learn(learner, sample)
        assert np.mean(errors) < most


def test_forecasts_feel_a_spell_as_it_comes() -> None:
    """Every 16 batches, which is how many are learned at once."""
    learner, errors = Isochrone(), []
    for i, (own, seen, slowdown) in enumerate(batches(1_600)):
        moody = slowdown * (0.8 if i // 16 % 2 else 1.25)
        if i >= 800:
            errors.append(abs(learner.slowdown_function(own).slowdown(seen.sums) / moody - 1.0))
        learner.learn_one(own, seen, moody)
    assert np.mean(errors) < 0.2


def test_a_slow_start_makes_no_model_too_slow_to_be_tried_again() -> None:
    """The first batches take ten times as long while the processes of a server start. One model is not run again."""
    loads = [Load(8 * MS, 0.8, 0.1, 0.4), Load(10 * MS, 0.6, 0.1, 0.5), Load(16 * MS, 0.8, 0.05, 0.2)]
    owns = [Own(f"m{i}", 1, load) for i, load in enumerate(loads)]

    def batch(i: int, j: int, slowdown: float) -> Batch:
        return owns[i], exposure(owns[i], [CoRunner(f"m{j}", 1, loads[j])]), slowdown

    learner = Isochrone()
    for slow in (batch(0, 1, 10.0), batch(1, 0, 8.0), batch(0, 1, 4.0)):
        learner.learn_one(*slow)
    for n in range(24):
        learner.learn_one(*batch(2 * (n % 2), 2 - 2 * (n % 2), 1.25))
    predicted = learner.slowdown_function(owns[1]).slowdown(contribution(1, loads[2]))
    assert predicted < 2.0


def test_the_fast_form_is_close_to_the_log_linear_experts(some: list[Batch]) -> None:
    learner = Isochrone()
    for sample in batches(1_500):
        learner.learn_one(*sample)
    errors = [abs(learner.slowdown_function(own).slowdown(seen.sums) / slowdown - 1) for own, seen, slowdown in some]
    assert np.mean(errors) < 0.1


def test_the_fast_form_holds_for_a_revision(some: list[Batch]) -> None:
    learner = taught("isochrone", some)
    assert isinstance(learner, Isochrone)
    own, seen, _ = some[0]
    before, revision = learner.slowdown_function(own), learner.revision
    learned = 0
    while learner.revision == revision:
        assert learner.slowdown_function(own) == before
        learner.learn_one(own, seen, 3.0)
        learned += 1
    assert 1 <= learned <= 16
    assert learner.slowdown_function(own) != before


def test_before_any_sample_more_neighbours_cost_more() -> None:
    own, load = Own("a", 1, Load(MS, 0.5, 0.5, 0.5)), Load(MS, 0.6, 0.4, 0.5)
    slowdowns = [Isochrone().predict_one(own, exposure(own, [CoRunner("b", 1, load)] * n)) for n in range(5)]
    assert slowdowns == sorted(slowdowns)
    form = Isochrone().slowdown_function(own)
    assert form.slowdown(ZERO_SUMS) == pytest.approx(1.0)
    assert form.slowdown(contribution(1, load)) > 1.1


def test_an_exact_co_location_is_remembered() -> None:
    """Two batches alike in every feature, but not in what they do to each other."""
    learner, load = Isochrone(), Load(MS, 0.5, 0.5, 0.5)
    own = Own("a", 1, load)
    rng = np.random.default_rng(0)
    places = [(exposure(own, [CoRunner("b", size, load)]), 1.0 + rng.uniform()) for size in (7, 7, 8, 8, 9, 9)]
    places = [(seen, slowdown) for seen, slowdown in places[::2]]
    for _ in range(60):
        for seen, slowdown in places:
            learn(learner, (own, seen, slowdown))
    for seen, slowdown in places:
        assert learner.predict_one(own, seen) == pytest.approx(slowdown, rel=0.03)
