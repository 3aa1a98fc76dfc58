"""A page's `run` blocks do as they stand, on a real server where the page starts one; with `-m slow` all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, RUNNABLE, Block, blocks_of, pages
from tests.docs.session import BlockFailedError, Session, session
from tests.server.conftest import nothing_left  # noqa: F401 - what a page started is gone at the end

pytestmark = pytest.mark.server


def runs() -> Iterator[Any]:
    """The pages with blocks to run; those with slow blocks once more, with these."""
    for page in pages():
        kinds = [block.kind for block in blocks_of(page) if block.tag in RUNNABLE]
        if "run" in kinds:
            yield pytest.param(page, ("run",), id=page)
        if "slow" in kinds:
            yield pytest.param(page, ("run", "slow"), id=f"{page}-slow", marks=pytest.mark.slow)


@pytest.mark.parametrize(("page", "kinds"), list(runs()))
def test_page_runs_as_it_stands(page: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    with session(tmp_path / "isochrone", (ROOT / page).read_text()) as opened:
        printed: str | None = None
        for block in blocks_of(page):
            if block.tag in RUNNABLE:
                printed = opened.run(block) if block.kind in kinds else None
                print(f"-- {block.place}\n{printed or ''}", end="")
            elif block.kind == "output" and printed is not None:
                assert printed == block.text, block.place


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Session]:
    with session(tmp_path / "isochrone", "") as made:
        yield made


def block(tag: str, text: str) -> Block:
    return Block("page.md", 1, tag, text, "run", "")


def test_python_blocks_share_names_and_shell_blocks_a_folder(opened: Session) -> None:
    opened.run(block("python", "x = 6"))
    opened.run(block("bash", "echo 7 > number.txt"))
    assert opened.run(block("python", 'print(x * int(open("number.txt").read()))')) == "42\n"


@pytest.mark.parametrize(
    ("tag", "text"), [("python", "1 / 0"), ("bash", "false\ntrue"), ("console", "$ no-such-command")]
)
def test_a_block_that_fails_is_named(tag: str, text: str, opened: Session) -> None:
    with pytest.raises(BlockFailedError, match=r"page\.md:1"):
        opened.run(block(tag, text))
