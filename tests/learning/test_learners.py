"""The contract of every learner, and of ours."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise
from math import inf, nan

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from predictor.evaluate import LEARNERS
from predictor.features import CoRunner, Exposure, Own, exposure, exposure_of_sums
from predictor.learners.isochrone import Isochrone
from predictor.learners.learner import Learner
from predictor.learners.linear import Offline, Rls, Sgd, fit
from predictor.slowdown_function import ZERO_SUMS, sums_of
from predictor.workload import Load
from tests.fakes.trained import Batch, batches, trained

MS = 1_000_000


@pytest.fixture(scope="module")
def some() -> list[Batch]:
    return batches(400)


def test_the_learners_are_those_of_the_contract() -> None:
    assert list(LEARNERS) == ["none", "mean", "count", "offline", "sgd", "rls", "isochrone"]


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_predicts_the_same_from_the_same_samples(name: str, some: list[Batch]) -> None:
    one, two = trained(name, some), trained(name, some)
    assert [one.predict_one(o, e) for o, e, _ in some] == [two.predict_one(o, e) for o, e, _ in some]
    assert pickle.dumps(one) == pickle.dumps(two)


@pytest.mark.parametrize("name", LEARNERS)
def test_an_untrained_learner_predicts_the_solo_time_of_a_solo_batch(name: str) -> None:
    own = Own("a", 1, Load(MS, 0.5, 0.5, 0.5))
    assert LEARNERS[name]().predict_one(own, exposure(own, [])) == pytest.approx(1.0, abs=0.1)


def test_the_state_of_ours_survives_a_round_trip(some: list[Batch]) -> None:
    learner, other = Isochrone(), Isochrone()
    for sample in some[:300]:
        learner.learn_one(*sample)
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(learner.state())))
    for sample in some[300:]:
        assert other.predict_one(*sample[:2]) == learner.predict_one(*sample[:2])
        learner.learn_one(*sample)
        other.learn_one(*sample)


def test_ours_refuses_a_foreign_state() -> None:
    learner = Isochrone()
    before = learner.state()
    with pytest.raises((ValueError, msgspec.ValidationError)):
        learner.restore({"something": 1})
    assert learner.state() == before


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_a_learner_refuses_what_is_no_number(name: str, bad: float, some: list[Batch]) -> None:
    learner = trained(name, some[:50])
    before, (own, seen, _) = pickle.dumps(learner), some[0]
    wrong = seen._replace(sums=(1.0, bad, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="no finite numbers"):
        learner.predict_one(own, wrong)
    with pytest.raises(ValueError, match="no finite numbers"):
        learner.learn_one(own, wrong, 1.0)
    for slowdown in (bad, 0.0, -1.0):
        with pytest.raises(ValueError, match="cannot learn from slowdown"):
            learner.learn_one(own, seen, slowdown)
    assert pickle.dumps(learner) == before


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learners_state_stays_constant_in_size(name: str) -> None:
    rng, learner, sizes = np.random.default_rng(0), LEARNERS[name](), []
    load = Load(MS, 0.5, 0.4, 0.3)
    for i in range(10_000):
        own, other = Own(f"m{i % 300:03}", 1 + i % 7, load), Own(f"m{i // 20 % 300:03}", 1 + i % 5, load)
        seen = Exposure((1.0, *rng.uniform(0, 1, 3).tolist(), 0.0, 0.0), (0.0, 0.0, 0.0), ((other, 1.0),))
        learner.learn_one(own, seen, float(rng.uniform(1, 2)))
        if i in (5_999, 9_999):
            sizes.append(len(pickle.dumps(learner)))
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
    """Poor excitation makes plain forgetting explode; what follows must be predicted within the spread of the noise.

    The form that decides launches has no bound of its own on shares far beyond 0..1, which no profile or sample has.
    """
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
    if type(learner) is not Isochrone or "huge" not in kind:
        assert np.mean(errors) < 0.3
        assert np.max(errors) < 20
    for own, seen, truth in batches(60):
        learner.learn_one(own, seen, truth)
        assert 0.1 <= learner.predict_one(own, seen) <= 20


_ENDURING: dict[str, Callable[[], Learner]] = {**LEARNERS, "rls, forgetting": lambda: Rls(0.98)}


@pytest.mark.parametrize("kind", _POOR)
@pytest.mark.parametrize("name", _ENDURING)
def test_poor_excitation_explodes_no_learner(name: str, kind: str) -> None:
    endure(_ENDURING[name](), kind, 2_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", _POOR)
@pytest.mark.parametrize("name", _ENDURING)
def test_poor_excitation_explodes_no_learner_for_long(name: str, kind: str) -> None:
    endure(_ENDURING[name](), kind, 100_000)


def test_the_papers_three_start_from_the_same_weights(some: list[Batch]) -> None:
    weights = fit(some[:300])
    starts = []
    for learner in (Offline(), Sgd(), Rls()):
        learner.start(weights)
        starts.append([learner.predict_one(o, e) for o, e, _ in some[300:]])
    assert starts[0] == starts[1] == starts[2]


def test_offline_stays_as_it_was_fitted(some: list[Batch]) -> None:
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


# Ours


@pytest.mark.parametrize("law", ["additive", "bottleneck", "saturating", "favouring", "mixed"])
def test_ours_is_far_better_than_rls_with_three_co_runners(law: str) -> None:
    ours, rls = Isochrone(), Rls()
    errors: list[tuple[float, float]] = []
    for own, seen, slowdown in batches(1_000, law, noise=0.02):
        errors.append(tuple(abs(m.predict_one(own, seen) - slowdown) / slowdown for m in (ours, rls)))  # type: ignore[arg-type]
        ours.learn_one(own, seen, slowdown)
        rls.learn_one(own, seen, slowdown)
    mine, theirs = np.mean(errors[500:], axis=0).tolist()
    assert mine < 0.7 * theirs
    assert mine < 0.065  # the noise itself is 0.016


def test_predictions_follow_the_drift_of_the_machine() -> None:
    """Every 40 batches the machine turns a quarter faster or slower, whoever runs."""
    steady = batches(1_600)
    drifting = [
        (own, seen, slowdown * (0.87 if i // 40 % 2 else 1.15)) for i, (own, seen, slowdown) in enumerate(steady)
    ]
    for samples, most in ((steady, 0.06), (drifting, 0.09)):
        learner, errors = Isochrone(), []
        for i, sample in enumerate(samples):
            if i >= 800:
                errors.append(abs(learner.predict_one(*sample[:2]) / sample[2] - 1.0))
            learner.learn_one(*sample)
        assert np.mean(errors) < most


def test_slowdown_functions_follow_the_drift_within_a_block() -> None:
    """Every 16 batches, which is how many are learned at once."""
    learner, errors = Isochrone(), []
    for i, (own, seen, slowdown) in enumerate(batches(1_600)):
        drifting = slowdown * (0.8 if i // 16 % 2 else 1.25)
        if i >= 800:
            errors.append(
                abs(learner.slowdown_function(own).slowdown(sums_of(seen, learner.contribution)) / drifting - 1.0)
            )
        learner.learn_one(own, seen, drifting)
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
    predicted = learner.slowdown_function(owns[1]).slowdown(learner.contribution(owns[2]))
    assert predicted < 2.0


def test_work_per_kernel_tells_what_a_model_that_was_never_seen_will_do() -> None:
    """Slowdown is by the co-runner's work over the batch's own, whose features are all alike otherwise."""
    works = np.exp(np.random.default_rng(7).normal(0.0, 0.8, 14)).tolist()

    def error(told: bool) -> float:
        owns = [Own(f"m{i}", 1, Load(MS, 0.5, 0.5, 0.5, round(65_000 * w) if told else 0)) for i, w in enumerate(works)]

        def batch(i: int, j: int) -> Batch:
            return owns[i], exposure(owns[i], [CoRunner(*owns[j])]), 1.0 + 0.5 * works[j] / works[i]

        learner, stream = Isochrone(), np.random.default_rng(8)
        for _ in range(300):
            learner.learn_one(*batch(*stream.choice(8, 2, replace=False).tolist()))
        unseen = [batch(i, j) for i, j in pairwise(range(8, 14))]
        return float(np.mean([abs(learner.predict_one(own, seen) / measured - 1.0) for own, seen, measured in unseen]))

    assert error(told=True) < 0.5 * error(told=False)


def test_the_slowdown_function_is_close_to_the_truth(some: list[Batch]) -> None:
    learner = Isochrone()
    for sample in batches(1_500):
        learner.learn_one(*sample)
    errors = [
        abs(learner.slowdown_function(own).slowdown(sums_of(seen, learner.contribution)) / slowdown - 1)
        for own, seen, slowdown in some
    ]
    assert np.mean(errors) < 0.1


def test_ours_predicts_by_the_form_that_launches_are_decided_by(some: list[Batch]) -> None:
    learner = trained("isochrone", some)
    assert isinstance(learner, Isochrone)
    load = Load(MS, 0.5, 0.4, 0.3)
    own, beside = Own("m0", 1, load), CoRunner("m1", 2, load, same_core=True)
    sums, decided = learner.contribution(Own("m1", 2, load)), learner.slowdown_function(own)
    assert learner.predict_one(own, exposure(own, [beside])) == pytest.approx(decided.slowdown(sums, 1))
    assert learner.predict_one(own, exposure(own, [beside._replace(same_core=False)])) == pytest.approx(
        decided.slowdown(sums)
    )
    assert decided.slowdown(sums, 1) > 1.1 * decided.slowdown(sums)


def test_a_slowdown_function_holds_for_a_revision(some: list[Batch]) -> None:
    learner = trained("isochrone", some)
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


def test_more_co_runners_cost_more_before_any_sample() -> None:
    own, load = Own("a", 1, Load(MS, 0.5, 0.5, 0.5)), Load(MS, 0.6, 0.4, 0.5)
    slowdowns = [Isochrone().predict_one(own, exposure(own, [CoRunner("b", 1, load)] * n)) for n in range(5)]
    assert slowdowns == sorted(slowdowns)
    learner = Isochrone()
    form = learner.slowdown_function(own)
    assert form.slowdown(ZERO_SUMS) == pytest.approx(1.0)
    assert form.slowdown(learner.contribution(Own("b", 1, load))) > 1.1
