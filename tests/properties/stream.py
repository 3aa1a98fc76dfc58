"""Random events for the scheduler, read out of strings of random bytes: to draw each by itself would take minutes."""

from __future__ import annotations

from random import Random

from hypothesis import note
from msgspec.structs import replace

from backend.scheduler.messages import (
    PROTOCOL,
    Adopt,
    AdoptedBatch,
    Arrive,
    Cancel,
    Event,
    Finish,
    Limit,
    Ping,
    Request,
    Return,
    Take,
)
from predictor.workload import Load, ModelProfile
from tests.fakes.builders import MS, join, profile
from tests.properties.checked_scheduler import CheckedScheduler
from tests.properties.invariants import check_integral

_EVENTS = 100
_BYTES_PER_EVENT = 7
_SOURCES = 5

_TICKS_NS = (0, 0, 0, 1, 1_000, 100_000, MS, 2 * MS, 5 * MS, 20 * MS, 100 * MS, 2_000 * MS)
_SLACKS_NS = (None, None, -5 * MS, 0, 1, MS, 5 * MS, 12 * MS, 20 * MS, 30 * MS, 100 * MS, 10_000 * MS)
_MAX_BATCH_SIZES = (0, 1, 2, 4, 8, 13)
_PROFILES = (
    profile(10.0, 0.5, 0.3, 0.2),
    profile(2.0, 0.9, 1.0, 0.7),
    profile(30.0, 0.123456789, 0.0, 1.0),
    ModelProfile((1,), (Load(1, 1.0, 1.0, 1.0),)),
    ModelProfile((2, 5), (Load(3 * MS, 0.0, 0.0, 0.0), Load(4 * MS, 0.3333333, 0.1, 0.0000004))),
)
_MOVED = (
    (0, 0, 0, 0),
    (200_000, 50_000, 600_000, 4_000),
    (3 * MS, 2 * MS, 9_000_000, 7_000_000),
    (0, MS, 0, 4_000_000),
    (1, 10**15, 0, 2**62),
)
"""By source: what its batches say of their transfers; the last is absurd."""
_TIMES_PROFILED = (100, 100, 2_600, 4, 100)
"""By source: what its batches really take, in percent."""
_JOINS = tuple(
    replace(
        join(
            p,
            max_batch_size=_MAX_BATCH_SIZES[i % 6],
            aware=i % 4 != 3,
            rejects=i % 3 == 2,
            model=f"m{i}",
            preemptible_lanes=(4, 4, 2, 0)[i // 2 % 4],
        ),
        profiled_group=(0, 0, None, 1, 0, 9, 0)[i % 7],
    )
    for i, p in enumerate(_PROFILES * 6)
)


class Stream:
    """Reads events out of bytes, a few for each, and gives them to a scheduler."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._bytes = iter(b"")
        self.scheduler = CheckedScheduler(self._random.randint(1, 4))
        self._account = self.scheduler.account
        self._next_request = 1

    def __str__(self) -> str:
        """Events so far, for a failing example."""
        events = "".join(f"\n  {at} {who} {what}" for at, who, what in self.scheduler.events)
        return f"{self._account.lanes} lanes{events}"

    def run(self) -> CheckedScheduler:
        try:
            for i in range(_EVENTS):
                self._bytes = iter(self._random.randbytes(_BYTES_PER_EVENT))
                self._step()
                if i == _EVENTS // 2:
                    check_integral(self.scheduler.core, self._account)
        except BaseException:
            note(str(self))
            raise
        return self.scheduler

    def _byte(self) -> int:
        """The next of this event's bytes; zeros follow its last one."""
        return next(self._bytes, 0)

    def _step(self) -> None:
        """One event: most are arrivals and finishes, so that the lanes fill and empty."""
        kind = self._byte()
        self._account.now_ns += _TICKS_NS[self._byte() % len(_TICKS_NS)]
        sources = list(self._account.models)
        if len(sources) < 2 or (kind < 8 and len(sources) < _SOURCES):
            self._join()
            return
        source = sources[self._byte() % len(sources)]
        if kind < 60:  # whoever may launch by itself does so more often than chance would have it
            source = next((i for i in sources if self._account.models[i].lease is not None), source)
        if (lease := self._account.models[source].lease) is not None and self._account.models[source].recalled:
            self.scheduler.take(source, Return(lease.lease))
        elif kind < 110:
            self._arrive(source)
        elif kind < 215:
            self._finish()
        elif kind < 225:
            self._cancel(source)
        elif kind < 229:
            self._adopt(source)
        elif kind < 234:
            self.scheduler.leave(source)
        elif kind < 240:
            self.scheduler.take(source, Ping())
        elif kind < 246:  # rare, for the snapshots that it takes
            self._impossible(source, self._byte())
        elif kind < 248:
            self.scheduler.take(source, Limit(self._byte() % 14))

    def _join(self) -> None:
        free = [i for i in range(1, _SOURCES + 2) if i not in self._account.models]
        self.scheduler.take(free[self._byte() % len(free)], _JOINS[self._byte() % len(_JOINS)])

    def _requests(self, source: int) -> tuple[Request, ...]:
        max_rows = max(1, self._account.models[source].join.max_batch_size)
        count = 1 + self._byte() % 4
        what, rows, slack = self._byte(), self._byte(), self._byte()
        return tuple(self._request(what + i * 5, rows + i * 3, slack + i, max_rows) for i in range(count))

    def _request(self, what: int, rows: int, slack: int, max_rows: int) -> Request:
        id_, now_ns = self._next_request, self._account.now_ns
        self._next_request += 1
        slack_ns = _SLACKS_NS[slack % len(_SLACKS_NS)]
        deadline_ns = None if slack_ns is None else now_ns + slack_ns
        arrival_ns = now_ns - (what // 16) % 3  # not quite in the order of the numbers
        rows = 1 + rows % max_rows if what % 11 else 1 + rows  # more than any batch grows to
        return Request(id_, rows, arrival_ns, deadline_ns, 1 + what % 3, int(what % 7 == 0))

    def _arrive(self, source: int) -> None:
        model = self._account.models[source]
        requests = self._requests(source)
        if (lease := model.lease) is not None and model.may_take() and len(requests) < 4:
            r = requests[0]
            request = Request(r.id, lease.rows, r.arrival_ns, r.deadline_ns, r.priority, lease.group)
            self.scheduler.take(source, Take(min([0, *model.running, *model.ended]) - 1, request))
        else:
            self.scheduler.take(source, Arrive(requests))

    def _finish(self) -> None:
        running = [(i, b) for i, model in self._account.models.items() for b in model.running]
        if not running:
            return
        source, batch = running[self._byte() % len(running)]
        how, model = self._byte(), self._account.models[source]
        solo_ns = model.join.profile.at(model.running[batch].rows).solo_ns * _TIMES_PROFILED[source % 5] // 100
        moved = _MOVED[source % len(_MOVED)] if self._byte() < 224 else ()
        self.scheduler.take(source, Finish(batch, None if how < 30 else 1 + solo_ns * how // 100, *moved))

    def _cancel(self, source: int) -> None:
        model = self._account.models[source]
        known = [*model.waiting, *model.gone[-3:], 0]
        first = self._byte() % len(known)
        self.scheduler.take(source, Cancel(tuple(known[first : first + 1 + self._byte() % 3])))

    def _adopt(self, source: int) -> None:
        model = self._account.models[source]
        used = min([0, *model.running, *model.ended])
        count, what = 1 + self._byte() % 2, self._byte()
        lane, preempts = (what >> 3) % 6, what % 3 == 0
        batches = tuple(AdoptedBatch(used - 1 - i, 1 + what % 9, lane, preempts) for i in range(count))
        self.scheduler.take(source, Adopt(batches))

    def _impossible(self, source: int, kind: int) -> None:
        """The first part of most of these is fine: it must not be taken alone."""
        account, model = self._account, self._account.models[source]
        unknown = _SOURCES + 9
        good = self._requests(source)
        now_ns, old = account.now_ns, good[0]
        batches = {b for m in account.models.values() for b in m.running}
        running = min(model.running, default=None)
        launched = [r for batch in model.running.values() for r in batch.requests]
        waiting_again, running_again = (
            Request(ids[0], 1, now_ns, None, 1) if ids else old for ids in ([*model.waiting], launched)
        )
        free = AdoptedBatch(min([0, *model.running]) - 1, 1, 0)
        events: tuple[tuple[int, Event], ...] = (
            (unknown, Arrive(good)),
            (unknown, Cancel((1,))),
            (unknown, Finish(1, 1)),
            (unknown, Adopt((free,))),
            (source, model.join),
            (unknown, join(_PROFILES[0], protocol=PROTOCOL + 1)),
            (unknown, join(_PROFILES[0], lanes=account.lanes + 1)),
            (source, Arrive((*good, old))),
            (source, Arrive((*good, waiting_again))),
            (source, Arrive((*good, running_again))),
            (source, Arrive((*good, Request(0, 0, now_ns, None, 1)))),
            (source, Arrive((*good, Request(0, 2**31, now_ns, None, 1)))),
            (source, Arrive((*good, Request(0, 1, now_ns, None, 0)))),
            (unknown, Take(-1, old)),
            (unknown, Return(1)),
            (source, Take(1, old)),
            (source, Take(-1, Request(old.id, 999, now_ns, None, 1))),
            (source, Take(-1, Request(old.id, 1 if model.lease is None else model.lease.rows, now_ns, None, 1, 3))),
            (source, Limit(-1)),
            (source, Limit(2**31)),
            (unknown, Limit(1)),
            (source, Return(0)),
            (source, Finish(max(batches, default=0) + 1, 1)),
            (source, Finish(model.ended[-1] if model.ended else 0, None)),
            (source, Finish(1 if running is None else running, 0)),
            (source, Finish(1 if running is None else running, -7)),
            (source, Finish(1 if running is None else running, 7, 1, -1)),
            (source, Finish(1 if running is None else running, 7, 1, 1, -1)),
            (source, Adopt((free, AdoptedBatch(1, 1, 0)))),
            (source, Adopt((free, AdoptedBatch(free.batch - 1, 0, 0)))),
            (source, Adopt((free, AdoptedBatch(free.batch - 1, 1, -1)))),
            (source, Adopt((free, free))),
        )
        if kind % 20 == 0:
            now_ns = account.seen_ns - 1
        self.scheduler.refuse(*events[kind % len(events)], now_ns)
