"""Every test in this folder runs a real tritonserver, and nothing of it may be left when its module is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.conftest import nothing_left

__all__ = ["nothing_left"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.server)
