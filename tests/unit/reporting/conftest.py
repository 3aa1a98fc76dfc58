"""Logs of simulated loads: one in which a heavy model disturbs light ones, and one in which all are alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.load.arrivals import Traffic
from tests.fakes.simulated_log import SimulatedLog, model, write_logs

LIGHT = ("light", "small", "tiny")


@pytest.fixture(scope="session")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedLog]:
    """One heavy model of long batches that use nearly all of the device, and three light ones with short deadlines."""
    models = [model("heavy", 40.0, 0.9), *(model(name, 5.0 - i, 0.1) for i, name in enumerate(LIGHT))]
    traffic = [Traffic("heavy", 12.0, 400.0), *(Traffic(name, 40.0, 15.0) for name in LIGHT)]
    yield write_logs(tmp_path_factory.mktemp("disturbed"), models, traffic, 10.0)


@pytest.fixture(scope="session")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedLog]:
    """Four equal models, too much of each."""
    models = [model(f"m{i}", 8.0, 0.4) for i in range(4)]
    traffic = [Traffic(f"m{i}", 50.0, 32.0) for i in range(4)]
    yield write_logs(tmp_path_factory.mktemp("alike"), models, traffic, 6.0)
