"""Deadlines kept, as every report writes them."""

from __future__ import annotations

from math import isnan

from backend.load.figures import Cell

HIGH, LOW = "1", "2"
"""Priority classes, as figures name them."""


def number(value: float, digits: int = 0) -> str:
    """A dash where there is none, such as a latency where nothing was answered."""
    return "–" if isnan(value) else f"{value:.{digits}f}"


def kept(c: Cell, digits: int = 0) -> str:
    """Percent of all requests (of class 1 / of class 2)."""
    return f"{number(100 * c.met(), digits)} ({number(100 * c.class_met(HIGH))} / {number(100 * c.class_met(LOW))})"
