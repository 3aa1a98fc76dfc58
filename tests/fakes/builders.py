"""Short ways to say what the scheduler's tests are about: profiles, joins, requests, in milliseconds."""

from __future__ import annotations

from backend.scheduler.core import Scheduler
from backend.scheduler.messages import PROTOCOL, Arrive, Command, Finish, Join, Launch, Reject, Request
from predictor.features import CoRunner
from predictor.learners.learner import Forecaster
from predictor.learners.linear import Rls
from predictor.workload import Load, ModelProfile
from profiler.profile_file import FeatureShares, ProfileEntry, ProfileFile

MS = 1_000_000
START_NS = 1_000_000 * MS
"""The first instant of a scheduler's test; far from 0, as a machine's clock is."""


def load(solo_ms: float, compute: float = 0.0, l2: float = 0.0, dram: float = 0.0) -> Load:
    """A load that slows no other batch unless a test says otherwise."""
    return Load(round(solo_ms * MS), compute, l2, dram)


def profile(solo_ms: float = 10.0, compute: float = 0.0, l2: float = 0.0, dram: float = 0.0) -> ModelProfile:
    """Batches of 1 take `solo_ms`, each further row a tenth of that, up to 8 rows."""
    sizes = (1, 2, 4, 8)
    return ModelProfile(sizes, tuple(load(solo_ms * (0.9 + 0.1 * n), compute, l2, dram) for n in sizes))


def join(
    profile: ModelProfile,
    *,
    model: str = "m",
    max_batch_size: int = 8,
    lanes: int | None = None,
    aware: bool = True,
    rejects: bool = False,
    protocol: int = PROTOCOL,
    preemptible_lanes: int = 0,
) -> Join:
    return Join(protocol, model, "1", max_batch_size, lanes, profile, aware, rejects, preemptible_lanes)


class Device:
    """A scheduler with a clock in milliseconds; requests are numbered through, batches answer to their Launch.

    Its predictor is the paper's, whose first weights make slowdowns that can be worked out by hand: 1 + 0.3 compute +
    0.1 l2 + 0.3 dram of the co-runners. co_runners: those of each batch that ended well, in that order.
    """

    def __init__(self, lanes: int = 1, cores: int | None = None, predictor: Forecaster | None = None) -> None:
        self.co_runners: list[list[CoRunner]] = []
        self.core = Scheduler(
            lanes, lambda *ended: self.co_runners.append(ended[-1]), predictor=predictor or Rls(), cores=cores
        )
        self.core.latency.bound.multiplier = 1.0
        self.now_ms = 0.0
        self._requests = 0

    @property
    def now_ns(self) -> int:
        return START_NS + round(self.now_ms * MS)

    def at(self, now_ms: float) -> Device:
        self.now_ms = now_ms
        return self

    def join(self, source: int, event: Join) -> list[Command]:
        return self.core.handle(source, event, self.now_ns)

    def request(
        self, slo_ms: float | None = None, *, priority: int = 1, rows: int = 1, group: int = 0, age_ms: float = 0.0
    ) -> Request:
        """A request that arrives now, or did `age_ms` ago."""
        self._requests += 1
        arrival_ns = self.now_ns - round(age_ms * MS)
        deadline_ns = None if slo_ms is None else arrival_ns + round(slo_ms * MS)
        return Request(self._requests, rows, arrival_ns, deadline_ns, priority, group)

    def arrive(self, source: int, *requests: Request) -> list[Command]:
        return self.core.handle(source, Arrive(requests), self.now_ns)

    def ask(
        self, source: int, slo_ms: float | None = None, *, priority: int = 1, rows: int = 1, group: int = 0
    ) -> list[Command]:
        """One request arrives."""
        return self.arrive(source, self.request(slo_ms, priority=priority, rows=rows, group=group))

    def finish(self, launch: Launch, exec_ms: float | None = None) -> list[Command]:
        """The batch ends now; without `exec_ms` as a failed one, which teaches nothing."""
        exec_ns = None if exec_ms is None else round(exec_ms * MS)
        commands = self.core.handle(launch.source, Finish(launch.batch, exec_ns), self.now_ns)
        self.core.learn()
        return commands


def only_launch(commands: list[Command]) -> Launch:
    (command,) = commands
    assert isinstance(command, Launch)
    return command


def only_reject(commands: list[Command]) -> Reject:
    (command,) = commands
    assert isinstance(command, Reject)
    return command


def profile_file(model: str, *entries: tuple[int, float, float]) -> ProfileFile:
    """A profile as `isochrone profile` writes it; entries: (batch size, p50 ms, p95 ms)."""
    shares = FeatureShares(0.5, 0.2, 0.3)
    found = []
    for size, p50, p95 in entries:
        low, high = round(p50 * MS), round(p95 * MS)
        found.append(ProfileEntry(size, low, (low, low), high, (high, high), size / p50 * 1e3, shares, 1, 30, 0, True))
    return ProfileFile(1, model, "1", "cpu", "onnx", "0" * 64, "graph", tuple(found))
