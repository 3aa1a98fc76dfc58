"""The README names every parameter, request parameter, metric and command that there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.config.parameters import KEYS, Parameters
from backend.model_process.metrics import METRICS
from backend.runtime_dir import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def table(heading: str) -> dict[str, str]:
    """The rows of the first table below a line, first cell to second; label names in braces dropped."""
    text = next(part for part in README.split(heading, 1)[1].split("\n\n") if part.startswith("|"))
    rows = re.findall(r"^\| `([a-zA-Z_]+)(?:\{\w+\})?` \| (.*?) \|", text, re.MULTILINE)
    return dict(rows)


def test_every_parameter_is_documented_with_its_default() -> None:
    documented = table("In config.pbtxt, as")
    assert set(KEYS) <= set(documented)
    defaults = Parameters()
    for name, key in KEYS.items():
        default = getattr(defaults, key.field)
        text = str(default).lower() if isinstance(default, bool) else str(default)
        shown = ("none", "`auto`") if default is None else (f"`{text}`",)
        assert documented[name] in shown, name


@pytest.mark.parametrize("name", ["slo_ms", "deadline_ns", "priority_class"])
def test_every_request_parameter_is_documented(name: str) -> None:
    assert name in table("With a request, as")


def test_every_metric_is_documented_and_none_besides() -> None:
    documented = {name for name in table("## Metrics") if name.startswith("isochrone_")}
    assert documented == set(METRICS)


def test_what_the_environment_may_set_is_documented() -> None:
    assert f"`{VARIABLE}`" in README


def test_the_commands_that_it_shows_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    shown = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "serve"} <= shown <= targets
