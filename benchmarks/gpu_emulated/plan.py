"""Plan of the comparison on an emulated GPU: scenarios, loads, lanes and draws; the whole, and a quick form."""

from __future__ import annotations

import msgspec

OURS, ORACLE, STOCK, REFUSED = "isochrone", "oracle", "in order", "isochrone, class 2 refused"
STOCK_SERVED = "stock Triton"
"""Not what stands for it in virtual time, but itself."""
PLAIN = ("naive", "isochrone, no prediction", "isochrone, RLS", OURS)
"""Rivals that are compared at one number of lanes as well, whatever their best is."""
RIVALS_TAKING_PART = (STOCK, "one at a time", "edf", "naive", "strait", *PLAIN[1:], ORACLE)
"""In the order of what they cost."""


class Scenario(msgspec.Struct, frozen=True):
    """Models and their requests. arrivals: of `backend.load.arrivals.PROCESSES`; tail: rates fall as 1 / rank, else all
    are equal.
    """

    name: str
    models: int = 12
    classes: int = 2
    arrivals: str = "poisson"
    tail: bool = False


TWO_CLASSES = Scenario("two classes")
OTHERS = (
    Scenario("one class", classes=1),
    Scenario("four classes", classes=4),
    Scenario("bursts", arrivals="bursty"),
    Scenario("60 models, heavy tail", models=60, tail=True),
)


class ClosedLoop(msgspec.Struct, frozen=True):
    """One high request per `gap_s` of a model, and a closed loop of so many outstanding requests of another one.

    seconds: counted after `warm_s`.
    """

    seconds: float = 10.0
    warm_s: float = 1.0
    gap_s: float = 0.1
    outstanding: tuple[int, ...] = (1, 8)
    lanes: tuple[int, ...] = (2, 12)


class SearchEffort(msgspec.Struct, frozen=True):
    """Effort of the clairvoyant search. tries: schedules tried per window of `window_s`; each is simulated until
    `ahead_s` after the window's end.
    """

    tries: int = 500
    window_s: float = 0.025
    ahead_s: float = 0.05
    seconds: float = 1.0


class Served(msgspec.Struct, frozen=True):
    """Turns on a real server, whose device's time is `dilation` times real time: the rivals that it can run.

    lanes: of all but stock Triton, which has an instance per model. seconds, warm_s: of each load, of the device's
    time; chances: runs in virtual time of each turn, which differ by noise and tails.
    """

    rivals: tuple[str, ...] = (STOCK_SERVED, "edf", "naive", "isochrone, no prediction", OURS)
    draw: int = 0
    loads: tuple[float, ...] = (0.5, 1.0, 1.5)
    lanes: int = 8
    dilation: float = 10.0
    repeats: int = 2
    seconds: float = 1.0
    warm_s: float = 0.25
    chances: int = 5

    @property
    def turn_seconds(self) -> float:
        """Length of a turn, of the device's time."""
        return len(self.loads) * (self.warm_s + self.seconds)


class GpuPlan(msgspec.Struct, frozen=True):
    """All that figures depend on, but for the code.

    limits: what class 1 could have, only with two classes. signs: draws in which a difference must have its sign to be
    reported. lane_draws: draws by which each rival's number of lanes is chosen; few_draws: of largest rates,
    closed loops, references and all other scenarios but the first. seconds: counted of each run after warm_s, in which
    learners learn too. at_load: of the other scenarios. same_lanes: one number for `PLAIN`. kept: that
    the largest rate keeps; halvings: of its bracket, load 0 to 1; rate_seconds: of each of its runs.
    """

    rivals: tuple[str, ...] = RIVALS_TAKING_PART
    limits: tuple[str, ...] = (REFUSED,)
    draws: int = 20
    signs: int = 18
    lane_draws: int = 5
    few_draws: int = 5
    lanes: tuple[int, ...] = (2, 4, 6, 8, 12)
    loads: tuple[float, ...] = (0.5, 1.0, 1.5)
    others: tuple[Scenario, ...] = OTHERS
    at_load: float = 1.0
    same_lanes: int = 8
    seconds: float = 4.0
    warm_s: float = 1.0
    kept: float = 0.99
    halvings: int = 6
    rate_seconds: float = 4.0
    closed: ClosedLoop = ClosedLoop()
    search: SearchEffort = SearchEffort()
    served: Served = Served()

    @property
    def models(self) -> tuple[str, ...]:
        """Models of a repository: none."""
        return ()

    @property
    def everyone(self) -> tuple[str, ...]:
        return self.rivals + self.limits

    def with_draws(self, draws: int | None) -> GpuPlan:
        """The same of fewer draws; None: of all."""
        if draws is None or draws >= self.draws:
            return self
        at_most = {name: min(getattr(self, name), draws) for name in ("lane_draws", "few_draws", "signs")}
        return msgspec.structs.replace(self, draws=draws, **at_most)


FULL = GpuPlan()
QUICK = GpuPlan(
    rivals=(STOCK, "naive", OURS, ORACLE),
    draws=2,
    signs=2,
    lane_draws=1,
    few_draws=1,
    lanes=(2, 8),
    loads=(1.0,),
    others=(Scenario("four classes", classes=4), Scenario("60 models, heavy tail", models=60, tail=True)),
    seconds=0.4,
    warm_s=0.1,
    halvings=2,
    rate_seconds=0.4,
    closed=ClosedLoop(seconds=1.0, warm_s=0.2, outstanding=(2,), lanes=(2,)),
    search=SearchEffort(tries=4, seconds=0.2),
    served=Served(rivals=(STOCK_SERVED, OURS), loads=(1.0,), repeats=1, seconds=0.2, warm_s=0.05, chances=2),
)
