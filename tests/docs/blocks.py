"""Code blocks of README.md and docs/, with the mark that says how each is tested.

A block that is a command or Python has an HTML comment on the line before it:

    <!-- test: run -->            runs in the default run; the blocks of a page run in order, in one session
    <!-- test: slow -->           runs with `-m slow`, in its place among the page's other blocks
    <!-- test: skip, REASON -->   is not run
    <!-- test: docker -->         is not run: it needs a container runtime

and a `text` block may have <!-- test: output -->: then it is, to the letter, what the block before it printed.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("bash", "sh", "console")
RUNNABLE = ("python", *COMMANDS)
KINDS = ("run", "slow", "skip", "docker", "output")
_FENCE = re.compile(r"^(\s*)```\s*(\w*).*$")
_MARK = re.compile(r"^\s*<!-- test: (\w+)(?:, (.+?))? -->\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block. line: of its opening fence, from 1. kind: of its mark, "" without one."""

    page: str
    line: int
    tag: str
    text: str
    kind: str
    reason: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> str:
        """Shell commands; of a `console` block the lines behind a prompt."""
        if self.tag != "console":
            return self.text
        return "".join(line[2:] + "\n" for line in self.text.splitlines() if line.startswith("$ "))


def pages() -> list[str]:
    """Paths within the repository."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def blocks_of(page: str) -> list[Block]:
    return parse(page, (ROOT / page).read_text())


def parse(page: str, text: str) -> list[Block]:
    """Raises ValueError where a fence is left open."""
    lines = text.splitlines()
    blocks: list[Block] = []
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if opened is None:
            opened = number, fence[2]
            continue
        start, tag = opened
        kind, reason = _mark(lines[: start - 1])
        body = textwrap.dedent("".join(f"{inside}\n" for inside in lines[start : number - 1]))
        blocks.append(Block(page, start, tag, body, kind, reason))
        opened = None
    if opened is not None:
        raise ValueError(f"{page}:{opened[0]}: the block is not closed")
    return blocks


def _mark(above: list[str]) -> tuple[str, str]:
    """Kind and reason of the mark that the lines above a block end in; a blank line may stand between."""
    while above and not above[-1].strip():
        above = above[:-1]
    found = _MARK.match(above[-1]) if above else None
    return (found[1], found[2] or "") if found else ("", "")


def complaint(block: Block) -> str | None:
    """A sentence on a block that nothing tests and no reason excuses."""
    if not block.tag:
        return f"{block.place}: the fence has no language; output is `text`"
    if block.kind and block.kind not in KINDS:
        return f"{block.place}: the mark `{block.kind}` is none of {', '.join(KINDS)}"
    if block.kind == "skip" and not block.reason:
        return f"{block.place}: `skip` needs a reason, as in <!-- test: skip, needs a GPU -->"
    if block.tag in RUNNABLE and not block.kind:
        return (
            f"{block.place}: {block.tag} without a mark: <!-- test: run -->, or skip with a reason, on the line before"
        )
    return None
