"""Tells what is going on: a bar on a terminal, a line per stage elsewhere."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

WIDTH_MIN = 118


def console(width: int = WIDTH_MIN) -> Console:
    """Makes a console; what is not a terminal is so wide that a table fits in."""
    found = Console()
    return found if found.is_terminal else Console(width=width)


class ProgressBar:
    """Work under way, while entered: `progress` draws it on a terminal; elsewhere a line says what and when."""

    def __init__(self, out: Console, progress: Progress, total: float) -> None:
        self._out, self._progress, self._began_s = out, progress, time.monotonic()
        self._task = progress.add_task("", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _tell(self, what: str) -> None:
        self._progress.update(self._task, description=what)
        if not self._out.is_terminal:
            self._out.print(f"{time.monotonic() - self._began_s:4.0f} s  {what}", highlight=False)


class StageBar(ProgressBar):
    """A bar over about `seconds`, moved on by stages of a given length. Draws twice a second: cores are scarce."""

    def __init__(self, out: Console, seconds: float) -> None:
        columns = (BarColumn(30), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
        drawn = Progress(
            *columns,
            TextColumn("{task.description}"),
            console=out,
            refresh_per_second=2,
            transient=True,
            disable=not out.is_terminal,
        )
        super().__init__(out, drawn, seconds)
        self._before_s = self._length_s = 0.0

    def expect(self, seconds: float) -> None:
        """Stretches the bar over about so many seconds."""
        self._progress.update(self._task, total=seconds)

    def begin(self, what: str, seconds: float) -> None:
        """The stage before is over; this one takes about `seconds`."""
        self._before_s += self._length_s
        self._length_s = seconds
        self.advance(0.0)
        self._tell(what)

    def advance(self, seconds: float) -> None:
        """Moves the bar so far into the stage."""
        self._progress.update(self._task, completed=self._before_s + min(seconds, self._length_s))
