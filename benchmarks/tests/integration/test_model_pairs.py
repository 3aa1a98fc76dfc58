"""A pair of servers of which one does not run."""

from __future__ import annotations

import pytest

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.perf_analyzer import measure


def test_nobody_there_is_said_in_a_sentence() -> None:
    said = r"^perf_analyzer on model 'one' at concurrency 4 failed: [^\n]*Connection refused[^\n]*$"
    with pytest.raises(BenchmarkError, match=said):
        measure("127.0.0.1:9", "one", 4, 0.3)
