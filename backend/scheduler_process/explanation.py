"""The facts that explain one request: its arrival, each reason to wait, its launch, its end. Data only."""

from __future__ import annotations

from typing import Literal

import msgspec

from backend.scheduler.messages import Request

Reason = Literal[
    "lanes",
    "leased",
    "can wait",
    "harm",
    "better later",
    "expected",
    "too late",
    "late",
    "after others",
    "not looked at",
]
"""Why a request was not launched at an event.

lanes: none was free, nor any batch to preempt. leased: the free lane is a lease's. can wait: none was free, but the
request makes its deadline on the next one. harm: a running batch would have missed its deadline. better later: it
misses its deadline now, but makes it beside fewer. expected: requests to come would lose more by it than it keeps; the
device may have been idle. too late: it would miss its deadline launched now, others first.
late: it misses its deadline even alone. not looked at: batches of other models were considered first, and held.
"""
Limit = Literal[
    "only",
    "all",
    "max_batch_size",
    "knee",
    "deadline",
    "harm",
    "expected",
    "overdue",
    "order",
    "late",
    "lease",
    "preempts",
]
"""Why a batch became as large as it did.

only: one request on an idle device. all: nothing else waited that fits. knee: larger ones hardly gain, and others wait.
deadline, harm: a larger one would have missed its own deadline, or made a running batch miss. expected: a larger one
would keep less beyond what requests to come lose by it. overdue: a single request
that was held too long, whatever it harms. order: its model launches in order of arrival. late: of requests that are
late. lease: launched by its process. preempts: as much as fits before the batch that it suspends.
"""


class Batch(msgspec.Struct, frozen=True):
    """A batch that runs. ends_ns: as predicted then, beside those that ran. suspended: another one goes first."""

    model: str
    rows: int
    lane: int
    since_ns: int
    ends_ns: int
    deadline_ns: int | None
    suspended: bool


class Harmed(msgspec.Struct, frozen=True):
    """A running batch that would have missed its deadline. late_ns: by so much at its upper bound."""

    model: str
    rows: int
    lane: int
    late_ns: int


class Cost(msgspec.Struct, frozen=True):
    """Deadlines of a class, out of those of requests to come, that a launch was expected to cost. price: of each, in
    deadlines of the launch's own.
    """

    priority: int
    lost: float
    price: float


class Wait(msgspec.Struct):
    """One reason to wait, at `times` decisions in a row from `at_ns` to `until_ns`.

    late_ns: how late the request would have been, launched at the first; ahead: requests of its model that come first;
    keeps, costs: deadlines that a launch at the first was expected to keep, and to cost requests to come.
    """

    at_ns: int
    until_ns: int
    times: int
    reason: Reason
    running: list[Batch]
    harmed: list[Harmed] = []
    late_ns: int | None = None
    ahead: int = 0
    keeps: float | None = None
    costs: list[Cost] = []


class Launched(msgspec.Struct, frozen=True):
    """The launch of its batch. allowed: rows or requests that `limit` left. preempts: what it suspends."""

    at_ns: int
    batch: int
    lane: int
    requests: int
    rows: int
    limit: Limit
    allowed: int | None
    decision: str
    solo_ns: int
    predicted_ns: int
    bound_ns: int
    transfer_in_ns: int
    transfer_out_ns: int
    beside: list[Batch]
    preempts: list[Batch]


class Refused(msgspec.Struct, frozen=True):
    """Its rejection. needs_ns: what it would take from then on; left_ns: what its deadline left."""

    at_ns: int
    needs_ns: int
    left_ns: int
    predicted_ns: int
    allowed_ns: int


class Suspension(msgspec.Struct):
    """Time that its batch stood still for another one; until_ns None: to the end of what is known."""

    at_ns: int
    until_ns: int | None = None


class Finished(msgspec.Struct, frozen=True):
    """The end of its batch. exec_ns None: it failed. late_ns: from its deadline, below 0 where that was kept."""

    at_ns: int
    exec_ns: int | None
    transfer_in_ns: int
    transfer_out_ns: int
    late_ns: int | None


class Explanation(msgspec.Struct):
    """All that is known of one request. Times are the monotonic clock's; `clock_ns` more is Unix time.

    waiting: requests that waited before it, by model; passed: launches of others while it waited, by model.
    incomplete: a sentence where the log or the replay leaves something out.
    """

    number: str
    model: str
    request: Request
    clock_ns: int
    arrived_ns: int | None = None
    """Time at which the scheduler knew of it, soon after its `arrival_ns`; None: before what the log holds."""
    waiting: dict[str, int] = {}
    running: list[Batch] = []
    waits: list[Wait] = []
    passed: dict[str, int] = {}
    launched: Launched | None = None
    suspended: list[Suspension] = []
    rejected: Refused | None = None
    cancelled_ns: int | None = None
    gone_ns: int | None = None
    finished: Finished | None = None
    incomplete: list[str] = []
