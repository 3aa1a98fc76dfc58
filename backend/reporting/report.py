"""Makes a report of a log, of events or of samples: reads, attributes, sums up, lays out."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from backend.errors import ConfigError
from backend.reporting.attribution import Attribution
from backend.reporting.document import html, markdown
from backend.reporting.event_reader import read_event_recording
from backend.reporting.figures import Figures, figures_of
from backend.reporting.findings import findings
from backend.reporting.layout import laid_out
from backend.reporting.recording import Recording
from backend.reporting.sample_reader import read_sample_recording

_HEAD_BYTES = 1 << 16
_EVENT, _SAMPLE = re.compile(rb'\s*\{\s*"line"\s*:'), re.compile(rb'\s*\{.*"schema"\s*:')


class Report(NamedTuple):
    """One log's report. said: the findings, a sentence each."""

    path: Path
    log: Recording
    attribution: Attribution
    figures: Figures
    said: list[str]

    def markdown(self) -> str:
        return markdown(laid_out(self.path, self.log, self.figures, self.said, {}))

    def html(self) -> str:
        """Render one file with everything in it; without plots where matplotlib, an extra, is missing."""
        plots = {}
        if find_spec("matplotlib") is not None:
            from backend.reporting.plots import draw_plots  # noqa: PLC0415 - an extra

            plots = draw_plots(self.figures)
        return html(laid_out(self.path, self.log, self.figures, self.said, plots))


def make_report(path: Path) -> Report:
    """Raises ConfigError or SamplesError, a sentence, where the file is neither kind of log."""
    try:
        log = read_recording(path)
        found = Attribution(log)
        figures = figures_of(log, found)
        return Report(path, log, found, figures, findings(log, found, figures))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"'{path}' holds what cannot be: {error!r}") from None


def read_recording(path: Path) -> Recording:
    """Read a log of either kind. Raises ConfigError or SamplesError."""
    return read_event_recording(path) if _has_events(path) else read_sample_recording(path)


def _has_events(path: Path) -> bool:
    """True of an event log, False of samples, by the first line that is either."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from None
    wanted = "events (ISOCHRONE_EVENTS) or samples (ISOCHRONE_SAMPLES) are wanted"
    if not head.strip():
        raise ConfigError(f"'{path}' is empty: {wanted}")
    for line in head.splitlines():
        if _EVENT.match(line):
            return True
        if _SAMPLE.match(line):
            return False
    raise ConfigError(f"'{path}', line 1 is neither an event nor a sample: {wanted}")
