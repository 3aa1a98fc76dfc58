"""Options that commands which send load have in common."""

from __future__ import annotations

from math import isfinite

from backend.errors import ConfigError


def numbers(name: str, text: str, low: float, high: float, *, whole: bool = False) -> list[float]:
    """Numbers with commas between: above `low`, whole ones from it on, up to `high`. Raises ConfigError."""
    found = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = float("nan")
        above = value >= low if whole else value > low
        if not (isfinite(value) and above and value <= high) or (whole and value != round(value)):
            kind = f"whole numbers from {low:g}" if whole else f"numbers above {low:g}"
            raise ConfigError(f"{name} must be {kind} to {high:g} with commas between, got {text!r}")
        found.append(value)
    return found
