"""An event log: its requests explained, by replay, and a report on it."""

from __future__ import annotations

from backend.errors import ConfigError
from backend.reporting.report import make_report
from backend.scheduler_process.explainer import explain
from backend.scheduler_process.request_index import RequestIndex
from predictor.samples import SamplesError
from tests.fuzz.files import file_of

FORMAT = "json lines"


def check(data: bytes) -> None:
    """Explanations and a report, or one of the two errors of a file that is no log."""
    path = file_of("events.jsonl", data)
    try:
        for record in RequestIndex(path).requests[-2:]:
            explain(path, record)
    except ConfigError as error:
        assert str(error)
    try:
        make_report(path).markdown()
    except (ConfigError, SamplesError) as error:
        assert str(error)
