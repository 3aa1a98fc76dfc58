"""`python -m benchmarks.emulated.priorities --json OUT`: what lower classes cost class 1 on the emulated GPU, by lanes.

EMULATED, in virtual time: no GPU takes part. Each draw of the law's constants has twelve models in two classes; every
policy has the same requests. A draw that OUT holds already is not run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer

from backend.load.outcomes import by_class
from backend.scheduler.forecast.launch_forecast import Choice, LaunchForecast
from backend.scheduler.policy import Policy
from backend.simulation.contention import LinearContention
from backend.simulation.simulator import simulate
from benchmarks.gpu_emulated.drawn_gpu import OVERHEAD_NS, drawn_gpu
from benchmarks.gpu_emulated.figures import difference, shown_difference
from benchmarks.gpu_emulated.plan import REFUSED, Scenario
from benchmarks.gpu_emulated.requests import request_plan
from benchmarks.rivals import RIVALS, Rival

OURS, RESERVE = "isochrone", "reserve"
_HIGH = 1


class Reserve(Policy):
    """A lower class only while a request of class 1 that arrived now would make it, beside all that runs."""

    def _most_worth(self, largest: Choice, forecast: LaunchForecast) -> Choice | None:
        if largest.priority == _HIGH:
            return largest
        count, available = len(largest.requests), len(largest.requests)
        while count:
            choice = forecast.choice(largest.source, largest.requests[:count], available)
            if self._leaves_room(choice, forecast):
                return choice
            count //= 2
        return None

    def _leaves_room(self, choice: Choice, forecast: LaunchForecast) -> bool:
        sums = forecast.sums_with(choice)
        for source, rows, group, allowed_ns in self.arrivals.of_class(_HIGH):
            own = source.own(rows, group)
            slowdown = self.latency.slowdown_function(source.id, own).slowdown(sums)
            takes_ns = own.load.solo_ns * slowdown * self.latency.bound.multiplier + self.latency.overhead_ns
            if takes_ns > allowed_ns:
                return False
        return True


ROWS: dict[str, Rival] = {
    OURS: RIVALS[OURS],
    REFUSED: RIVALS[REFUSED],
    RESERVE: replace(RIVALS[OURS], what="ours with a fixed reserve for class 1 instead of prices", policy=Reserve),
    "naive": RIVALS["naive"],
    "isochrone, no prediction": RIVALS["isochrone, no prediction"],
    "isochrone, RLS": RIVALS["isochrone, RLS"],
}


class LaneFigures(msgspec.Struct, frozen=True):
    """Share of deadlines kept by one policy on one draw, of requests that came after the warm-up."""

    policy: str
    draw: int
    load: float
    lanes: int
    all: float
    by_class: dict[str, float]
    classes: int = 2


def run(
    policy: str, draw: int, load: float, lanes: int, seconds: float, warm_s: float, classes: int = 2
) -> LaneFigures:
    """Simulate one policy. seconds: counted, after `warm_s`."""
    scenario = Scenario("priorities", classes=classes)
    drawn, rival = drawn_gpu(draw, scenario.models), ROWS[policy]
    plan = request_plan(drawn, scenario, load, warm_s + seconds, draw)
    scheduler = rival.scheduler(lanes, LinearContention(), ())
    ran = simulate(rival.models(drawn.simulated()), rival.plan(plan), scheduler, drawn.device(), OVERHEAD_NS)
    counted = [o for o in ran.outcomes() if o.intended_s >= warm_s]
    shares = {c: s.met_share for c, s in by_class(counted, seconds).items()}
    met = sum(o.met for o in counted) / max(1, len(counted))
    return LaneFigures(policy, draw, load, lanes, met, shares, classes)


def table(found: Sequence[LaneFigures]) -> Iterator[str]:
    """Lines of means over draws, per load, number of lanes and policy."""
    yield f"{'load':>4} {'lanes':>5}  {'policy':28} {'all':>6} {'class 1':>8} {'class 2':>8}  draws"
    for load, lanes, policy in sorted({(k.load, k.lanes, k.policy) for k in found}):
        of = [k for k in found if (k.load, k.lanes, k.policy) == (load, lanes, policy)]
        shares = [np.mean([k.by_class.get(c, 0.0) for k in of]) for c in ("1", "2")]
        figures = [100.0 * float(share) for share in (np.mean([k.all for k in of]), *shares)]
        yield f"{load:4.1f} {lanes:5d}  {policy:28} {figures[0]:6.1f} {figures[1]:8.1f} {figures[2]:8.1f}  {len(of)}"


def compared(found: Sequence[LaneFigures]) -> Iterator[str]:
    """Lines of what class 2 costs class 1 under ours, and of class 2 beside the fixed reserve, draw by draw."""
    for load, lanes in sorted({(k.load, k.lanes) for k in found}):

        def points(policy: str, of_class: str) -> dict[int, float]:
            at = [k for k in found if (k.policy, k.load, k.lanes) == (policy, load, lanes)]  # noqa: B023 - used here
            return {k.draw: 100.0 * k.by_class.get(of_class, 0.0) for k in at}

        high = difference(points(OURS, "1"), points(REFUSED, "1"))
        low = difference(points(OURS, "2"), points(RESERVE, "2"))
        if high is not None:
            yield f"{load:4.1f} {lanes:5d}  class 1, {OURS} less {REFUSED}: {shown_difference(high, 0)}"
        if low is not None:
            above = f"above in {low.above} of {low.draws}"
            yield f"{load:4.1f} {lanes:5d}  class 2, {OURS} less {RESERVE}: {shown_difference(low, 0)}, {above}"


def main(
    out: Annotated[Path, typer.Option("--json", help="Keeps the figures; what it holds already is not run again.")],
    draws: Annotated[str, typer.Option(help="The first and the last.")] = "0-19",
    classes: Annotated[int, typer.Option(help="Of the twelve models, three by three.", min=1, max=4)] = 2,
    lanes: Annotated[str, typer.Option(help="Numbers of lanes, comma-separated.")] = "2,4,8,12",
    loads: Annotated[
        str, typer.Option(help="1: batches of four would keep the kernels busy all the time.")
    ] = "0.7,1.0,1.5",
    policies: Annotated[str, typer.Option(help=f"Separated by semicolons, of {'; '.join(ROWS)}.")] = ";".join(ROWS),
    seconds: Annotated[float, typer.Option(help="Of virtual time that count.", min=0.01)] = 4.0,
    warm_s: Annotated[float, typer.Option(help="Before them, for all to learn.", min=0.0)] = 2.0,
) -> None:
    """EMULATED: no GPU takes part. Share of deadlines kept, by class, policy, lanes and load."""
    names = policies.split(";")
    if unknown := [name for name in names if name not in ROWS]:
        raise typer.BadParameter(f"--policies has '{unknown[0]}', but knows only {'; '.join(ROWS)}")
    try:
        first, last = map(int, draws.split("-"))
    except ValueError:
        raise typer.BadParameter(f"--draws is '{draws}', but has to be two numbers, such as 0-19") from None
    found = msgspec.json.decode(out.read_bytes(), type=list[LaneFigures]) if out.exists() else []
    known = {(k.policy, k.draw, k.load, k.lanes, k.classes) for k in found}
    for draw in range(first, last + 1):
        for load in map(float, loads.split(",")):
            for number in map(int, lanes.split(",")):
                missing = [name for name in names if (name, draw, load, number, classes) not in known]
                found += [run(name, draw, load, number, seconds, warm_s, classes) for name in missing]
        out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    of = [k for k in found if k.classes == classes]
    print(f"EMULATED, virtual time; % of deadlines kept, classes: {classes}")
    print("\n".join([*table(of), *(compared(of) if classes > 1 else ())]))


if __name__ == "__main__":
    typer.run(main)
