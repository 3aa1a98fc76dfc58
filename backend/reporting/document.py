"""A document as blocks, and its two forms: Markdown, and one HTML file that needs nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


class Heading(NamedTuple):
    """level: 1 for the title."""

    level: int
    text: str


class Paragraph(NamedTuple):
    text: str


class Bullets(NamedTuple):
    items: Sequence[str]


class TextTable(NamedTuple):
    """Rows of as many cells as the header has; all but the first `names` columns are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


class Plot(NamedTuple):
    """Image in HTML only. png: the file's bytes; caption: what is to be seen."""

    png: bytes
    caption: str


_MARKUP = re.compile(r"[\\`*<\[]|\b_|_\b")
"""An underscore within a word is none."""
Block = Heading | Paragraph | Bullets | TextTable | Plot


def markdown(blocks: Iterable[Block]) -> str:
    """Render as Markdown, without the plots."""
    return "\n\n".join(_markdown(block) for block in blocks if not isinstance(block, Plot)) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {_plain(text)}"
        case Bullets(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case TextTable(header, rows, names):
            rule = ["---" if i < names else "---:" for i in range(len(header))]
            lines = [list(map(_cell, header)), rule, *(list(map(_cell, row)) for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Paragraph(text):
            return _plain(text)
    raise AssertionError(block)


def _plain(text: str) -> str:
    """Keep names such as `a_b_c` and `<x>` from becoming markup, on one line."""
    return " ".join(_MARKUP.sub(r"\\\g<0>", text).split())


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th.n, td.n { text-align: right; }
img { max-width: 100%; }
figure { margin: 1rem 0; }
figcaption { color: #666; }
"""


def html(blocks: Sequence[Block]) -> str:
    """Render as one HTML file; plots are in it."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    body = "\n".join(map(_html, blocks))
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
        case TextTable(header, rows, names):
            top = _row("th", header, names)
            return (
                f"<table><thead>{top}</thead><tbody>{''.join(_row('td', row, names) for row in rows)}</tbody></table>"
            )
        case Plot(png, caption):
            image = f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(caption)}">'
            return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"


def _row(tag: str, cells: Sequence[str], names: int) -> str:
    each = (f"<{tag}{'' if i < names else ' class=n'}>{escape(cell)}</{tag}>" for i, cell in enumerate(cells))
    return f"<tr>{''.join(each)}</tr>"
