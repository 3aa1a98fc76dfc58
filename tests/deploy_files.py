"""What lies in deploy/, read as those read it that use it: install lines, the Dockerfile, Compose, Grafana."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"
PREFIX = "/opt/tritonserver"
"""Where the install lines expect tritonserver."""


def install_lines() -> tuple[str, str, str]:
    """The backend, what it depends on, the server."""
    block = (DEPLOY / "README.md").read_text().split("```bash\n")[1].partition("```")[0]
    backend, dependencies, server = block.splitlines()
    return backend, dependencies, server


def install(into: Path, source: Path) -> Path:
    """Runs the first two install lines for a tritonserver at `into`, without network; returns the backend's folder.

    source: an empty folder for a copy of what the image is built from, which pip litters.
    """
    for name in copied_sources():
        target = source / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    # No build isolation (pip reads the variable that way round): setuptools is here, and pinned as it would be there.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in install_lines()[:2]:
        command = line.replace(PREFIX, str(into))
        done = subprocess.run(
            ["sh", "-euc", command],
            cwd=source,
            env=os.environ | offline | {"PATH": path},
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return into / "backends" / "isochrone"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, in order: name and arguments on one line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def final_stage() -> list[tuple[str, str]]:
    everything = instructions()
    last = max(i for i, (name, _) in enumerate(everything) if name == "FROM")
    return everything[last:]


def copied_sources() -> list[str]:
    """Paths in the repository that the Dockerfile copies."""
    copies = [rest.split() for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    return [source for *sources, _target in copies for source in sources]


def yaml(path: Path) -> Any:
    """Fails on what YAML does not allow, duplicate keys among it."""
    return YAML(typ="safe", pure=True).load(path)


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml(COMPOSE)["services"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/isochrone.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """The dashboard's, by title of the panel and letter in it."""
    return {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]}


def expressions() -> dict[str, str]:
    """Every query as Prometheus gets it with all models chosen."""
    variables = {"$__rate_interval": "20s", "$__range": "20s", "$model": ".*"}
    found = queries()
    for variable, value in variables.items():
        found = {name: query.replace(variable, value) for name, query in found.items()}
    return found


@dataclass(frozen=True)
class Selector:
    """A series that an expression asks for. matchers: label to the regular expression that it must match."""

    name: str
    matchers: dict[str, str]

    def matches(self, name: str, labels: dict[str, str]) -> bool:
        wanted = self.matchers.items()
        return name == self.name and all(re.fullmatch(value, labels.get(label, "")) for label, value in wanted)


def selectors(expression: str) -> list[Selector]:
    """Raises ValueError where Prometheus could not parse the expression."""
    return [
        Selector(node.name or "", {m.name: _pattern(m) for m in node.matchers.matchers})
        for node in _nodes(expression)
        if isinstance(node, promql_parser.VectorSelector)
    ]


def grouped_by(expression: str) -> Iterator[set[str]]:
    """The labels that each aggregation keeps."""
    for node in _nodes(expression):
        if isinstance(node, promql_parser.AggregateExpr):
            yield set(node.modifier.labels if node.modifier else ())


def _pattern(matcher: promql_parser.Matcher) -> str:
    assert matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re), f"{matcher} is not understood here"
    return re.escape(matcher.value) if matcher.op == promql_parser.MatchOp.Equal else matcher.value


def _nodes(expression: str) -> list[promql_parser.Expr]:
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expression), nodes.append)
    return nodes
