"""A scheduler in virtual time whose event log is written as its process does: for tests of replay and explanation."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random
from types import TracebackType

from msgspec.structs import replace

from backend.scheduler.core import ProtocolError, Scheduler
from backend.scheduler.messages import (
    Adopt,
    AdoptedBatch,
    Arrive,
    Cancel,
    Command,
    Event,
    Finish,
    Launch,
    Lease,
    Preempted,
    Recall,
    Reject,
    Request,
    Return,
    Take,
)
from backend.scheduler_process.event_file import Handled, Left, Origin, Saved, Trained, Woken
from backend.scheduler_process.event_log import MAX_BYTES, EventLog
from tests.fakes.builders import MS, START_NS, join, profile

ORIGIN = Origin("0.0.0", "cpu", 4, 2, None, 1, 0)
_PROFILES = (profile(8.0, 0.6, 0.3, 0.5), profile(3.0, 0.9, 0.2, 0.8), profile(20.0, 0.3, 0.1, 0.9), profile(5.0))
_SLOS_MS = (None, 12.0, 25.0, 40.0, 80.0, 200.0)


class Recorded:
    """Four lanes share two cores unless a test says otherwise. In `run` its models' processes come and go, send
    requests, run batches, use leases, cancel.
    """

    def __init__(
        self,
        path: Path,
        seed: int = 1,
        core: Scheduler | None = None,
        max_bytes: int = MAX_BYTES,
        started_ns: int = 0,
    ) -> None:
        self._random = Random(seed)
        self.core = core or Scheduler(4, cores=2)
        self.log = EventLog(path, replace(ORIGIN, started_ns=started_ns), max_bytes)
        self.now_ns = START_NS
        self.seen: Counter[str] = Counter()
        self.launches: dict[tuple[int, int], Launch] = {}
        """By (source, batch)."""
        self.ends_ns: dict[tuple[int, int], int] = {}
        self.requests: dict[tuple[int, int], Request] = {}
        self._leases: dict[int, Lease] = {}
        self._rows: dict[tuple[int, int], int] = {}
        self._ids = self._own_batches = 0
        self.log.checkpoint(self.core, self.now_ns)

    def __enter__(self) -> Recorded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.close()
        self.core.check_invariants()

    def at(self, now_ms: float) -> Recorded:
        self.now_ns = START_NS + round(now_ms * MS)
        return self

    def run(self, events: int) -> None:
        """So many random events."""
        done = self.seen.total()
        while self.seen.total() < done + events:
            self._step()
            self.let_write()

    def let_write(self) -> None:
        """Wait for the log's thread where it is far behind, and take a checkpoint where one is due."""
        while len(self.log._writer) > 5_000:
            time.sleep(0.01)
        if self.log.checkpoint_due(self.now_ns):
            self.log.checkpoint(self.core, self.now_ns)

    def handle(self, source: int, event: Event) -> list[Command]:
        self.seen[type(event).__name__] += 1
        try:
            commands = self.core.handle(source, event, self.now_ns)
        except ProtocolError as error:
            self.seen["refused"] += 1
            self.log.put(Handled(self.now_ns, source, event, (), str(error)))
            return []
        self.log.put(Handled(self.now_ns, source, event, tuple(commands)))
        self._obey(commands)
        return commands

    def leave(self, source: int) -> None:
        self.seen["leave"] += 1
        commands = self.core.leave(source, self.now_ns)
        self.log.put(Left(self.now_ns, source, tuple(commands)))
        self.ends_ns = {key: end for key, end in self.ends_ns.items() if key[0] != source}
        self._leases.pop(source, None)
        self._obey(commands)

    def wake(self) -> None:
        commands = self.core.wake(self.now_ns)
        self.log.put(Woken(self.now_ns, tuple(commands)))
        self.seen["woken"] += len(commands)
        self._obey(commands)

    def train(self) -> None:
        self.seen["train"] += 1
        self.log.put(Trained())
        self.core.learn()

    def save(self) -> None:
        self.seen["save"] += 1
        self.log.put(Saved())
        self.core.latency.predictor.state()

    def request(self, slo_ms: float | None = None, *, priority: int = 1, rows: int = 1) -> Request:
        self._ids += 1
        deadline_ns = None if slo_ms is None else self.now_ns + round(slo_ms * MS)
        return Request(self._ids, rows, self.now_ns, deadline_ns, priority, int(self._ids % 9 == 0))

    def arrive(self, source: int, *requests: Request) -> list[Command]:
        self.requests.update(((source, r.id), r) for r in requests)
        return self.handle(source, Arrive(requests))

    def finish(
        self, key: tuple[int, int], exec_ns: int | None, moved: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> None:
        self.ends_ns.pop(key, None)
        self.handle(key[0], Finish(key[1], exec_ns, *moved))

    def _step(self) -> None:
        choose = self._random.random()
        joined = list(self.core.sources)
        if len(joined) < 3 or (choose < 0.01 and len(joined) < 6):
            self._join()
        elif choose < 0.015:
            self.leave(self._random.choice(joined))
        elif choose < 0.02:
            self._refused(self._random.choice(joined))
        elif choose < 0.03:
            self.save() if choose < 0.0215 else self._cancel(self._random.choice(joined))
        elif choose < 0.035:
            self._own_batches -= 1
            batch = AdoptedBatch(self._own_batches, 2, self._random.randrange(6))
            source = self._random.choice(joined)
            self.handle(source, Adopt((batch,)))
            self.ends_ns[source, batch.batch] = self.now_ns + self._random.randrange(20 * MS)
        elif self.core.wake_after_ns() < self.now_ns and choose < 0.2:
            self.wake()
        else:
            self._serve(joined)
        if self._random.random() < 0.8:
            self.train()

    def _serve(self, joined: list[int]) -> None:
        """The next end, or an arrival before it."""
        calm = self.now_ns // (500 * MS) % 3 == 0
        gap_ns = round(self._random.expovariate(1.0) * MS * (25.0 if calm else 1.4))
        key = min(self.ends_ns, key=self.ends_ns.__getitem__, default=None)
        if key is not None and self.ends_ns[key] <= self.now_ns + gap_ns:
            self.now_ns = max(self.now_ns, self.ends_ns[key])
            self._end(key)
            return
        self.now_ns += gap_ns
        source = joined[0] if calm else self._random.choice(joined)
        lease = self._leases.get(source)
        slo_ms = self._random.choice(_SLOS_MS)
        if lease is not None and self._may_take(source):
            request = self.request(slo_ms)
            request = Request(request.id, lease.rows, self.now_ns, request.deadline_ns, 1, lease.group)
            self.requests[source, request.id] = request
            self._own_batches -= 1
            self.handle(source, Take(self._own_batches, request))
            self.ends_ns[source, self._own_batches] = self.now_ns + round(
                lease.times.solo_ns * self._random.uniform(0.9, 1.3)
            )
            return
        self._leases.pop(source, None)
        count = self._random.choice((1, 1, 1, 2, 5))
        rows, priority = self._random.choice((1, 1, 1, 2)), 1 + source % 2
        self.arrive(source, *(self.request(slo_ms, priority=priority, rows=rows) for _ in range(count)))

    def _may_take(self, source: int) -> bool:
        return not self.core.sources[source].queue and not any(key[0] == source for key in self.core.device.running)

    def _end(self, key: tuple[int, int]) -> None:
        batch = self.core.device.running[key]
        if any(going.suspended_for is not None for going in self.core.device.batches if going.key == key):
            self.ends_ns[key] += 5 * MS  # it stands still
            return
        exec_ns = max(1, self.now_ns - batch.launched_ns)
        source = key[0]
        moved = (MS // 10, MS // 20, 900_000 * batch.rows, 4_000 * batch.rows) if source % 3 == 0 else (0, 0, 0, 0)
        exec_ns = max(1, exec_ns - moved[0] - moved[1])
        self.finish(key, None if self._random.random() < 0.02 else exec_ns, moved)

    def _join(self) -> None:
        source = next(i for i in range(1, 100) if i not in self.core.sources)
        p = _PROFILES[source % len(_PROFILES)]
        event = join(p, model=f"m{source}", rejects=source % 2 == 1, aware=source != 5, preemptible_lanes=8)
        self.handle(source, event)

    def _cancel(self, source: int) -> None:
        waiting = list(self.core.sources[source].queue.ids())[:2]
        self.handle(source, Cancel(tuple(waiting) or (0,)))

    def _refused(self, source: int) -> None:
        self.handle(source, Finish(10**9, 1))
        self.handle(source, Arrive((self.request(rows=0),)))

    def _obey(self, commands: list[Command]) -> None:
        returned = []
        for command in commands:
            match command:
                case Launch():
                    key = command.source, command.batch
                    self.launches[key] = command
                    self.seen[f"launch {command.decision}"] += 1
                    self.seen["held"] += command.holds
                    self.ends_ns[key] = self.now_ns + round(command.times.solo_ns * self._random.uniform(0.9, 2.0))
                case Preempted():
                    self.seen["preempted"] += 1
                case Reject():
                    self.seen["rejected"] += 1
                case Lease():
                    self.seen["lease"] += 1
                    self._leases[command.source] = command
                case Recall():
                    self.seen["recall"] += 1
                    if self._leases.pop(command.source, None) is not None:
                        returned.append(command)
        for recall in returned:
            self.handle(recall.source, Return(recall.lease))
