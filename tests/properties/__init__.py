"""Asserts of these tests' helpers say as much as the tests' own."""

import pytest

pytest.register_assert_rewrite("tests.properties.account")
