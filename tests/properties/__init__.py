"""Asserts of these tests' helpers say as much as the tests' own."""

import pytest

for _name in ("account", "checked_scheduler", "invariants", "rules"):
    pytest.register_assert_rewrite(f"tests.properties.{_name}")
