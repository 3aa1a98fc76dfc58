"""How a long benchmark ends before it is done: by an error, by its user, or by a server that went away."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from backend.errors import IsochroneError, ServerError

USAGE_ERROR, INTERRUPTED = 2, 130
_SERVERS_MAX = 4
_TAKEN_UP = "what is recorded is kept, run the same command again to go on"


def interrupt_on_term() -> None:
    """SIGTERM does what Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def one_sentence_errors(name: str, *, kept: str = _TAKEN_UP) -> Iterator[None]:
    """One sentence and an exit code for what ends a command. kept: what an interrupted one leaves."""
    try:
        yield
    except (IsochroneError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise typer.Exit(USAGE_ERROR) from None
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {kept}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def outlive_servers(
    record: Callable[[], None], on_stage: Callable[[str, float], None], servers: int = _SERVERS_MAX
) -> None:
    """Again with another server where one is lost: a machine that stood still for a second may have cost it."""
    try:
        record()
    except ServerError as error:
        if servers == 1:
            raise
        on_stage(f"once more, since {error}", 0.0)
        outlive_servers(record, on_stage, servers - 1)
