"""Which requests run together, and how many: a rule per test."""

from __future__ import annotations

import pytest

from backend.scheduler.policy import NEARLY_BEST
from predictor.workload import ModelProfile
from tests.fakes.builders import MS, join, load, only_launch
from tests.fakes.devices import LIGHT, busy, device

pytestmark = pytest.mark.usefixtures("audited")


def test_requests_that_wait_together_run_together() -> None:
    made, blocker = busy()
    requests = [made.request(500.0) for _ in range(5)]
    made.arrive(1, *requests)
    launch = only_launch(made.finish(blocker))
    assert launch.requests == tuple(r.id for r in requests)
    assert (launch.times.solo_ns, launch.decision) == (14 * MS, "launch")


def test_a_batch_is_split_where_its_tightest_deadline_demands_it() -> None:
    made, blocker = busy()
    tight, *others = [made.request(slo_ms) for slo_ms in (12.5, 500.0, 500.0, 500.0, 500.0)]
    made.arrive(1, *others, tight)
    launch = only_launch(made.finish(blocker))
    assert launch.requests == (tight.id, others[0].id, others[1].id)
    assert (launch.times.solo_ns, launch.decision) == (12 * MS, "split")


def test_a_batch_is_split_where_a_smaller_one_is_harmless() -> None:
    """Beside 4 rows the running batch would lose 0.92 ms, beside 2 rows 0.74."""
    made = device(lanes=2)
    made.join(1, join(LIGHT))
    shrinking = ModelProfile((1, 2, 4), tuple(load(ms, compute=1.0) for ms in (3.0, 3.2, 4.0)))
    made.join(2, join(shrinking, max_batch_size=4))
    made.ask(1, 10.8)
    split = only_launch(made.arrive(2, *[made.request() for _ in range(4)]))
    assert (len(split.requests), split.decision) == (2, "split")


def largest_batch(batch_ms: dict[int, float], max_batch_size: int, *, contended: bool) -> int:
    """Rows launched of a model whose batches take so long by their size, with more than enough requests waiting."""
    made, blocker = busy()
    sizes = ModelProfile(tuple(batch_ms), tuple(load(ms) for ms in batch_ms.values()))
    made.join(3, join(sizes, max_batch_size=max_batch_size))
    made.arrive(3, *[made.request(500.0) for _ in range(max_batch_size)])
    if contended:
        made.ask(1, 900.0)
    return len(only_launch(made.finish(blocker)).requests)


def test_a_batch_grows_to_the_maximum_while_no_other_model_waits() -> None:
    assert largest_batch({1: 6.0, 2: 10.0, 8: 40.0}, 8, contended=False) == 8


@pytest.mark.parametrize(
    ("batch_ms", "max_batch_size"),
    [
        ({1: 6.0, 2: 10.0, 8: 40.0}, 8),
        ({1: 10.0, 2: 11.0, 8: 17.0}, 8),
        ({1: 10.0, 2: 11.0, 8: 17.0}, 3),
        ({1: 5.0}, 8),
        ({4: 8.0, 8: 9.0}, 8),
        ({4: 8.0, 8: 30.0}, 20),
        ({1: 10.0, 4: 11.0, 16: 12.0}, 50),
    ],
)
def test_a_batch_grows_no_further_than_it_gains_while_others_wait(
    batch_ms: dict[int, float], max_batch_size: int
) -> None:
    """To the smallest size whose time per row is nearly the best of all sizes."""
    sizes = ModelProfile(tuple(batch_ms), tuple(load(ms) for ms in batch_ms.values()))
    per_row = {rows: sizes.at(rows).solo_ns / rows for rows in range(1, max_batch_size + 1)}
    good = min(rows for rows, ns in per_row.items() if ns <= min(per_row.values()) * NEARLY_BEST)
    assert largest_batch(batch_ms, max_batch_size, contended=True) == good


def test_requests_of_another_group_wait_for_a_batch_of_their_own() -> None:
    made, blocker = busy()
    a, b, c = made.request(500.0, group=1), made.request(600.0, group=2), made.request(700.0, group=1)
    made.arrive(1, a, b, c)
    launch = only_launch(made.finish(blocker))
    assert launch.requests == (a.id, c.id)
    assert only_launch(made.finish(launch)).requests == (b.id,)


def test_a_model_that_does_not_batch_runs_one_request_at_a_time() -> None:
    made, blocker = busy()
    made.join(3, join(LIGHT, max_batch_size=0))
    made.arrive(3, made.request(500.0), made.request(500.0))
    assert len(only_launch(made.finish(blocker)).requests) == 1
