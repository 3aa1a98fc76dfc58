"""`python -m benchmarks.demo`: four models on one machine at its capacity, the scheduler off, then on, in a table.

What is run, and in which order, is `benchmarks.comparison`'s; this is its command line.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from backend.commands.progress_bar import StageBar, console
from backend.errors import IsochroneError
from backend.linux.cpu_topology import cores
from backend.load.outcomes import first_error
from benchmarks.comparison import SLO_FACTOR, WARM_UP_S, Comparison, DemoPlan
from benchmarks.demo_report import as_data, details, table, verdict
from benchmarks.harness.command import INTERRUPTED, USAGE_ERROR, interrupt_on_term
from profiler.host import cpu_name, package_version

CLASSES = {"resnet50": 1, "yolov8n": 2, "vgg19": 1, "vit_b16": 2}
"""Model → priority class. All take 8–25 ms on a server's core: heavy beside the transport of their inputs."""
_STARTS_AND_MEASURING_S = 44.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Load per mode, half of it at a time.")] = 32.0,
    load: Annotated[float, typer.Option(min=0.05, max=3, help="Offered load as a fraction of capacity.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of the arrival times.")] = 1,
    repository: Annotated[Path, typer.Option(help="Where `make models` put the models.")] = Path("model_repository"),
    json_out: Annotated[Path | None, typer.Option("--json", help="Write every outcome to this file.")] = None,
) -> None:
    """The same Poisson load with interference_aware off and on, through tritonclient, on a stock tritonserver."""
    interrupt_on_term()
    out = console()
    plan = DemoPlan(repository, CLASSES, seconds, load, seed)
    code = 0
    out.print(
        f"{len(CLASSES)} models share this machine's {len(cores())} cores at {load:.0%} of its capacity; the same "
        "arrivals meet interference_aware off, then on",
        highlight=False,
    )
    with StageBar(out, _STARTS_AND_MEASURING_S + 3 * WARM_UP_S + 2 * seconds) as stages:
        comparison = Comparison(plan, stages.begin, stages.advance)
        try:
            comparison.run()
        except IsochroneError as error:
            code = USAGE_ERROR
            print(f"demo: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            code = INTERRUPTED
            partial = ", and what follows is partial" if comparison.segments else ""
            print(f"demo: interrupted; the server is stopped{partial}", file=sys.stderr)
    if comparison.segments:
        _show(out, comparison)
        if json_out is not None:
            json_out.write_text(json.dumps(as_data(comparison, conditions(comparison))) + "\n")
    raise typer.Exit(code)


def _show(out: Console, comparison: Comparison) -> None:
    out.print(table(comparison))
    for line in (*details(comparison), _conditions_line(conditions(comparison))):
        out.print(line, highlight=False)
    error = first_error(comparison.outcomes("off") + comparison.outcomes("on"))
    if error is not None:
        out.print(f"the first request that failed was told: {error}", highlight=False, markup=False)
    out.print(f"\n{verdict(comparison.segments)}", highlight=False)


def conditions(comparison: Comparison) -> dict[str, Any]:
    """What the figures depend on."""
    plan, calibration = comparison.plan, comparison.calibration
    return {
        "cpu": cpu_name(),
        "cores": len(cores()),
        "lanes": len(cores()),
        "capacity_per_s": round(calibration.capacity_per_s, 1) if calibration else None,
        "solo_ms": {m: round(ms, 1) for m, ms in calibration.solo_ms.items()} if calibration else {},
        "rate_per_s": round(sum(t.rate_per_s for t in comparison.traffic), 1),
        "slo_factor": SLO_FACTOR,
        "seconds_per_mode": plan.seconds,
        "seed": plan.seed,
        "versions": {
            "isochrone": package_version("isochrone"),
            "nvidia-pytriton": package_version("nvidia-pytriton"),
            "onnxruntime": package_version("onnxruntime"),
            "tritonclient": package_version("tritonclient"),
            "python": platform.python_version(),
        },
    }


def _conditions_line(c: dict[str, Any]) -> str:
    solo = ", ".join(f"{model} {ms:g}" for model, ms in c["solo_ms"].items())
    versions = ", ".join(f"{name} {version}" for name, version in c["versions"].items())
    return (
        f"conditions: {c['cpu']}, {c['cores']} cores shared with the load generator, {c['lanes']} lanes; "
        f"{c['rate_per_s']:g} requests/s of {c['capacity_per_s']:g}/s measured capacity, {c['seconds_per_mode']:g} s "
        f"per mode, seed {c['seed']}; latency alone in ms: {solo}; {versions}"
    )


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.demo")
