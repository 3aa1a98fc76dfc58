"""How many threads numpy has in a process of ours, and what a server started from there inherits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

VARIABLE = "OPENBLAS_NUM_THREADS"
SHOWN = f"""
import os, threadpoolctl
print([pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"])
print(os.environ.get("{VARIABLE}"))
"""


@pytest.mark.parametrize("module", ["backend.commands.main", "benchmarks.simulator"])
@pytest.mark.parametrize("given", [None, "2"])
def test_numpy_has_one_unless_told_otherwise_and_passes_nothing_on(module: str, given: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    if given is not None:
        environment[VARIABLE] = given
    said = subprocess.run(
        [sys.executable, "-c", f"import {module}\n{SHOWN}"], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    expected = min(int(given), os.cpu_count() or 1) if given else 1
    assert said == [f"[{expected}]", str(given)]
