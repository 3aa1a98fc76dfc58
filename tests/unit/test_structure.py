"""Structure of the code base, by its imports."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT_TESTS = sorted(Path(__file__).parent.rglob("test_*.py"))
UPSTREAM = {
    "backend/model_process": ("backend.scheduler_process.process", "backend.commands", "backend.server"),
    "backend/linux": ("backend.model_process", "backend.engine_process", "backend.engines", "backend.config"),
    "backend/engines": ("backend.model_process", "backend.engine_process", "backend.config"),
    "backend/config": ("backend.model_process", "backend.engine_process", "backend.trial"),
    "backend/trial": ("backend.model_process",),
    "backend/scheduler": ("backend.model_process", "backend.scheduler_process", "backend.linux"),
}
"""Packages, each with modules that none of its own may import, not even for a type or within a function."""
LOOSE_MAX, MODULES_MAX = 8, 16
"""Modules in `backend/` itself, and in each folder of it."""


def imports(file: Path) -> Iterator[str]:
    """Absolute names of all that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", UPSTREAM)
def test_a_package_imports_nothing_upstream(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        found = [name for name in imports(file) if f"{name}.".startswith(tuple(f"{up}." for up in UPSTREAM[package]))]
        assert not found, file


def test_folders_are_small() -> None:
    backend = ROOT / "backend"
    assert len(modules(backend)) <= LOOSE_MAX
    for folder in (path for path in backend.rglob("*") if path.is_dir()):
        assert len(modules(folder)) <= MODULES_MAX, folder


def modules(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*.py") if file.name != "__init__.py"]


def test_unit_tests_start_no_process() -> None:
    """See conftest.py for those that are started by the code under test."""
    for file in (file for file in UNIT_TESTS if file != Path(__file__)):
        found = {name.partition(".")[0] for name in imports(file)} & {"subprocess", "multiprocessing"}
        found |= {name for name in imports(file) if name in ("profiler.child.run_module", "profiler.child.answer_of")}
        assert not found, file


def test_a_process_that_a_unit_test_starts_fails_it() -> None:
    with pytest.raises(pytest.fail.Exception, match="a unit test starts a process"):
        subprocess.run(["true"], check=True)
