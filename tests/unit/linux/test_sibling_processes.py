"""Older processes of the same parent and argument, in a made-up /proc; tests/server/test_state.py has a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.linux.sibling_processes import has_older_siblings

MODEL, OTHER = "/models/m/1/model.py", "/models/other/1/model.py"
OWN = 50


def process(proc: Path, pid: int, started: int, parent: int = 9, argument: str = MODEL, name: str = "stub") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    fields = ["S", str(parent), *["0"] * 17, str(started), "0", "0"]
    (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
    (folder / "cmdline").write_bytes(b"\0".join([b"stub", argument.encode(), b"region", b""]) if argument else b"")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    process(tmp_path, OWN, started=1000)
    (tmp_path / "self").mkdir()
    (tmp_path / "1").mkdir()  # of another user, or gone meanwhile
    return tmp_path


def test_one_that_is_alone_has_none(proc: Path) -> None:
    assert not has_older_siblings(proc, OWN)


@pytest.mark.parametrize(
    ("pid", "started", "older"), [(60, 999, True), (60, 1001, False), (40, 1000, True), (60, 1000, False)]
)
def test_the_one_that_began_first_is_the_older(proc: Path, pid: int, started: int, older: bool) -> None:
    process(proc, pid, started)
    assert has_older_siblings(proc, OWN) is older


def test_other_models_and_other_servers_processes_are_no_siblings(proc: Path) -> None:
    process(proc, 40, 1, argument=OTHER)
    process(proc, 41, 1, parent=10)
    process(proc, 42, 1, argument="")  # a zombie
    assert not has_older_siblings(proc, OWN)


def test_a_name_with_parentheses_and_spaces_is_read(proc: Path) -> None:
    process(proc, 40, 1, name="a) S 9 (b")
    assert has_older_siblings(proc, OWN)


def test_one_that_cannot_read_itself_takes_none_of_the_others_parts(tmp_path: Path) -> None:
    assert has_older_siblings(tmp_path, OWN)


def test_this_process_can_be_read() -> None:
    assert has_older_siblings(own=os.getpid()) in (True, False)
