"""CPU priority of a whole session, by which Linux weighs its threads before their own ("autogroups")."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

SESSION_LOW, SESSION_ORDINARY = 19, 0
"""Niceness of a session that gives way to all others, and of any other. Where two sessions want one core, an ordinary
one has half of it."""


def renice_session(leader: int, niceness: int) -> None:
    """Renice the session that a process leads, where the kernel has autogroups."""
    with suppress(OSError):
        Path(f"/proc/{leader}/autogroup").write_text(str(niceness))
