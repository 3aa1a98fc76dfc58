"""A tritonserver for a part of a benchmark, with a scheduler that has learned nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from backend.load.server_metrics import MetricCounts, parse
from backend.server.embedded import EmbeddedServer
from backend.server.paths import short_temporary_folder

READY_TIMEOUT_S = 180.0
METRICS_LAG_S = 1.5
"""Time that /metrics may be behind, with some room."""


@contextmanager
def temporary_server(
    write: Callable[[Path], None],
    *,
    env: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
    log: Path | None = None,
) -> Iterator[EmbeddedServer]:
    """Serves the repository that `write` fills; nothing of it is left after. extra: arguments of tritonserver."""
    repository = short_temporary_folder()
    try:
        write(repository)
        with EmbeddedServer(repository, env=env, extra=extra, ready_timeout_s=READY_TIMEOUT_S, log=log) as server:
            yield server
    finally:
        shutil.rmtree(repository, ignore_errors=True)


def settled_counts(server: EmbeddedServer) -> MetricCounts:
    """Reads /metrics once it tells of all that was answered."""
    time.sleep(METRICS_LAG_S)
    return parse(server.metrics())
