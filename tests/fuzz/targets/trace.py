"""A trace of arrivals, which a workload names."""

from __future__ import annotations

from math import isfinite

from backend.errors import ConfigError
from backend.load.arrivals import Traffic, along, read_trace
from tests.fuzz.files import file_of

FORMAT = "text"


def check(data: bytes) -> None:
    """Finite times in order, or `ConfigError`."""
    try:
        times = read_trace(file_of("trace.csv", data))
    except ConfigError as error:
        assert str(error)
        return
    assert times == sorted(times)
    planned = [arrival.at_s for arrival in along(times, [Traffic("m", 10.0)], 2.0, 1)]
    assert all(isfinite(at_s) for at_s in planned)
