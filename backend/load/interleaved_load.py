"""The same load on several servers in turn, again and again: a machine's drift hits all alike. Prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from backend.errors import ServerError
from backend.load.generator import LoadInterrupted, Payloads, run_load
from backend.load.inputs import is_live
from backend.load.outcomes import MeasuredLoad
from backend.load.workload import Workload


@dataclass(frozen=True)
class Schedule:
    """loads: factors on the workload's rates, each measured on all servers before the next."""

    workload: Workload
    trace: list[float] | None
    loads: Sequence[float]
    repeats: int
    seed: int
    warm_up_max_s: float = 3.0

    @property
    def warm_up_s(self) -> float:
        """Seconds of load before each measurement, whose figures do not count."""
        return min(self.warm_up_max_s, self.workload.seconds)

    def seconds(self, targets: int) -> float:
        """Seconds of load in all."""
        return targets * len(self.loads) * self.repeats * (self.workload.seconds + self.warm_up_s)


@dataclass
class Bench:
    """`measured` holds what was found so far at any time, also after an error or a Ctrl-C.

    on_stage is told what begins and about how many seconds it takes; on_progress the seconds into it.
    """

    schedule: Schedule
    payloads: Payloads
    on_stage: Callable[[str, float], None]
    on_progress: Callable[[float], None]
    measured: list[MeasuredLoad] = field(default_factory=list)

    def run(self, servers: Mapping[str, str]) -> None:
        """servers: name → gRPC address. Raises ServerError where one goes away, KeyboardInterrupt."""
        names = list(servers)
        for turn, (repeat, load) in enumerate(product(range(self.schedule.repeats), self.schedule.loads)):
            first = turn % len(names)  # nobody always comes first
            for name in names[first:] + names[:first]:
                self.warm_up(name, servers[name], load)
                self.measure(name, servers[name], load, repeat)

    def warm_up(self, name: str, url: str, load: float) -> None:
        warm_up_s = self.schedule.warm_up_s
        self.on_stage(f"{name}: warm-up", warm_up_s)
        plan = self.schedule.workload.planned(load, self.schedule.seed + 10_000, self.schedule.trace)
        early = [arrival for arrival in plan if arrival.at_s < warm_up_s]
        run_load(url, early, self.payloads, on_progress=self.on_progress)

    def measure(self, name: str, url: str, load: float, repeat: int) -> None:
        workload, schedule = self.schedule.workload, self.schedule
        self.on_stage(f"{name}: load {load:g}, {repeat + 1} of {schedule.repeats}", workload.seconds)
        plan = workload.planned(load, schedule.seed + repeat, schedule.trace)
        seconds = workload.seconds
        try:
            outcomes = run_load(url, plan, self.payloads, on_progress=self.on_progress)
        except LoadInterrupted as interrupted:
            seconds = max((o.intended_s for o in interrupted.outcomes), default=0.0)
            self.measured.append(MeasuredLoad(name, load, repeat, seconds, interrupted.outcomes))
            raise
        self.measured.append(MeasuredLoad(name, load, repeat, seconds, outcomes))
        if any(o.status == "failed" for o in outcomes) and not is_live(url):
            raise ServerError(f"the server '{name}' at {url} went away at load {load:g}; what came before is kept")
