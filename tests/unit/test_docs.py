"""README, CONTRIBUTING, SECURITY and docs/: links lead somewhere, paths and modules exist, the README is short."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from predictor.evaluate import LEARNERS
from tests.deploy_files import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")), *DOCS.rglob("*.md")]
)
PAGES.append(ROOT / "deploy" / "README.md")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PACKAGES = "backend|predictor|profiler|benchmarks|zoo|tests|deploy"


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[str]:
    """Targets of links and images, code spans left out."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
    yield from re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Headings as links name them, where GitHub and the site agree."""
    headings = [
        re.sub(r"[`*]|\]\([^)]*\)|\[", "", title) for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    ]
    return _numbered(map(_by_github, headings), "-") & _numbered(map(_by_mkdocs, headings), "_")


def _by_github(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _by_mkdocs(heading: str) -> str:
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def _numbered(slugs: Iterator[str], joint: str) -> set[str]:
    seen: Counter[str] = Counter()
    found = set()
    for slug in slugs:
        found.add(f"{slug}{joint}{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"(https?|mailto):", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if DOCS in page.parents:  # the site has nothing else
            assert target.is_relative_to(DOCS), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # which tells of the past
        return
    for path in re.findall(rf"`((?:{PACKAGES}|docs)/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_module_and_target_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for module in re.findall(rf"-m ((?:{PACKAGES})(?:\.\w+)*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    code = "\n".join(re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL))
    targets = re.findall(r"`make ([a-z][a-z-]*)", text) + re.findall(r"^make ([a-z][a-z-]*)", code, re.MULTILINE)
    assert set(targets) <= TARGETS


def test_the_navigation_has_every_page_once() -> None:
    named = list(_pages(yaml(ROOT / "mkdocs.yml")["nav"]))
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def _pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for entry in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from _pages(entry)


def test_the_readme_is_short_and_leads_to_every_part() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    assert {"make demo", "make test"} <= set(re.findall(r"^make \w+", readme, re.MULTILINE))
    parts = {Path(link).parts[1] for link in links(ROOT / "README.md") if link.startswith("docs/")}
    assert {"how-to", "reference", "explanation", "reports"} <= parts


def test_the_architecture_has_every_folder_of_the_product() -> None:
    packages = msgspec.toml.decode((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {"/".join(package.split(".")[:2]) + "/" for package in packages if package != "predictor.learners"}
    text = (DOCS / "explanation" / "architecture.md").read_text()
    listed = set(re.findall(r"^\| `([\w/]+/)` \|", text, re.MULTILINE))
    assert folders <= listed, folders - listed


def test_the_predictors_page_has_every_learner() -> None:
    page = (DOCS / "explanation" / "predictor.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(LEARNERS)
