"""The product's tests know nothing of benchmarks, which change without them."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def imported(file: Path) -> set[str]:
    """Top-level packages that a file imports, at whatever depth of it."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {module.partition(".")[0] for module in modules}


def test_no_test_of_the_product_imports_a_benchmark() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert Path(__file__) in files
    assert "ast" in imported(Path(__file__))
    assert [str(file) for file in files if "benchmarks" in imported(file)] == []
