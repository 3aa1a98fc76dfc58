"""How sentences hold what a user wrote."""

from __future__ import annotations

import pytest

from backend.errors import one_line, quoted


@pytest.mark.parametrize(
    ("text", "line"),
    [("plain ü ٣", "plain ü ٣"), ("a\0b", r"a\x00b"), ("a\nb\tc", r"a\nb\tc"), ("\ud800", r"\ud800"), ("", "")],
)
def test_one_line_escapes_what_is_not_printable(text: str, line: str) -> None:
    assert one_line(text) == line


def test_quoted_cuts_what_is_long() -> None:
    assert quoted("x" * 80) == "x" * 80
    assert quoted("x" * 1_000_000) == "x" * 80 + "…"
    assert quoted("\0" * 81) == r"\x00" * 80 + "…"
