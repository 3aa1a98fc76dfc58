"""Who ran beside whom and when: of each running batch, every neighbour with the instants it came and went.

What `predictor.colocation` sums up, one by one: for samples, and for learners that know their neighbours by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from predictor.features import Neighbour, Own

NEIGHBOURS_MAX = 256
"""Of one batch; a batch so long that more come and go beside it loses the later ones."""


@dataclass(slots=True)
class _Stay:
    """A neighbour's time beside a batch; `until_ns` None: it is there still."""

    who: Own
    since_ns: int
    until_ns: int | None = None


@dataclass(slots=True)
class _Guest:
    own: Own
    since_ns: int
    beside: dict[object, _Stay] = field(default_factory=dict)


class Company:
    """The batches that run now, by any hashable key; times are nanoseconds of one clock."""

    def __init__(self) -> None:
        self._here: dict[object, _Guest] = {}

    def __len__(self) -> int:
        return len(self._here)

    def launch(self, key: object, own: Own, now_ns: int) -> None:
        """A batch starts beside whatever runs."""
        new = _Guest(own, now_ns)
        for other, guest in self._here.items():
            new.beside[other] = _Stay(guest.own, now_ns)
            if len(guest.beside) < NEIGHBOURS_MAX:
                guest.beside[key] = _Stay(own, now_ns)
        self._here[key] = new

    def finish(self, key: object, now_ns: int) -> list[Neighbour]:
        """The batch ends; returns its neighbours with their overlap as fractions of its time."""
        ended = self._here.pop(key)
        for guest in self._here.values():
            if (stay := guest.beside.get(key)) is not None:
                stay.until_ns = now_ns
        whole_ns = max(1, now_ns - ended.since_ns)
        return [_neighbour(stay, ended.since_ns, now_ns, whole_ns) for stay in ended.beside.values()]


def _neighbour(stay: _Stay, start_ns: int, now_ns: int, whole_ns: int) -> Neighbour:
    until_ns = now_ns if stay.until_ns is None else stay.until_ns
    who = stay.who
    begin, end = (stay.since_ns - start_ns) / whole_ns, (until_ns - start_ns) / whole_ns
    return Neighbour(who.model, who.batch_size, who.load, begin, end)
