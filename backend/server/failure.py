"""Reason of a failed start, from tritonserver's log."""

from __future__ import annotations

import re

_REASONS = (r'"(failed to load \'.+?\' version .+?)(?:\\n|\n|"$)', r'"(failed to start .+?)"$', r"^(error: .+)$")
"""The most telling first."""


def failure_reason(log: str) -> str:
    """Sentence in the log that says why the server failed: the last one of the most telling kind."""
    for pattern in _REASONS:
        found = re.findall(pattern, log, re.MULTILINE)
        if found:
            return str(found[-1])
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "it wrote no log"
