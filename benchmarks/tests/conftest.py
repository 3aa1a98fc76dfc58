"""Set-up of the product's tests, for these where they run alone."""

from __future__ import annotations

from tests.conftest import pytest_configure

__all__ = ["pytest_configure"]
