"""What one model's batches take alone on the device: the profile's word at first, then what they really took.

Kept as a ratio to the profile, by the inputs' shape (a *group* of requests that may share a batch) and by rows. A size
that was not measured goes by its group's ratio, a group that was not by the model's. O(1) per batch, bounded in size.
"""

from __future__ import annotations

from math import exp, log

from predictor.features import Own
from predictor.workload import Load, ModelProfile

GROUPS_MAX = 256
"""Per model; one more, and the group that was measured longest ago is known no more."""
OLD_NS = 1_000_000_000
"""An estimate that no batch confirmed for so long may be doubted."""
_OWNS_MAX = 128
"""Looked up and kept, per group."""
_LATEST = 9
"""Measurements that an estimate is the median of: a pause of the machine, or a cold first run, moves nothing, and four
of them in a row say no more than the machine's mood. A mean would take either in."""
_WORTH = 2
"""So many measurements a profile counts for, or another estimate where a size of its own begins."""
_FEW = 3
"""So many measurements of a group are its first. They may be of batches that had company, which is better than a
guess; the least of them counts, for first runs are cold; and nobody is refused for them."""
_NEWS = 0.05
"""An estimate moves once it is wrong by this share: what follows from it need not be worked out all the time."""
_CLEARLY_LESS = 0.8
"""Nobody is faster for company: what took less than this share of the estimate beside others refutes it."""
_LONGEST_NS = 10**13
"""Hours. What is beyond, as where rows are a caller's whim, does not fit a message."""


class _Ratio:
    """Of measured to profiled solo latency, in logarithm: the lower median of the latest."""

    __slots__ = ("asked", "believed", "heard", "latest", "looked_ns")

    def __init__(self, now_ns: int, prior: tuple[float, ...] = ()) -> None:
        self.latest = prior
        self.believed = prior[0] if prior else 0.0
        self.heard = 0
        self.looked_ns = now_ns
        """When it was measured or doubted last."""
        self.asked = False
        """It was doubted since it was measured last."""

    def learn(self, ratio: float, now_ns: int) -> bool:
        """Whether what is believed changes."""
        self.latest = (*self.latest, ratio)[-_LATEST:]
        self.heard += 1
        self.looked_ns, self.asked = now_ns, False
        # Of an even number the lower one: what comes on top of an execution is more often there than missing.
        place = (len(self.latest) - 1) // 2 if len(self.latest) > _FEW else 0
        found = sorted(self.latest)[place]
        if self.heard > 1 and abs(found - self.believed) <= _NEWS:
            return False
        changes, self.believed = found != self.believed, found
        return changes

    def doubt(self, now_ns: int) -> None:
        """The next measurement counts as much as all before it."""
        self.latest = (self.believed,)
        self.looked_ns, self.asked = now_ns, True


class _Group:
    """What is known of one shape: over all its sizes, of some of them by themselves, and what follows for batches."""

    __slots__ = ("owns", "sizes", "whole")

    def __init__(self, whole: _Ratio) -> None:
        self.whole = whole
        self.sizes: dict[int, _Ratio] = {}
        self.owns: dict[int, Own] = {}

    def at(self, rows: int) -> _Ratio:
        """The nearest that is known of so many rows."""
        return self.sizes.get(_size(rows), self.whole)

    def size(self, rows: int, now_ns: int) -> _Ratio:
        """Of so many rows by themselves; at first what the whole group says."""
        size = _size(rows)
        found = self.sizes.get(size)
        if found is None:
            prior = (self.whole.believed,) * _WORTH if self.whole.latest else ()
            found = self.sizes[size] = _Ratio(now_ns, prior)
        return found


class SoloLatency:
    """Of one model. measured_group: the shape that the profile is of; None: nothing was measured, it is a guess."""

    def __init__(self, model: str, profile: ModelProfile, measured_group: int | None, now_ns: int) -> None:
        self._model, self._profile, self._measured_group = model, profile, measured_group
        self._groups: dict[int | None, _Group] = {}
        """The one that was measured last comes last."""
        self._others = _Group(_Ratio(now_ns))
        """What goes for a group that is not known: all that was learned."""
        self._others_doubted_ns = now_ns - OLD_NS
        if measured_group is not None:
            self._groups[measured_group] = _Group(_Ratio(now_ns, (0.0,) * _WORTH))

    def __len__(self) -> int:
        """How many groups are known."""
        return len(self._groups)

    def own(self, rows: int, group: int | None) -> Own:
        """A batch as the predictor knows it, looked up once. group: None where it is not known."""
        found = self._groups.get(group, self._others)
        own = found.owns.get(rows)
        return self._look_up(found, rows) if own is None else own

    def knows(self, group: int | None) -> bool:
        """Whether it was measured, in the profile or often enough since, what batches of this group take."""
        found = self._groups.get(group)
        return found is not None and (group == self._measured_group or found.whole.heard >= _FEW)

    def guesses(self, group: int | None) -> bool:
        """Whether nothing at all was measured that its latency could be told from."""
        return group not in self._groups and not self._others.whole.heard

    def learns_from_co_run(self, rows: int, group: int, exec_ns: int) -> bool:
        """Whether a batch that had company is to be learned from, as it would have been without.

        One alone tells more; but what a device that is never idle knows must not stay wrong.
        """
        if not self.knows(group) or self._groups[group].at(rows).asked:
            return True
        return exec_ns < _CLEARLY_LESS * self.own(rows, group).load.solo_ns

    def learn(self, rows: int, group: int, alone_ns: float, now_ns: int) -> bool:
        """From what a batch took, or would have taken, alone. Whether that changes what goes for the model as such."""
        ratio = log(alone_ns / self._profile.at(rows).solo_ns)
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
        """Whether this estimate is old, so that it should be tried once; the next batch then teaches in any company.

        Asked once, it is not old until `OLD_NS` later.
        """
        found = self._groups.get(group)
        looked_ns = self._others_doubted_ns if found is None else found.at(rows).looked_ns
        if now_ns - looked_ns < OLD_NS:
            return False
        if found is None:
            self._others_doubted_ns = now_ns
        else:
            found.size(rows, now_ns).doubt(now_ns)
        return True

    def _look_up(self, found: _Group, rows: int) -> Own:
        load, ratio = self._profile.at(rows), found.at(rows).believed
        solo_ns = load.solo_ns if ratio == 0.0 else max(1, round(load.solo_ns * exp(ratio)))
        if solo_ns != load.solo_ns or solo_ns > _LONGEST_NS:
            load = Load(min(solo_ns, _LONGEST_NS), load.compute, load.l2, load.dram)
        if len(found.owns) >= _OWNS_MAX:
            found.owns.clear()
        own = found.owns[rows] = Own(self._model, rows, load)
        return own


def _size(rows: int) -> int:
    """Sizes that differ by less than an eighth are one: few, however many rows a caller sends. Up to 16 each is one."""
    return rows if rows <= 16 else rows >> (more := rows.bit_length() - 4) << more
