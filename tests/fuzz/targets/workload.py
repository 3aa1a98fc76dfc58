"""A workload of `isochrone bench` and `isochrone simulate`."""

from __future__ import annotations

from backend.errors import ConfigError
from backend.load.workload import read_workload
from tests.fuzz.files import file_of

FORMAT = "json"
_REQUESTS_MAX = 2_000


def check(data: bytes) -> None:
    """Arrivals in order, or `ConfigError`."""
    try:
        workload, trace = read_workload(file_of("workload.json", data))
    except ConfigError as error:
        assert str(error)
        return
    if sum(asked.rate_per_s for asked in workload.models) * workload.seconds < _REQUESTS_MAX:
        planned = [arrival.at_s for arrival in workload.planned(1.0, 1, trace)]
        assert planned == sorted(planned)
