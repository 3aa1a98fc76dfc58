"""Runs faults one after another under load, and records of each what became of the requests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.account import Account, Allowance, Asked, Period, Sum, owner_of, sum_of
from tests.chaos.decisions import Decisions
from tests.chaos.faults.fault import Fault, Undo
from tests.chaos.load import GIVE_UP_S, Load, capacity_per_s
from tests.chaos.models import MODELS
from tests.chaos.stage import Stage

LOAD = 0.8
"""Of the capacity that is measured at each start of a server."""
_CAPACITY_S = 4.0
_RESUMED_MAX_S = 20.0
_PER_SERVER = 250
"""Faults done to a server before a fresh one; each request is held against all of them."""
_SETTLE_S = 0.5
"""Time after a fault in which a request that was sent may still have met it."""
_RACE_S = 10.0
CRASHED = "chaos/faults/processes.py"


@dataclass(frozen=True)
class Record:
    """One fault. resumed_s: from its beginning, or its end where it stops decisions, until all models had some; None:
    not within 20 s. kept_before, kept_after: percent of deadlines in the windows around it. crashed: tritonserver
    ended. schedulers: that run afterwards. trouble: why it could not be done. may_crash: by a limit of Triton's.
    """

    kind: str
    sum: Sum
    resumed_s: float | None
    kept_before: float | None
    kept_after: float | None
    crashed: bool
    schedulers: int
    trouble: str = ""
    may_crash: bool = False


@dataclass
class Campaign:
    """volume: a small file system of its own, or None. window_s: of the deadlines before and after each fault.
    hold: how many times as long as usual a fault lasts that is undone.
    """

    faults: Sequence[Fault]
    volume: Path | None
    window_s: float
    hold: float
    end_s: float
    note: Callable[[str], None]
    records: list[Record] = field(default_factory=list)
    rates_per_s: list[float] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    stopped: str = ""
    _over: bool = field(default=False, init=False)

    def stop(self) -> None:
        """Begin no further fault. From any thread, or a signal's handler."""
        self._over = True

    def run(self, rounds: int) -> None:
        """Run so many rounds of all kinds, less what is recorded already, as far as time allows. A clock of its own
        needs a server of its own, which comes first, and gets the share of the time that its kinds are.
        """
        done = Counter(record.kind for record in self.records)
        with_clock = [fault for fault in self.faults if "clock" in fault.needs]
        plain = [fault for fault in self.faults if fault not in with_clock]
        now_s = time.monotonic()
        clock_end_s = now_s + (self.end_s - now_s) * len(with_clock) / max(1, len(self.faults))
        for clock, kinds, end_s in ((True, with_clock, clock_end_s), (False, plain, self.end_s)):
            todo = [fault for number in range(rounds) for fault in kinds if done[fault.kind] <= number]
            while todo and self._may_go_on(end_s):
                self._on_one_server(todo, clock, end_s)

    def _may_go_on(self, end_s: float) -> bool:
        return not self._over and time.monotonic() < end_s

    def _on_one_server(self, todo: list[Fault], clock: bool, end_s: float) -> None:
        """Run faults, and take them off the list, until there is none, a server had enough, or tritonserver ended."""
        account = Account()
        with ExitStack() as stack:
            with_route = any("route" in fault.needs for fault in todo)
            stage = stack.enter_context(Stage(self.volume, with_clock=clock, with_route=with_route))
            decisions = stack.enter_context(Decisions("127.0.0.1", stage.state_port))
            capacity = capacity_per_s(stage.server.grpc_url, _CAPACITY_S)
            self.rates_per_s.append(LOAD * capacity)
            self.note(f"capacity {capacity:.0f}/s, load {LOAD * capacity:.0f}/s")
            routed_url = None if stage.route is None else stage.route.grpc_url
            met: list[_Met] = []
            stack.callback(lambda: self._record(met, account))
            with Load(account, stage.server.grpc_url, routed_url, LOAD * capacity, seed=len(self.records)):
                time.sleep(min(3.0, self.window_s))
                while todo and len(met) < _PER_SERVER and self._may_go_on(end_s):
                    met.append(self._meet(todo.pop(0), stage, decisions))
                    if met[-1].crashed:
                        break
            self.logs.append(stage.logs())

    def _meet(self, fault: Fault, stage: Stage, decisions: Decisions) -> _Met:
        """Do one fault and undo it."""
        before_s = time.monotonic()
        time.sleep(self.window_s)
        begin_s, trouble, crashed = time.monotonic(), "", False
        from_s = begin_s
        try:
            undo: Undo = fault.do(stage)
            from_s = time.monotonic()
            time.sleep(self.hold * fault.holds_s)
            undo()
            from_s = time.monotonic() if fault.stops_decisions else from_s
        except Exception as error:  # the fault could not be done: that, too, is a result
            trouble = f"{type(error).__name__}: {error}"
        resumed_s = None
        while resumed_s is None and time.monotonic() < from_s + _RESUMED_MAX_S and not crashed:
            time.sleep(0.05)
            resumed_s = decisions.resumed_after_s(from_s, MODELS)
            crashed = not stage.is_alive
        over_s = time.monotonic()
        time.sleep(max(self.window_s, _SETTLE_S))
        crashed = crashed or not stage.is_alive
        after_s = time.monotonic()
        schedulers = _settled(lambda: len(stage.pids("scheduler")))
        self.note(f"{fault.kind}: {'crashed' if crashed else 'resumed in'} {resumed_s} {trouble}")
        return _Met(fault, (before_s, begin_s, over_s, after_s), resumed_s, crashed, schedulers, trouble)

    def _record(self, met: Sequence[_Met], account: Account) -> None:
        """Judge each request by the faults that it may have met. One that failed counts for the fault that allows it,
        else each for the last that had begun when it was sent, or was about to.
        """
        periods = [one.period for one in met]
        own: list[list[Asked]] = [[] for _ in met]
        for asked in account.sent(0.0, float("inf")):
            if (owner := owner_of(asked, periods)) is not None:
                own[owner].append(asked)
        for one, requests in zip(met, own, strict=True):
            before_s, begin_s, over_s, after_s = one.times_s
            self.records.append(
                Record(
                    one.fault.kind,
                    sum_of(requests, periods),
                    one.resumed_s,
                    account.kept_percent(before_s, begin_s),
                    account.kept_percent(over_s, after_s),
                    one.crashed,
                    one.schedulers,
                    "" if one.crashed and one.fault.may_crash else one.trouble,
                    bool(one.fault.may_crash),
                )
            )


@dataclass(frozen=True)
class _Met:
    """A fault that was done. times_s: begin of the window before, of the fault, of the window after, and its end."""

    fault: Fault
    times_s: tuple[float, float, float, float]
    resumed_s: float | None
    crashed: bool
    schedulers: int
    trouble: str

    @property
    def period(self) -> Period:
        """The fault, as the account has it."""
        _, begin_s, over_s, _ = self.times_s
        allowances = self.fault.allowances
        if self.crashed and self.fault.may_crash:
            allowances = (*allowances, *_crash(self.fault.may_crash))
            over_s = begin_s + _RESUMED_MAX_S + 2 * GIVE_UP_S
        return Period(self.fault.kind, begin_s, over_s + _SETTLE_S, allowances)


def _settled(count: Callable[[], int]) -> int:
    """The number of schedulers, once those that lost the race for the lock have had time to end."""
    deadline_s = time.monotonic() + _RACE_S
    while (found := count()) != 1 and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return found


def _crash(limit: str) -> tuple[Allowance, ...]:
    """All that a client may see of a server that ends."""
    return tuple(Allowance(limit, CRASHED, error) for error in (r"UNAVAILABLE", r"INTERNAL", None))
