"""Tells what is going on: a bar on a terminal, a line per stage elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

WIDTH_MIN = 118  # of the table


def console() -> Console:
    """For what is not a terminal: wide enough for the table."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH_MIN)


class Stages:
    """A bar over about `seconds`, moved on by stages of a given length. Draws twice a second: cores are scarce."""

    def __init__(self, out: Console, seconds: float) -> None:
        self._out, self._began_s = out, time.monotonic()
        columns = (BarColumn(30), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
        self._progress = Progress(
            *columns,
            TextColumn("{task.description}"),
            console=out,
            refresh_per_second=2,
            transient=True,
            disable=not out.is_terminal,
        )
        self._task = self._progress.add_task("", total=seconds)
        self._before_s = self._length_s = 0.0

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, what: str, seconds: float) -> None:
        """The stage before is over; this one takes about `seconds`."""
        self._before_s += self._length_s
        self._length_s = seconds
        self._progress.update(self._task, description=what, completed=self._before_s)
        if not self._out.is_terminal:
            self._out.print(f"{time.monotonic() - self._began_s:4.0f} s  {what}", highlight=False)

    def advance(self, seconds: float) -> None:
        """So far into the stage."""
        self._progress.update(self._task, completed=self._before_s + min(seconds, self._length_s))
