"""Deadlines kept and goodput, of the figures of any run."""

from __future__ import annotations


class DeadlinesKept:
    """Base of figures. seconds: that were counted; requests, met: numbers, of all and of those in time, by class."""

    __slots__ = ()
    seconds: float
    requests: dict[str, int]
    met: dict[str, int]

    def kept(self, of_class: str | None = None) -> float:
        """Share of deadlines; None: of all classes."""
        if of_class is not None:
            return self.met[of_class] / self.requests[of_class]
        return sum(self.met.values()) / sum(self.requests.values())

    @property
    def goodput_per_s(self) -> float:
        """Answers in time."""
        return sum(self.met.values()) / self.seconds
