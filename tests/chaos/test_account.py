"""The account finds what must not happen; each case here is one that a fault could bring about."""

from __future__ import annotations

import pytest

from tests.chaos.account import Account, Allowance, Asked, Period, owner_of, sum_of
from tests.chaos.decisions import Seen, resumed_s
from tests.chaos.report import unexpected

TAG, SLO_S = 0.125, 0.1
REFUSAL = "[StatusCode.UNAVAILABLE] model 'first': 4096 requests are waiting already, which is its max_queue_size"
NOT_HEALTHY = "[StatusCode.INTERNAL] Stub process 'spare_0' is not healthy."
TIMED_OUT = "[StatusCode.DEADLINE_EXCEEDED] Deadline Exceeded"
DEAD = Period(
    "kill",
    10.0,
    12.0,
    (Allowance("it is dead", "", r"not healthy", ("spare",)), Allowance("unanswered", "", None, ("spare",))),
)


def asked(model: str, error: str | None = None, value: float | None = None, sent_s: float = 10.0) -> Asked:
    """Answered 50 ms after it was sent; without an error and a value not at all."""
    account = Account()
    one = account.ask(model, TAG, SLO_S, sent_s)
    if error is not None or value is not None:
        account.answered(one, sent_s + 0.05, error or "", value)
    return one


@pytest.mark.parametrize(
    ("one", "outcome"),
    [
        (asked("first", value=1.125), "right"),
        (asked("first", value=2.125), "wrong"),  # another request's
        (asked("first", value=1.25), "wrong"),  # another model's
        (asked("first", error=REFUSAL), "refused"),
        (asked("first", error=NOT_HEALTHY), "error"),
        (asked("first", error="[StatusCode.UNAVAILABLE] failed to connect to all addresses"), "error"),
        (asked("first", error=TIMED_OUT), "hung"),
        (asked("first"), "lost"),
    ],
)
def test_outcomes(one: Asked, outcome: str) -> None:
    assert one.outcome == outcome


def test_a_second_answer_is_seen_though_both_are_right() -> None:
    account = Account()
    one = account.ask("first", TAG, SLO_S, 1.0)
    for now_s in (1.1, 1.2):
        account.answered(one, now_s, "", 1.125)
    assert one.outcome == "twice"
    assert sum_of([one], [DEAD]).not_allowed == {"twice (first)": 1}


@pytest.mark.parametrize(
    ("one", "allowed"),
    [
        (asked("spare", error=NOT_HEALTHY), True),
        (asked("spare", error=TIMED_OUT), True),
        (asked("first", error=NOT_HEALTHY), False),  # it was another one that was killed
        (asked("spare", error=NOT_HEALTHY, sent_s=12.5), False),  # the fault is over
        (asked("spare", error=NOT_HEALTHY, sent_s=9.0), False),  # and this was before
        (asked("spare", error="[StatusCode.INTERNAL] out of luck today"), False),
        (asked("spare", value=3.0), False),  # a wrong answer never is
        (asked("spare"), False),
    ],
)
def test_a_fault_allows_its_own_losses_only(one: Asked, allowed: bool) -> None:
    found = sum_of([one], [DEAD])
    assert (sum(found.allowed.values()), sum(found.not_allowed.values())) == ((1, 0) if allowed else (0, 1))


def test_an_error_without_words_is_not_allowed() -> None:
    period = Period("kill", 10.0, 12.0, (Allowance("anything", "", r""),))
    assert sum_of([asked("spare", error="[StatusCode.INTERNAL] ")], [period]).not_allowed
    assert not sum_of([asked("spare", error="[StatusCode.INTERNAL] no such thing")], [period]).not_allowed


def test_deadlines_count_right_answers_in_time() -> None:
    account = Account()
    for number, took_s in enumerate((0.05, 0.2), start=1):
        account.answered(account.ask("first", TAG, SLO_S, 1.0), 1.0 + took_s, "", number + TAG)
    account.answered(account.ask("first", TAG, SLO_S, 1.0), 1.01, "", 17.0)
    account.ask("first", TAG, SLO_S, 1.0)
    assert account.kept_percent(0.0, 2.0) == 25.0
    account.withhold(1.5)
    assert account.kept_percent(0.0, 2.0) == 20.0
    assert account.kept_percent(2.0, 3.0) is None
    assert account.open() == 1


def seen(at_s: float, publisher: str, arrivals: int, *running: str) -> Seen:
    return Seen(at_s, publisher, {"one": arrivals, "two": arrivals}, frozenset(running))


def test_decisions_have_resumed_when_one_scheduler_ran_a_new_batch_of_each_model() -> None:
    first = [seen(1.0, "a", 5, "one", "two"), seen(1.1, "a", 6, "one"), seen(1.2, "b", 9, "two")]
    assert resumed_s(first, "a", ["one", "two"]) is None
    assert resumed_s([*first, seen(1.3, "a", 7, "two")], "a", ["one", "two"]) == 1.3
    assert resumed_s([*first, seen(1.3, "b", 10, "one", "two")], "b", ["one", "two"]) == 1.3


def test_an_adopted_batch_is_no_decision() -> None:
    assert resumed_s([seen(1.0, "a", 5, "one"), seen(1.1, "a", 5, "one")], "a", ["one"]) is None


def test_a_loss_counts_for_the_fault_that_allows_it_and_the_rest_for_the_last_one_begun() -> None:
    later = Period("stop", 13.0, 14.0)
    periods = [DEAD, later]
    assert owner_of(asked("spare", error=NOT_HEALTHY, sent_s=11.98), periods) == 0
    assert owner_of(asked("first", value=1.125, sent_s=11.98), periods) == 0
    assert owner_of(asked("spare", error=NOT_HEALTHY, sent_s=12.5), periods) == 1
    assert owner_of(asked("first", value=1.125, sent_s=8.0), periods) is None


def test_an_error_that_nobody_foresaw_is_told() -> None:
    assert unexpected(["all is well"]) == []
    (sentence,) = unexpected(["all is well", "Traceback (most recent call last):\n  a line\nKeyError: 7"])
    assert "KeyError: 7" in sentence
