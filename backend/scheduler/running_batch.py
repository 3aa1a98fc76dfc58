"""A batch on the device: its launch, and its progress since. `backend.scheduler.device_state` keeps one entry of each.

Few batches run at once, and most questions are about one of them: plain numbers answer those sooner than arrays would.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from backend.scheduler.messages import BatchTimes
from predictor.features import Own
from predictor.slowdown_function import ZERO_SUMS, SlowdownFunction, Sums
from predictor.workload import Load

BatchKey = tuple[int, int]
"""(source, batch): batches that a process launched by itself are numbered by that process."""
Column = tuple[float, ...]
"""A batch as a timeline's arrays hold it: the row of its slowdown function, its contribution to its co-runners, its
weight of sharing a core, and its remaining solo latency."""

MIN_SLOWDOWN = 0.5
"""Least that is forecast."""
_NEARLY_DONE = 0.05
"""Share of its solo latency that remains at least: nothing better is known of a batch that outlives its prediction."""


@dataclass(slots=True, eq=False)
class RunningBatch:
    """A batch on a lane, or suspended there. All times in nanoseconds, of the execution unless a name says otherwise.

    requests: none of an adopted batch. preempts: the other batch on its lane is suspended for it. priority: the
    highest class among its requests; deadline_ns: the tightest, inf without one. group: its requests' shape; None of an
    adopted batch.
    """

    key: BatchKey
    requests: tuple[int, ...]
    own: Own
    lane: int
    priority: int
    deadline_ns: float
    launched_ns: int
    times: BatchTimes
    slowdown_function: InitVar[SlowdownFunction]
    contribution: Sums
    """To its co-runners' slowdowns."""
    preempts: bool = False
    decision: str = "launch"
    group: int | None = None
    gives_way: bool = False
    """True if others can preempt it."""
    core: int | None = field(default=None, init=False)
    """Where lanes share cores."""
    core_sharers: int = field(default=0, init=False)
    """Other batches on its core, where lanes share cores."""
    adds: Sums = field(init=False)
    """Its contribution; nothing while it is suspended."""
    solo_slowdown: float = field(init=False)
    slowdown: float = field(default=1.0, init=False)
    """Beside the batches that run now, as of `DeviceState.update_slowdowns`."""
    left_ns: float = field(init=False)
    """Of its solo latency, by the forecast; below 0 where it outlives that."""
    suspended_for: RunningBatch | None = field(default=None, init=False)
    was_suspended: bool = field(default=False, init=False)
    beside_lower_ns: float = field(default=0.0, init=False)
    """Time that it ran beside lower classes, each instant by their share of its co-runners."""
    _function: SlowdownFunction = field(init=False)
    """Of its co-runners' contributions."""
    _among: SlowdownFunction = field(init=False)
    """The same of the contributions of all that run, its own among them."""
    _row: Column | None = field(default=None, init=False)
    """The constant part of its column, where a timeline needed it."""

    def __post_init__(self, slowdown_function: SlowdownFunction) -> None:
        self.left_ns = self.own.load.solo_ns
        self.update_function(slowdown_function, self.contribution)

    @property
    def rows(self) -> int:
        return self.own.batch_size

    @property
    def load(self) -> Load:
        return self.own.load

    @property
    def remaining_ns(self) -> float:
        """Remaining solo latency, as of the last `DeviceState.advance`; that of a preempting one included."""
        least_ns = _NEARLY_DONE * self.own.load.solo_ns
        own_ns = self.left_ns if self.left_ns > least_ns else least_ns
        return own_ns if self.suspended_for is None else own_ns + self.suspended_for.remaining_ns

    def slowdown_with(self, sums: Sums, more_sharers: int = 0) -> float:
        """Slowdown where all that run, itself among them, add `sums`, and so many more than now share its core."""
        found = self._among.slowdown(sums, self.core_sharers + more_sharers)
        return found if found > MIN_SLOWDOWN else MIN_SLOWDOWN

    def column(self) -> Column:
        """The batch in a timeline."""
        if self._row is None:
            self._row = (*self._among.row(), *self.adds, self._among.sharing)
        return (*self._row, self.remaining_ns)

    def suspend(self, preempting: RunningBatch) -> None:
        """Suspend it until the other batch has ended."""
        self.suspended_for, self.was_suspended = preempting, True
        self._add(ZERO_SUMS)

    def resume(self) -> None:
        """End its suspension."""
        self.suspended_for = None
        self._add(self.contribution)

    def update_function(self, slowdown_function: SlowdownFunction, contribution: Sums) -> None:
        """Forecast by these from now on: the predictor has learned."""
        self._function, self.contribution = slowdown_function, contribution
        self.solo_slowdown = slowdown_function.solo
        self._add(ZERO_SUMS if self.suspended_for else contribution)

    def _add(self, adds: Sums) -> None:
        self.adds, self._among, self._row = adds, self._function.among(adds), None


def candidate_column(own: Own, slowdown_function: SlowdownFunction, contribution: Sums) -> Column:
    """The column of a batch that would begin now."""
    row = slowdown_function.among(contribution).row()
    return (*row, *contribution, slowdown_function.sharing, own.load.solo_ns)
