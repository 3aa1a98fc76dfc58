"""What the product's tests set up holds for these, too, where they run alone."""

from __future__ import annotations

from tests.conftest import pytest_configure

__all__ = ["pytest_configure"]
