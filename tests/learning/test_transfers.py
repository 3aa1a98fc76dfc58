"""The bandwidth that is learned from transfers of a known one: noisy, contending, odd, all of one size."""

from __future__ import annotations

import math
import random

import pytest

from predictor.link_sharing import Span, finishes
from predictor.transfers import BytesPerRow, DirectionModel, TransferModel

SIZES = (150_000, 600_000, 5_000_000)


def truth_ns(size: float, *, latency_ns: float = 8_000.0, bytes_per_ns: float = 12.0) -> float:
    return latency_ns + size / bytes_per_ns


def trained(count: int, seed: int, noise: float = 0.1, sizes: tuple[int, ...] = SIZES) -> DirectionModel:
    direction, stream = DirectionModel(), random.Random(seed)
    for _ in range(count):
        size = stream.choice(sizes)
        direction.learn_one(size, truth_ns(size) * stream.lognormvariate(0.0, noise))
    return direction


def test_an_untrained_link_and_an_empty_transfer_take_no_time() -> None:
    assert DirectionModel().solo_ns(1e6) == 0.0
    assert trained(10, 1).solo_ns(0) == 0.0


def test_a_single_transfer_is_believed() -> None:
    direction = DirectionModel()
    direction.learn_one(600_000, 58_000.0)
    assert direction.solo_ns(600_000) == pytest.approx(58_000.0, rel=0.01)
    assert direction.solo_ns(1_200_000) == pytest.approx(116_000.0, rel=0.05)


@pytest.mark.parametrize("seed", range(8))
def test_the_bandwidth_is_recovered_from_noisy_transfers(seed: int) -> None:
    direction = trained(300, seed)
    bytes_per_ns = 10e6 / (direction.solo_ns(15e6) - direction.solo_ns(5e6))
    assert bytes_per_ns == pytest.approx(12.0, rel=0.05)
    for size in (*SIZES, 20_000_000):
        assert direction.solo_ns(size) == pytest.approx(truth_ns(size), rel=0.05)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("load", [0.6, 1.2])
def test_the_bandwidth_is_recovered_from_transfers_that_contend(load: float, seed: int) -> None:
    """load: what comes, of what the link can take; above 1 ever more are under way at a time."""
    stream = random.Random(seed)
    sizes = [stream.choice((600_000, 2_000_000)) for _ in range(300)]
    whole_ns = sum(map(truth_ns, sizes)) / load
    drawn = [(stream.uniform(0.0, whole_ns), truth_ns(size)) for size in sizes]
    spans = [Span(begin, end) for (begin, _), end in zip(drawn, finishes(drawn), strict=True)]
    assert sum(span.end_ns - span.begin_ns for span in spans) > 1.5 * load * whole_ns, "they hardly contend"
    direction = DirectionModel()
    ended = sorted(zip(spans, sizes, strict=True), key=lambda one: one[0].end_ns)
    for i, (span, size) in enumerate(ended):
        direction.record(size, span)
        direction.learn_pending(min((later.begin_ns for later, _ in ended[i + 1 :]), default=math.inf))
    assert len(direction) == 0
    for size in (600_000, 2_000_000, 20_000_000):
        assert direction.solo_ns(size) == pytest.approx(truth_ns(size), rel=0.03)


def test_a_transfer_is_pending_until_all_that_shared_the_link_are_recorded() -> None:
    """Two that shared the link for 10 of 15; the one that is recorded last began first."""
    direction = DirectionModel()
    direction.record(1_000, Span(5_000.0, 15_000.0))
    direction.learn_pending(0.0)
    assert (len(direction), direction.solo_ns(1_000)) == (1, 0.0)
    direction.record(1_500, Span(0.0, 20_000.0))
    direction.learn_pending(20_000.0)
    assert len(direction) == 0
    assert direction.solo_ns(1_000) == pytest.approx(5_000.0, rel=0.2)


def test_pending_transfers_are_bounded_in_number() -> None:
    direction = DirectionModel()
    for i in range(5_000):
        direction.record(1_000, Span(10.0 * i, 10.0 * i + 500.0))
        direction.learn_pending(0.0)
    assert len(direction) < 1_000


def test_the_bandwidth_follows_a_link_that_changes() -> None:
    direction = trained(500, 1)
    stream = random.Random(2)
    for _ in range(400):
        size = stream.choice(SIZES)
        direction.learn_one(size, 2.0 * truth_ns(size) * stream.lognormvariate(0.0, 0.1))
    assert direction.solo_ns(600_000) == pytest.approx(2.0 * truth_ns(600_000), rel=0.1)


def test_the_bandwidth_stays_sound_with_transfers_of_one_size() -> None:
    """Nothing tells latency from bandwidth then: forgetting must not blow up what it does not know."""
    direction = trained(50_000, 3, sizes=(600_000,))
    assert direction.solo_ns(600_000) == pytest.approx(truth_ns(600_000), rel=0.05)
    assert 0.0 < direction.solo_ns(60_000_000) < 200 * truth_ns(600_000)
    assert all(math.isfinite(value) and value < 1e12 for value in direction.state())


@pytest.mark.parametrize("odd", [(2**62, 5.0), (600_000, 5e9), (10**300, 1.0), (0, 1e9), (1, 1e-300)])
def test_one_odd_transfer_is_soon_forgotten(odd: tuple[int, float]) -> None:
    first, later = DirectionModel(), trained(300, 5)
    first.learn_one(*odd)
    assert first.solo_ns(600_000) >= 0.0
    for i in range(100):
        size = SIZES[i % 3]
        first.learn_one(size, truth_ns(size))
    assert first.solo_ns(600_000) == pytest.approx(truth_ns(600_000), rel=0.2)
    before = later.solo_ns(600_000)
    later.learn_one(*odd)
    assert later.solo_ns(600_000) == pytest.approx(before, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_no_noise_makes_a_time_negative(seed: int) -> None:
    stream, direction = random.Random(seed), DirectionModel()
    for _ in range(300):
        direction.learn_one(stream.choice((0, 1, 1_000, 10**6)), stream.lognormvariate(10.0, 3.0))
        assert all(direction.solo_ns(size) >= 0.0 for size in (1, 1_000, 10**9))


@pytest.mark.parametrize(
    ("size", "solo_ns"),
    [(1, math.nan), (1, math.inf), (1, 0.0), (1, -5.0), (-1, 5.0), (math.nan, 5.0), (math.inf, 5.0)],
)
def test_a_direction_refuses_what_is_no_number_and_stays_unchanged(size: float, solo_ns: float) -> None:
    direction = trained(20, 1)
    before = direction.state()
    with pytest.raises(ValueError, match="cannot learn from a transfer of"):
        direction.learn_one(size, solo_ns)
    assert direction.state() == before


def test_a_transfer_models_state_survives_a_round_trip() -> None:
    learned, successor = TransferModel(), TransferModel()
    learned.h2d.restore(trained(100, 1).state())
    learned.d2h.restore(trained(100, 2).state())
    successor.restore(learned.state())
    assert successor.state() == learned.state()
    assert successor.h2d.solo_ns(1e6) == learned.h2d.solo_ns(1e6) > 0.0
    assert successor.d2h.solo_ns(1e6) == learned.d2h.solo_ns(1e6)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"into": [0.0] * 5},
        {"into": [0.0] * 4, "out": [0.0] * 5},
        {"into": [0.0] * 5, "out": [math.nan] * 5},
        {"into": [0.0] * 5, "out": [-1.0] * 5},
        {"into": [0.0] * 5, "out": [1.0, 9.0, 1.0, 1.0, 1.0]},
        {"into": [1e300] * 5, "out": [0.0] * 5},
    ],
)
def test_a_transfer_model_refuses_a_broken_state_and_stays_unchanged(state: object) -> None:
    transfers = TransferModel()
    transfers.h2d.restore(trained(20, 1).state())
    before = transfers.state()
    with pytest.raises(ValueError):
        transfers.restore(state)
    assert transfers.state() == before


def test_bytes_per_row_give_a_batchs_transfer_times() -> None:
    transfers = TransferModel()
    transfers.h2d.learn_one(1_000_000, 100_000.0)
    bytes_per_row = BytesPerRow(transfers, 4, 400_000, 8_000)
    assert bytes_per_row.transfer_times(10) == pytest.approx((100_000.0, 0.0), rel=0.01)
    for _ in range(100):
        bytes_per_row.learn_one(1, 200_000, 0)
    assert bytes_per_row.transfer_times(5) == pytest.approx((100_000.0, 0.0), rel=0.01)
