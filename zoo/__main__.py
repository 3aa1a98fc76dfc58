"""The command `python -m zoo`: arguments, one line per model, errors in one sentence."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from zoo.catalog import MODELS, SCALES, build, is_current, parameter_count, write

USAGE_ERROR = 2

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    scale: Annotated[str, typer.Option(help="full (as published) or small (8-30 ms on one core).")] = "small",
    repository: Annotated[Path, typer.Option(help="Triton model repository to write to.")] = Path("model_repository"),
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
) -> None:
    """Write the zoo's models into a Triton model repository, keeping files that are already current."""
    names: Sequence[str] = model or list(MODELS)
    _check("scale", [scale], SCALES)
    _check("model", names, MODELS)
    for name in names:
        _generate_one(name, scale, repository)


def _generate_one(name: str, scale: str, repository: Path) -> None:
    start_s = time.perf_counter()
    kept = is_current(name, scale, repository)
    try:
        path = write(name, scale, repository)
    except OSError as error:
        _fail(f"Cannot write {name} to {repository}: {error.strerror or error}.")
    seconds = time.perf_counter() - start_s
    millions = parameter_count(build(name, scale, shapes_only=True)) / 1e6
    size_mb = path.stat().st_size / 1e6
    note = "  (already there)" if kept else ""
    typer.echo(f"{name:<14} {scale:<6} {millions:7.2f} M {size_mb:7.1f} MB {seconds:6.2f} s{note}")


def _check(what: str, given: Sequence[str], allowed: Collection[str]) -> None:
    for value in given:
        if value not in allowed:
            _fail(f"Unknown {what} {value!r}: choose from {', '.join(allowed)}.")


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(USAGE_ERROR)


if __name__ == "__main__":
    app(prog_name="python -m zoo")
