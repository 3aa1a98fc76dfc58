"""Tables, images and figures of a report in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median


def table(header: str | Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """header: cells, or a line with ` | ` between them."""
    cells = header.split(" | ") if isinstance(header, str) else header
    return "\n".join(f"| {' | '.join(line)} |" for line in [cells, ["---"] * len(cells), *rows])


def image(path: Path, folder: Path) -> str:
    """Links a plot from a report in `folder`."""
    return f"![{path.stem}]({path.relative_to(folder).as_posix()})"


def document(parts: Iterable[str]) -> str:
    """Joins a report's parts, without those that are empty."""
    return "\n\n".join(filter(None, parts)) + "\n"


def spread(values: Sequence[float]) -> str:
    """Median (least to most)."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
