"""The error that ends a benchmark with one sentence to its user."""

from __future__ import annotations

from backend.errors import IsochroneError


class BenchmarkError(IsochroneError):
    """Tells what cannot be measured, and what to do about it."""
