"""Agreement of two runs of `isochrone profile`: p50 of each entry, measured twice into temporary repositories."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from backend.progress_bar import console
from benchmarks.models.model_repository import link_models, write_configs
from benchmarks.models.profiles import profile_models, read_profiles
from profiler.profile_file import ProfileEntry

AGREE = 0.10
SHARE = 0.90


def main(
    repository: Annotated[Path, typer.Option(help="the models")] = Path("model_repository"),
    seconds: Annotated[float, typer.Option(help="per entry at most, as of `isochrone profile`")] = 8.0,
) -> None:
    """Print the table and how many entries agree within 10 %; exit code 1 where fewer than 90 % do."""
    out = console()
    models = sorted(path.parent.parent.name for path in repository.glob("*/1/model.onnx"))
    if not models:
        raise SystemExit(f"no model files in '{repository}'; run `make models`")
    runs = []
    for number in (1, 2):
        began_s = time.monotonic()
        runs.append(_profiled(repository, models, seconds))
        out.print(f"run {number}: {len(runs[-1])} entries in {time.monotonic() - began_s:.0f} s", highlight=False)
    first, second = runs
    table = Table("model", "batch", "p50 ms", "p50 ms again", "differ %", "p95 ms", "p95 ms again")
    agreeing = 0
    for key, a in first.items():
        b = second[key]
        difference = b.p50_ns / a.p50_ns - 1
        agreeing += abs(difference) <= AGREE
        p50, again, p95, p95_again = (f"{ns / 1e6:.2f}" for ns in (a.p50_ns, b.p50_ns, a.p95_ns, b.p95_ns))
        table.add_row(key[0], str(key[1]), p50, again, f"{100 * difference:+.1f}", p95, p95_again)
    out.print(table)
    out.print(f"{agreeing} of {len(first)} entries agree within {AGREE:.0%} on p50", highlight=False)
    raise typer.Exit(0 if agreeing >= SHARE * len(first) else 1)


def _profiled(source: Path, models: list[str], seconds: float) -> dict[tuple[str, int], ProfileEntry]:
    """Entries by model and batch size. Raises BenchmarkError."""
    with tempfile.TemporaryDirectory(prefix="isochrone-profile-") as folder:
        target = Path(folder)
        link_models(source, target, models)
        write_configs(target, {})
        profile_models(target, seconds)
        files = read_profiles(target, models)
        return {(model, entry.batch_size): entry for model, file in files.items() for entry in file.entries}


if __name__ == "__main__":
    typer.run(main)
