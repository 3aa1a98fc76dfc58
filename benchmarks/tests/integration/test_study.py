"""The study's arithmetic on logs whose answer is known; that it runs on a server is tested beside the servers."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from benchmarks.study.ceiling import ceiling, shares_by_count
from benchmarks.study.noise import NEAREST, Floor, Noise, gamma_test, noise_floor
from benchmarks.study.numbers import feature_errors, relative_to_p95, scored, training_errors
from benchmarks.study.plan import TEST_SETS, TRAINING, plan
from predictor.samples import SCHEMA, RecordedCoRunner, Sample, co_runners_of
from tests.fakes.builders import profile_file

MS = 1_000_000


def sample(
    start_ms: float, slowdown: float, *beside: RecordedCoRunner, model: str = "a", batch_size: int = 1
) -> Sample:
    shares = {"compute": 0.5, "l2": 0.2, "dram": 0.3}
    exec_ns = round(10 * MS * slowdown)
    return Sample(SCHEMA, model, batch_size, round(start_ms * MS), exec_ns, 10 * MS, features=shares, co_runners=beside)


def neighbour(begin: float, end: float, dram: float = 0.4) -> RecordedCoRunner:
    return RecordedCoRunner("b", 1, 20 * MS, begin, end, {"compute": 0.3, "l2": 0.1, "dram": dram})


def test_slowdown_is_relative_to_the_profiled_p95() -> None:
    profiles = {"a": profile_file("a", (1, 10, 12), (3, 30, 40)), "b": profile_file("b", (1, 20, 25))}
    alone, pair = relative_to_p95([sample(0, 1.5), sample(20, 3.0, neighbour(0, 1), batch_size=2)], profiles)
    assert alone.slowdown == pytest.approx(15 / 12)
    assert pair.slowdown == pytest.approx(30 / 26)  # half way between 12 and 40
    assert pair.co_runners[0].solo_ns == 25 * MS


def test_the_noise_floor_is_what_equal_co_locations_differ_by() -> None:
    rng = np.random.default_rng(0)
    alone = [sample(10 * i, float(rng.normal(1.2, 0.05))) for i in range(2_000)]
    beside = [sample(10 * i, float(rng.normal(2.0, 0.10)), neighbour(0, 1)) for i in range(2_000)]
    unique = [sample(10 * i, 9.0, neighbour(0, 1), batch_size=i + 2) for i in range(1_000)]
    ordered = sorted(alone + beside + unique, key=lambda s: s.start_ns)
    errors = {"twins": np.array([4.0 if s.slowdown == 9.0 else 0.25 for s in ordered])}
    floor = noise_floor(alone + beside + unique, errors)
    assert floor.of_twins == {"twins": 0.25}
    assert floor.mse == pytest.approx((0.05**2 + 0.10**2) / 2, rel=0.1)
    assert floor.share == pytest.approx(0.8)
    assert 0.02 < floor.relative < 0.05


def test_nothing_repeats_and_there_is_no_floor() -> None:
    floor = noise_floor([sample(0, 1.0), sample(10, 1.0, neighbour(0, 1))], {"one": np.ones(2)})
    assert floor == Floor(0.0, 0.0, 0.0, {"one": 0.0})


def test_twins_have_equal_co_runners_for_about_as_long() -> None:
    b, c = neighbour(0, 1), msgspec.structs.replace(neighbour(0, 0.5), model="c")
    same = sample(0, 1.0, b, c), sample(10, 1.0, msgspec.structs.replace(c, end=0.51), b)
    others = [sample(20, 1.0, *beside) for beside in _others(b, c)]
    others.append(sample(30, 1.0, b, c, batch_size=2))
    assert noise_floor([*same, *others], {}).share == pytest.approx(2 / (2 + len(others)))


def _others(b: RecordedCoRunner, c: RecordedCoRunner) -> list[tuple[RecordedCoRunner, ...]]:
    replace = msgspec.structs.replace
    changed = [(replace(b, batch_size=2), c), (b, replace(c, end=0.9)), (replace(b, model="d"), c)]
    return [(b,), (b, b), *changed, (replace(b, same_core=True), c)]


def test_the_gamma_test_finds_the_noise_where_no_two_companies_are_equal() -> None:
    rng = np.random.default_rng(0)
    ends = rng.uniform(0.0, 1.0, 2_000)
    curve = 1.5 + np.sin(6.0 * ends)
    errors = {"one": np.arange(2_000.0)}

    def found(noise: float) -> Noise:
        log = [
            sample(30 * i, s, neighbour(0, end))
            for i, (s, end) in enumerate(zip((curve + rng.normal(0.0, noise, len(ends))).tolist(), ends, strict=True))
        ]
        return gamma_test(log, errors)

    assert found(0.0).mse < 1e-4 * np.var(curve)
    assert found(0.1).mse == pytest.approx(0.1**2, rel=0.1)
    assert found(0.1).share == 1.0
    assert found(0.1).of_these == {"one": pytest.approx(999.5)}


def test_the_gamma_test_compares_batches_of_one_model_and_size() -> None:
    rng = np.random.default_rng(0)
    log = [sample(30 * i, float(rng.normal(1 + i % 2, 0.1)), batch_size=1 + i % 2) for i in range(2_000)]
    rare = [sample(30 * i, 9.0, batch_size=8) for i in range(NEAREST)]
    noise = gamma_test(log + rare, {})
    assert noise.mse == pytest.approx(0.1**2, rel=0.15)
    assert noise.share == pytest.approx(2_000 / (2_000 + NEAREST))
    assert gamma_test(rare, {"one": np.ones(NEAREST)}) == Noise(0.0, 0.0, {"one": 0.0})


def test_only_the_integral_sees_how_long_a_neighbour_stayed() -> None:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(600):
        dram, end = rng.uniform(0.1, 0.9), rng.uniform(0.05, 1.0)
        samples.append(sample(30 * i, 1.0 + dram * end, neighbour(0.0, end, dram)))
    errors = feature_errors(samples)
    assert list(errors) == ["static", "EWMA 1/3", "EWMA 1/2", "EWMA 2/3", "integral"]
    assert errors["integral"].p95 < 0.03
    assert all(errors[name].p50 > 0.03 for name in errors if name != "integral")
    assert len(errors["static"].errors) == 150


def test_the_papers_three_start_from_the_training_set() -> None:
    rng = np.random.default_rng(0)

    def log(count: int, slope: float) -> list[Sample]:
        drams = rng.uniform(0.1, 0.9, count)
        return [sample(50 * i, 1.0 + slope * d, neighbour(0, 1, d)) for i, d in enumerate(drams)]

    training = log(400, 1.0)
    linear, ours = training_errors(training)
    assert linear < 1e-3
    assert ours < 0.05
    same, steeper = scored(training, log(300, 1.0)), scored(training, log(300, 3.0))
    assert max(same.scores[name].mse for name in ("offline", "sgd", "rls", "isochrone")) < 0.02
    assert steeper.scores["rls"].mse < steeper.scores["offline"].mse
    assert steeper.scores["isochrone"].mse < 0.3 * steeper.scores["offline"].mse


@pytest.mark.parametrize("quick", [True, False])
def test_the_plan_is_the_papers(quick: bool) -> None:
    logs = {log.name: log for log in plan(quick=quick).logs}
    trained, other_load, others, every = (set(logs[name].weights) for name in (TRAINING, *TEST_SETS))
    assert trained == other_load
    assert logs[TRAINING].weights != logs[TEST_SETS[0]].weights
    assert trained.isdisjoint(others)
    assert every == trained | others
    assert min(plan(quick=quick).lanes) == 2 < max(plan(quick=quick).lanes)


def test_a_load_of_one_keeps_every_core_busy() -> None:
    log = plan(quick=False).logs[1]
    solo_s = {model: 0.01 * i for i, model in enumerate(log.weights, 1)}
    traffic = log.traffic(1.0, solo_s, cores=4)
    assert sum(t.rate_per_s * solo_s[t.model] for t in traffic) == pytest.approx(4.0)
    rates = {t.model: t.rate_per_s for t in traffic}
    assert rates["vgg19"] == pytest.approx(10 * rates["resnet50"])


def test_trees_that_know_the_rest_of_a_log_leave_only_its_noise() -> None:
    rng = np.random.default_rng(0)
    ends = rng.uniform(0.1, 1.0, 600)
    slow = np.where(ends > 0.5, 2.0, 1.2)  # a step, which no linear form has
    log = [
        sample(30 * i, s, neighbour(0, end))
        for i, (s, end) in enumerate(zip(slow * rng.lognormal(0.0, 0.05, len(ends)), ends, strict=True))
    ]
    noise = float(np.mean((slow * 0.05) ** 2))
    found = scored(log, log)
    assert 0.8 * noise < found.ceiling < 1.5 * noise
    assert found.ceiling < 0.5 * found.scores["offline"].mse


def test_how_many_came_meanwhile_tells_how_long_it_took() -> None:
    rng = np.random.default_rng(0)
    log = []
    for i, slow in enumerate(rng.uniform(1.0, 2.0, 600)):  # by luck alone; somebody comes every tenth of its solo time
        ends = np.append(np.arange(0.0, slow, 0.1), slow) / slow
        log.append(sample(30 * i, float(slow), *(neighbour(a, b) for a, b in pairwise(ends.tolist()))))
    luck = float(np.var([s.slowdown for s in log]))
    assert ceiling(log) > 0.5 * luck
    assert ceiling(log, counting=True) < 0.1 * luck


def test_a_batch_is_described_by_how_many_ran_beside_it_at_once() -> None:
    shares = shares_by_count([*co_runners_of(sample(0, 1.0, neighbour(0.2, 0.6), neighbour(0.5, 1.0)))])
    assert shares == pytest.approx([0.2, 0.7, 0.1, 0, 0, 0])
