"""A document in both its forms, whatever names are in it."""

from __future__ import annotations

import re
from html import unescape

from backend.reporting.document import Block, Bullets, Heading, Paragraph, Plot, TextTable, html, markdown

NAME = "a|b_c <script>alert(1)</script> _x_ `y` & *z*"
BLOCKS: list[Block] = [
    Heading(1, f"Report on {NAME}"),
    Paragraph(NAME),
    Bullets([NAME, "max_batch_size"]),
    TextTable(("model", "ms"), [(NAME, "1.5")]),
    Plot(b"\x89PNG", NAME),
]


def test_markdown_shows_names_as_they_are() -> None:
    text = markdown(BLOCKS)
    shown = r"a|b_c \<script>alert(1)\</script> \_x\_ \`y\` & \*z\*"
    title, paragraph, bullets, table = text.strip().split("\n\n")
    assert title == f"# Report on {shown}"
    assert paragraph == shown
    assert bullets == f"- {shown}\n- max_batch_size"
    cell = shown.replace("|", r"\|")
    assert table.splitlines() == ["| model | ms |", "| --- | ---: |", f"| {cell} | 1.5 |"]


def test_html_is_one_file_in_which_names_are_text() -> None:
    text = html(BLOCKS)
    shown = {tag: re.findall(rf"<{tag}(?: class=n)?>(.*?)</{tag}>", text) for tag in ("h1", "p", "li", "td")}
    assert {tag: list(map(unescape, found)) for tag, found in shown.items()} == {
        "h1": [f"Report on {NAME}"],
        "p": [NAME],
        "li": [NAME, "max_batch_size"],
        "td": [NAME, "1.5"],
    }
    assert 'src="data:image/png;base64,iVBORw=="' in text
    assert "http" not in text
    assert "<script" not in text
