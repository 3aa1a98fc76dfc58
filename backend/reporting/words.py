"""Words for causes and numbers in a report."""

from __future__ import annotations

from datetime import datetime

from backend.reporting.attribution import Cause

CAUSE_WORDS: dict[Cause, str] = {
    "queueing": "waiting while every lane was taken",
    "held": "waiting though a lane was free",
    "execution": "their batches' own execution",
    "interference": "interference of co-runners",
    "not explained": "slower execution that no co-runner explains",
    "suspended": "suspended for other batches",
    "transfers": "transfers",
    "overhead": "overhead",
}
"""Within a sentence on late requests."""
MEANINGS: dict[Cause, str] = {
    "queueing": "waiting while every lane was taken",
    "held": "waiting though a lane was free, so that running batches make their deadlines, or for a decision",
    "execution": "its batch's execution, as long as it takes alone on the device",
    "interference": "what co-runners added to that",
    "not explained": "what no co-runner explains of the rest",
    "suspended": "its batch stood still for another one",
    "transfers": "inputs and outputs on their way to the device and back",
    "overhead": "the rest from launch to answer",
}
"""Legend of a table."""


def clock(unix_ns: int) -> str:
    """Date and time of this machine's zone."""
    return datetime.fromtimestamp(unix_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")


def percent(share: float) -> str:
    """Share in percent, with a decimal below ten."""
    value = 100.0 * share
    return f"{value:.0f} %" if abs(value) >= 9.95 or not round(value, 1) else f"{value:.1f} %"


def milliseconds(span_ns: float) -> str:
    return f"{span_ns / 1e6:.1f} ms"


def seconds(span_ns: float) -> str:
    return f"{span_ns / 1e9:.3f}"


def counted(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
