"""The command line of a long benchmark: records what is missing, writes the report, and ends early in one sentence."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import typer

from backend.errors import IsochroneError
from backend.progress_bar import StageBar, console
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.records import RecordFolder
from benchmarks.harness.steps import Step, perform

USAGE_ERROR, INTERRUPTED = 2, 130
_TAKEN_UP = "what is recorded is kept, run the same command again to go on"


class Collector(Protocol):
    """Records what a benchmark measures."""

    def prepare(self) -> None:
        """Sets up what the steps need. Raises BenchmarkError."""

    def steps(self) -> Iterable[Step]:
        """Steps that are missing at this time."""


def interrupt_on_term() -> None:
    """Lets SIGTERM do what Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def one_sentence_errors(name: str, *, kept: str = _TAKEN_UP) -> Iterator[None]:
    """Turns what ends a command into one sentence and an exit code. kept: what an interrupted one leaves."""
    try:
        yield
    except (IsochroneError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise typer.Exit(USAGE_ERROR) from None
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {kept}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def known(option: str, given: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """Checks the values of an option. Raises BenchmarkError."""
    given, allowed = list(given), list(allowed)
    if unknown := [name for name in given if name not in allowed]:
        choices = ", ".join(f"'{name}'" for name in allowed)  # some have a comma
        raise BenchmarkError(f"{option} must be of {choices}, got '{unknown[0]}'")
    return given


def record_and_report(
    name: str,
    records: RecordFolder[Any],
    collector: Callable[[StageBar], Collector],
    write: Callable[[StageBar], Path],
    *,
    again: bool,
    computing_s: float = 0.0,
) -> None:
    """Runs the steps that are missing in `records`, then writes the report. computing_s: what that takes, about."""
    interrupt_on_term()
    screen = console()
    with one_sentence_errors(name):
        records.begin(again=again)
        with StageBar(screen, 0.0) as bar:
            collecting = collector(bar)
            seconds = sum(step.seconds for step in collecting.steps()) + computing_s
            screen.print(f"about {seconds / 60:.0f} minutes; interrupted, it goes on where it was", highlight=False)
            bar.expect(seconds)
            collecting.prepare()
            perform(collecting.steps(), bar)
            out = write(bar)
    screen.print(f"{out} is written", highlight=False)
