"""The account of every request: answered once and right, refused in words, or else by a fault that allows it.

Pure: times are arguments. A request's number is unique in a run, and its right answer follows from it.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["right", "wrong", "twice", "refused", "error", "hung", "lost"]
"""wrong: another request's answer, or an old one. twice: more than one answer. refused: by this backend, in words.
error: anybody else's sentence. hung: nothing before the client's own deadline. lost: not even that."""

GOOD: tuple[Outcome, ...] = ("right", "refused")
_ABOUT_S = 1.0
"""Requests that were sent so shortly before a fault may have met it."""
_HUNG = "Deadline Exceeded"
_REFUSAL = re.compile(r"StatusCode\.UNAVAILABLE\] .*model '\w+': \w+ .*\w+ \w+")
"""A refusal of this backend: the model's name, and why."""
_WORDS = re.compile(r"\] \W*\w+\W+\w+")


@dataclass(frozen=True)
class Allowance:
    """Requests that a fault may cost, because Triton or the client's connection has a limit there.

    limit: a sentence for the report. test: one that shows it, in tests/. models: whose requests; empty: any.
    error: a pattern of the client's sentence; None: no answer at all.
    """

    limit: str
    test: str
    error: str | None
    models: tuple[str, ...] = ()

    def covers(self, asked: Asked) -> bool:
        """Tell whether this is such a request."""
        if self.models and asked.model not in self.models:
            return False
        if self.error is None:
            return asked.outcome == "hung"
        return asked.outcome == "error" and re.search(self.error, asked.answers[0][1]) is not None


@dataclass
class Asked:
    """One request. Times are monotonic seconds. answers: when each came, the client's sentence if it is an error, and
    its value if it is none.
    """

    number: int
    model: str
    expected: float
    slo_s: float
    sent_s: float
    answers: list[tuple[float, str, float | None]] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """Its outcome by now."""
        if not self.answers:
            return "lost"
        if len(self.answers) > 1:
            return "twice"
        _, error, value = self.answers[0]
        if not error:
            return "right" if value == self.expected else "wrong"
        if _HUNG in error:
            return "hung"
        return "refused" if _REFUSAL.search(error) else "error"

    @property
    def ended_s(self) -> float:
        """Time of its answer; infinity while there is none."""
        return self.answers[0][0] if self.answers else float("inf")

    @property
    def kept(self) -> bool:
        """Tell whether it was answered right, and within its objective."""
        return self.outcome == "right" and self.ended_s - self.sent_s <= self.slo_s

    @property
    def words(self) -> str:
        """The outcome and the sentence, for a report."""
        error = self.answers[0][1] if self.answers else ""
        return f"{self.outcome} ({self.model}): {error}" if error else f"{self.outcome} ({self.model})"


@dataclass(frozen=True)
class Period:
    """A fault, from its beginning until `over_s`, when nothing of it may be felt any more."""

    kind: str
    begin_s: float
    over_s: float
    allowances: tuple[Allowance, ...] = ()

    def allows(self, asked: Asked) -> Allowance | None:
        """Find the reason for which this request may have failed; None where there is none."""
        if asked.sent_s > self.over_s or asked.ended_s < self.begin_s:
            return None
        return next((allowance for allowance in self.allowances if allowance.covers(asked)), None)


@dataclass(frozen=True)
class Sum:
    """Requests by outcome; allowed: by limit and its test; not_allowed: by outcome and words."""

    requests: int
    outcomes: Mapping[str, int]
    allowed: Mapping[str, int]
    not_allowed: Mapping[str, int]


class Account:
    """Requests of a run. Senders put them in and tell of answers, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._withheld_s: list[float] = []

    def ask(self, model: str, tag: float, slo_s: float, now_s: float) -> Asked:
        """Enter a request; its value to be sent is its number, the right answer that plus the model's tag."""
        with self._lock:
            number = len(self._asked) + 1
            asked = Asked(number, model, number + tag, slo_s, now_s)
            self._asked.append(asked)
            return asked

    def withhold(self, now_s: float) -> None:
        """Note that a request was due, but not sent: too many waited."""
        with self._lock:
            self._withheld_s.append(now_s)

    def kept_percent(self, after_s: float, before_s: float) -> float | None:
        """Deadlines kept of the requests that were due in this span, sent or not; None where none were."""
        asked = self.sent(after_s, before_s)
        with self._lock:
            withheld = sum(after_s <= at_s < before_s for at_s in self._withheld_s)
        due = len(asked) + withheld
        return 100.0 * sum(one.kept for one in asked) / due if due else None

    def answered(self, asked: Asked, now_s: float, error: str, value: float | None) -> None:
        """Enter an answer, or an error in the client's words."""
        with self._lock:
            asked.answers.append((now_s, error, value))

    def sent(self, after_s: float, before_s: float) -> list[Asked]:
        """Requests that left in this span."""
        with self._lock:
            return [asked for asked in self._asked if after_s <= asked.sent_s < before_s]

    def open(self) -> int:
        """Count those without an answer or error so far."""
        with self._lock:
            return sum(not asked.answers for asked in self._asked)


def owner_of(asked: Asked, periods: Sequence[Period]) -> int | None:
    """The number of the fault that a request counts for; None where it was sent long before the first."""
    if asked.outcome not in GOOD:
        for number, period in enumerate(periods):
            if period.allows(asked) is not None:
                return number
    begun = [number for number, period in enumerate(periods) if period.begin_s - _ABOUT_S <= asked.sent_s]
    return begun[-1] if begun else None


def sum_of(asked: Sequence[Asked], periods: Iterable[Period]) -> Sum:
    """Judge each request by all faults that it may have met."""
    known = list(periods)
    allowed: Counter[str] = Counter()
    not_allowed: Counter[str] = Counter()
    for one in asked:
        outcome = one.outcome
        if outcome in GOOD:
            continue
        why = next((found for period in known if (found := period.allows(one)) is not None), None)
        if why is not None and (outcome == "hung" or _WORDS.search(one.answers[0][1])):
            allowed[f"{why.limit} ({why.test})"] += 1
        else:
            not_allowed[one.words] += 1
    return Sum(len(asked), Counter(str(one.outcome) for one in asked), allowed, not_allowed)
