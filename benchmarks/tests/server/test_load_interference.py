"""Cost of a load for those that serve, in its quick form on real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.server.assemble import CODE
from benchmarks.load_interference import OURS, STOCK, LoadingComparison, LoadingPlan

pytestmark = pytest.mark.slow
"""The default run has a load beside others in `tests/server/test_trial.py`."""


def test_each_kind_of_server_loads_a_model_while_it_serves_others(tmp_path: Path) -> None:
    kinds = {OURS: CODE, STOCK: None}
    found = LoadingComparison(LoadingPlan(1, 8.0, 0.3, 2.0), kinds, tmp_path)
    found.run()
    for kind in kinds:
        (window,) = found.found[kind]
        assert window.requests > 0
        assert window.took_s > 0.0
        assert 0.0 <= window.kept <= 1.0
    table = found.table()
    assert table.count("\n") == 1 + len(kinds)
    assert "points lost" in table
    assert "2 MB of weights; 1 repeats by turns" in found.conditions()
