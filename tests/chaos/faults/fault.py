"""The contract of a kind of fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.account import Allowance
from tests.chaos.models import MODELS
from tests.chaos.stage import Stage

Undo = Callable[[], None]
ALL = tuple(MODELS)


def nothing_to_undo() -> None:
    """Undo of a fault from which the server has to recover by itself."""


@dataclass(frozen=True)
class Fault:
    """do: begins the fault, and returns what ends it after `holds_s`.

    stops_decisions: decisions must resume once it ends, else while it lasts. allowances: requests that it may cost.
    may_crash: Triton's limit by which tritonserver itself may end; empty: it must not. needs: "route" for a router,
    "volume" for file systems of its own, "clock" for a wall clock of its own.
    """

    kind: str
    do: Callable[[Stage], Undo]
    holds_s: float = 0.0
    allowances: tuple[Allowance, ...] = ()
    stops_decisions: bool = False
    may_crash: str = ""
    needs: frozenset[str] = frozenset()
