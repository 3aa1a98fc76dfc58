"""`isochrone report`: a log of events or samples in, Markdown and HTML out. `backend.reporting` makes the report."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from backend.errors import ConfigError
from backend.reporting.report import make_report


def run_report(log: Path, html: Path | None) -> None:
    """Raises ConfigError or SamplesError on files that cannot be used."""
    if html is not None and html.exists() and log.exists() and html.samefile(log):
        raise ConfigError(f"--html {html} holds the log; name another file for the report")
    report = make_report(log)
    sys.stdout.write(report.markdown())
    if html is None:
        return
    try:
        html.write_text(report.html(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"'{html}' cannot be written: {error.strerror}") from None
    if find_spec("matplotlib") is None:
        print(f"no plots in {html}: matplotlib is missing (pip install 'isochrone[bench]')", file=sys.stderr)
