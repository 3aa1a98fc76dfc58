"""The emulated GPU's law, and how well it is predicted: `python -m benchmarks.emulated` with `--fit`, `--predict 5`, or
`--draw 5000 --co-runners 1,2,3 --json OUT`.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.emulated.draws import draw_sets
from benchmarks.emulated.fit import (
    LawAgreement,
    copies_out_of_sample,
    latencies_of_another_gpu,
    pairs_out_of_sample,
    shares_of_a_gpu,
    yolos,
)
from benchmarks.emulated.measured import nvidia_spreads
from benchmarks.emulated.prediction import predictions
from benchmarks.emulated.timing import measure, wake_lateness

app = typer.Typer(add_completion=False)


@app.command()
def main(
    fit: Annotated[bool, typer.Option(help="Fit the law to the open data and print how far it is off.")] = False,
    draw: Annotated[int, typer.Option(help="Sets of models to draw.", min=0)] = 0,
    co_runners: Annotated[str, typer.Option(help="Numbers of co-runners, comma-separated.")] = "1,2,3",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    predict: Annotated[int, typer.Option(help="Logs of each kind to predict, in two orders.", min=0)] = 0,
    timing: Annotated[float, typer.Option(help="Seconds to measure the device in real time for.", min=0.0)] = 0.0,
    out: Annotated[Path | None, typer.Option("--json", help="Write the draws' figures there.")] = None,
) -> None:
    """EMULATED: no GPU takes part. Prints slowdowns as the law has them, or as open data has measured them."""
    if fit:
        for gpu in ("v100", "p100", "k80"):
            _print(f"Gavel {gpu}, pairs, 5-fold", pairs_out_of_sample(gpu))
        _print("ParvaGPU A100, 3 and 4 copies from 2 and 5", copies_out_of_sample())
        _print("YOLOS-small A100, 3, 5 and 7 clients", yolos())
        _print("ParvaGPU A100, alone on 1 to 4 of 7 slices", shares_of_a_gpu())
        for origin, gpu in (("a100", "v100"), ("v100", "t4"), ("a100", "t4")):
            _print(f"catalogue, latencies of {gpu} from {origin}", latencies_of_another_gpu(origin, gpu))
        spreads = nvidia_spreads()
        print(f"NVIDIA's p95 over p50: {len(spreads)} cases, median standard deviation {median(spreads):.3f}")
    if draw:
        figures = draw_sets(draw, _numbers(co_runners), seed)
        text = json.dumps({"emulated": True, "draws": draw, "seed": seed, "co_runners": figures}, indent=2)
        print(text)
        if out is not None:
            out.write_text(text + "\n")
    if predict:
        print(
            f"MAPE in % after 500 batches, shuffled / in blocks; what the 95 % bound held for; {predict} logs of each"
        )
        for p in predictions(predict):
            low, high = p.coverage_range
            print(
                f"{p.kind:42s} {p.learner:10s} {100 * p.mape[0]:5.1f} / {100 * p.mape[1]:4.1f}   "
                f"{100 * p.coverage:.1f} ({100 * low:.1f} to {100 * high:.1f})   bound × {p.inflation:.2f}"
            )
    if timing:
        found = measure(timing)
        print(f"emulated device in real time: {found.batches} batches, {100 * found.busy:.1f} % of one core")
        for what, late in (
            ("ends after the law's by", found.late),
            ("a bare sleep ends late by", wake_lateness(timing)),
        ):
            print(f"{what}: p50 {late.p50:.0f} µs, p99 {late.p99:.0f} µs, at most {late.most:.0f} µs")
    if not fit and not draw and not predict and not timing:
        raise typer.BadParameter("nothing to do: give --fit, --draw N, --predict N or --timing SECONDS")


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"--co-runners is {text!r}, but has to be whole numbers from 1 on, such as 1,2,3")
    return numbers


def _print(name: str, found: LawAgreement) -> None:
    print(f"{name}: {found.cases} cases, MAPE {100 * found.mape:.1f} %, R² of the logarithms {found.r2:.2f}")


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.emulated")
