"""Solo latency of one model's batches: the profile's at first, then as measured.

Kept as a ratio to the profile, by the inputs' shape (a *group* of requests that may share a batch) and by rows. A size
that was not measured has its group's ratio, a group that was not the model's. O(1) per batch, bounded in size.
"""

from __future__ import annotations

from math import exp, log

from predictor.features import Own
from predictor.workload import Load, ModelProfile

GROUPS_MAX = 256
"""Per model; one more, and the group that was measured longest ago is known no more."""
OLD_NS = 1_000_000_000
"""Age from which an estimate that no batch confirmed may be doubted."""
_OWNS_MAX = 128
"""Looked-up batches that are kept per group."""
_LATEST = 9
"""Measurements that an estimate is the median of: a pause of the machine, or a cold first run, moves nothing, nor do
four of them in a row. A mean would take either in."""
_WORTH = 2
"""Weight in measurements of the profile, or of the group's estimate where a size begins its own."""
_FEW = 3
"""Measurements of a group that are its first. They may be of batches with co-runners, which is better than a guess; the
least of them counts, for first runs are cold; and no request is refused for them."""
_NEWS = 0.05
"""Share by which an estimate must be wrong to move: what follows from it need not be worked out all the time."""
_CLEARLY_LESS = 0.8
"""No batch is faster for its co-runners: one that took less than this share of the estimate refutes it."""
_LONGEST_NS = 10**13
"""Hours. More, as where rows are a caller's whim, does not fit a message."""


class _Ratio:
    """Log of measured / profiled solo latency: the lower median of the latest."""

    __slots__ = ("checked_ns", "count", "doubted", "estimate", "latest")

    def __init__(self, now_ns: int, prior: tuple[float, ...] = ()) -> None:
        self.latest = prior
        self.estimate = prior[0] if prior else 0.0
        self.count = 0
        self.checked_ns = now_ns
        """Time of the last measurement or doubt."""
        self.doubted = False
        """No measurement came since it was doubted."""

    def learn(self, ratio: float, now_ns: int) -> bool:
        """Returns whether the estimate changes."""
        self.latest = (*self.latest, ratio)[-_LATEST:]
        self.count += 1
        self.checked_ns, self.doubted = now_ns, False
        # Of an even number the lower one: what comes on top of an execution is more often there than missing.
        place = (len(self.latest) - 1) // 2 if len(self.latest) > _FEW else 0
        found = sorted(self.latest)[place]
        if self.count > 1 and abs(found - self.estimate) <= _NEWS:
            return False
        changes, self.estimate = found != self.estimate, found
        return changes

    def doubt(self, now_ns: int) -> None:
        """The next measurement counts as much as all before it."""
        self.latest = (self.estimate,)
        self.checked_ns, self.doubted = now_ns, True


class _Group:
    """Estimates of one shape: over all its sizes, of some of them by themselves, and the batches that follow."""

    __slots__ = ("owns", "sizes", "whole")

    def __init__(self, whole: _Ratio) -> None:
        self.whole = whole
        self.sizes: dict[int, _Ratio] = {}
        self.owns: dict[int, Own] = {}

    def at(self, rows: int) -> _Ratio:
        """The closest estimate for so many rows."""
        return self.sizes.get(_size(rows), self.whole)

    def size(self, rows: int, now_ns: int) -> _Ratio:
        """The estimate of so many rows by themselves; at first the whole group's."""
        size = _size(rows)
        found = self.sizes.get(size)
        if found is None:
            prior = (self.whole.estimate,) * _WORTH if self.whole.latest else ()
            found = self.sizes[size] = _Ratio(now_ns, prior)
        return found


class SoloLatency:
    """One model's. measured_group: the shape that was profiled; None: nothing was measured, the profile is a guess."""

    def __init__(self, model: str, profile: ModelProfile, measured_group: int | None, now_ns: int) -> None:
        self._model, self._profile, self._measured_group = model, profile, measured_group
        self._groups: dict[int | None, _Group] = {}
        """In the order of their last measurements."""
        self._others = _Group(_Ratio(now_ns))
        """Estimate of a group that is not known: all that was learned."""
        self._others_doubted_ns = now_ns - OLD_NS
        if measured_group is not None:
            self._groups[measured_group] = _Group(_Ratio(now_ns, (0.0,) * _WORTH))

    def __len__(self) -> int:
        """The number of groups that are known."""
        return len(self._groups)

    @property
    def latest_group(self) -> int | None:
        """The shape that was measured last; None where none was."""
        return next(reversed(self._groups), None)

    def own(self, rows: int, group: int | None) -> Own:
        """The batch as the predictor takes it, looked up once. group: None where it is not known."""
        found = self._groups.get(group, self._others)
        own = found.owns.get(rows)
        return self._look_up(found, rows) if own is None else own

    def knows(self, group: int | None) -> bool:
        """Batches of this group were measured: in the profile, or often enough since."""
        found = self._groups.get(group)
        return found is not None and (group == self._measured_group or found.whole.count >= _FEW)

    def guesses(self, group: int | None) -> bool:
        """Nothing at all was measured that this group's latency could be told from."""
        return group not in self._groups and not self._others.whole.count

    def learns_from_co_run(self, rows: int, group: int, exec_ns: int) -> bool:
        """A batch that had co-runners is to be learned from too, by the time it would have taken solo.

        A solo run tells more; but on a device that is never idle an estimate must not stay wrong.
        """
        if not self.knows(group) or self._groups[group].at(rows).doubted:
            return True
        return exec_ns < _CLEARLY_LESS * self.own(rows, group).load.solo_ns

    def learn(self, rows: int, group: int, measured_ns: float, now_ns: int) -> bool:
        """From a batch's solo time, measured or inferred. Returns whether the estimate for the whole model changes."""
        ratio = log(measured_ns / self._profile.at(rows).solo_ns)
        found = self._groups.pop(group, None) or _Group(_Ratio(now_ns))
        self._groups[group] = found
        if len(self._groups) > GROUPS_MAX:
            del self._groups[next(g for g in self._groups if g != self._measured_group)]
        size_changes = found.size(rows, now_ns).learn(ratio, now_ns)
        if found.whole.learn(ratio, now_ns) or size_changes:
            found.owns.clear()
        changes = self._others.whole.learn(ratio, now_ns)
        if changes:
            self._others.owns.clear()
        return changes

    def doubt(self, rows: int, group: int, now_ns: int) -> bool:
        """Returns whether this estimate is old and should be tried once; the next batch is then learned from anyway.

        Doubted once, it is not old until `OLD_NS` later.
        """
        found = self._groups.get(group)
        checked_ns = self._others_doubted_ns if found is None else found.at(rows).checked_ns
        if now_ns - checked_ns < OLD_NS:
            return False
        if found is None:
            self._others_doubted_ns = now_ns
        else:
            found.size(rows, now_ns).doubt(now_ns)
        return True

    def _look_up(self, found: _Group, rows: int) -> Own:
        load, ratio = self._profile.at(rows), found.at(rows).estimate
        solo_ns = load.solo_ns if ratio == 0.0 else max(1, round(load.solo_ns * exp(ratio)))
        if solo_ns != load.solo_ns or solo_ns > _LONGEST_NS:
            load = Load(min(solo_ns, _LONGEST_NS), load.compute, load.l2, load.dram, load.kernel_ns)
        if len(found.owns) >= _OWNS_MAX:
            found.owns.clear()
        own = found.owns[rows] = Own(self._model, rows, load)
        return own


def _size(rows: int) -> int:
    """One of few sizes, however many rows a caller sends: up to 16 each, beyond them one per eighth."""
    return rows if rows <= 16 else rows >> (more := rows.bit_length() - 4) << more
