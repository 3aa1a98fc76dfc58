"""The layout: no import circle, no arrow upstream, small folders, and names in the glossary's words."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("backend", "predictor", "profiler")
EVERYTHING = (*PRODUCT, "benchmarks", "zoo")

LOOSE_FILES_MAX = 8
MODULES_MAX = 16
NAMES_OF_TWO_MAX = 5

UPSTREAM = {
    "predictor": ("backend", "profiler", "benchmarks"),
    "profiler": ("backend", "benchmarks"),
    "backend": ("benchmarks", "zoo", "tests"),
    "backend.scheduler": ("backend.linux", "backend.engines", "backend.scheduler_process", "backend.model_process"),
    "backend.fleet": ("backend.scheduler", "backend.scheduler_process", "backend.model_process", "backend.engines"),
    "backend.linux": ("backend.model_process", "backend.scheduler_process", "backend.engine_process"),
    "backend.engines": ("backend.model_process", "backend.scheduler_process", "backend.engine_process"),
    "backend.model_process": ("backend.scheduler_process.process", "backend.commands", "backend.server"),
    "backend.engine_process": ("backend.model_process", "backend.scheduler_process", "backend.commands"),
    "backend.scheduler_process": ("backend.model_process", "backend.engines", "backend.engine_process"),
}
"""Who must not import whom; also not for type checking, nor within a function."""

NOT_OUR_WORDS = {
    *("aside", "ahead", "voice", "told", "standstill", "stages", "outlook", "occupancy", "going", "yielding"),
    *("overtake", "overtaking", "company", "guest", "neighbour", "neighbours", "crowd", "tutor", "teach", "lesson"),
    *("variant", "cargo", "hear", "heard", "passage", "spell", "felt", "calm"),
    *("team", "yardstick", "ending", "standing", "spent", "stranger", "strangers"),
    *("beside", "stay", "voices", "peek", "bank"),
}
"""Words that the glossary in docs/explanation/architecture.md replaces: no name of a module, class or function has one.

Those with a plain meaning besides are left out: turns (of rivals in a benchmark), traffic, settle, stamp, CPU steal.
"""


def modules(*folders: str) -> list[Path]:
    """Files of these folders, without the tests of benchmarks."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in paths if "tests" not in path.relative_to(ROOT).parts)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def names() -> frozenset[str]:
    return frozenset(dotted(path) for path in modules(*EVERYTHING))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """The modules of ours that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & names()) or {node.module}
    return frozenset(found & names())


def circles() -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan, 1972)."""
    graph = {dotted(path): sorted(imports_of(path)) for path in modules(*EVERYTHING)}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            component = stack[stack.index(name) :]
            del stack[-len(component) :]
            if len(component) > 1:
                found.append(sorted(component))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles() == []


def folders_in_a_circle() -> set[tuple[str, str]]:
    """Pairs of folders of `backend/` that import each other."""
    arrows: set[tuple[str, str]] = set()
    for path in modules("backend"):
        mine = folder_of(dotted(path))
        arrows |= {(mine, other) for name in imports_of(path) if (other := folder_of(name)) != mine}
    return {(one, other) for one, other in arrows if (other, one) in arrows and one < other}


def folder_of(module: str) -> str:
    """The folder of `backend/`, or the loose file, that a module belongs to."""
    return ".".join(module.split(".")[:2])


def test_no_folders_of_the_backend_import_each_other() -> None:
    assert folders_in_a_circle() == set()


@pytest.mark.parametrize("package", UPSTREAM)
def test_a_package_imports_nothing_upstream(package: str) -> None:
    wrong = [
        f"{dotted(path)} imports {name}"
        for path in modules(*EVERYTHING)
        if f"{dotted(path)}.".startswith(f"{package}.")
        for name in imports_of(path)
        if any(f"{name}.".startswith(f"{other}.") for other in UPSTREAM[package])
    ]
    assert wrong == []


def test_few_files_lie_loose_in_the_backend() -> None:
    assert len(list((ROOT / "backend").glob("*.py"))) <= LOOSE_FILES_MAX


def test_no_folder_has_many_modules() -> None:
    sizes = Counter(path.parent for path in modules(*EVERYTHING) if path.name not in ("__init__.py", "__main__.py"))
    assert {folder: size for folder, size in sizes.items() if size > MODULES_MAX} == {}


def defined(path: Path) -> Iterator[str]:
    """The names of a file's classes and functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def words(name: str) -> set[str]:
    """Of a name in snake_case or CamelCase."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def test_names_are_in_the_words_of_the_glossary() -> None:
    wrong = [
        f"{dotted(path)}: {name}"
        for path in modules(*EVERYTHING)
        for name in {path.stem, *defined(path)}
        if words(name) & NOT_OUR_WORDS
    ]
    assert wrong == []


def test_few_class_names_stand_for_two_things() -> None:
    where: defaultdict[str, set[str]] = defaultdict(set)
    for path in modules(*EVERYTHING):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "TritonPythonModel":
                where[node.name].add(dotted(path))
    two = {name: sorted(places) for name, places in where.items() if len(places) > 1}
    assert len(two) <= NAMES_OF_TWO_MAX, two


NOT_A_BEGINNING = re.compile(r"(What|Who|Whom|Whose|Of|When|Where|Whether|How|Why|Which|If|That)\b")
"""A docstring starts with a verb or a noun."""


def test_docstrings_start_with_a_verb_or_a_noun() -> None:
    wrong = [
        f"{dotted(path)}: {text.splitlines()[0]}"
        for path in modules(*EVERYTHING)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if (text := ast.get_docstring(node)) and NOT_A_BEGINNING.match(text)
    ]
    assert wrong == []
