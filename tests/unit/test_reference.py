"""docs/reference lists what the code has, with its defaults, and nothing besides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from backend.commands.main import app
from backend.commands.simulate import SimulatedPoint
from backend.config.parameters import KEYS, Parameters
from backend.engines.emulated.spec import BatchSpec, DeviceSpec, EmulatedSpec, TensorJson
from backend.engines.tensorrt.plan_facts import PlanFacts
from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.errors import RequestError
from backend.fleet.snapshot import (
    FLEET_PROTOCOL,
    MAX_CLASSES,
    MAX_LINE_BYTES,
    MAX_MODELS,
    DeviceSnapshot,
    MachineFacts,
    ModelState,
    RunningState,
    Subscribe,
)
from backend.load import figures
from backend.load.arrivals import Traffic
from backend.load.outcomes import Summary
from backend.load.workload import Workload
from backend.model_process.metrics import METRICS
from backend.model_process.request import Arrival, read_due
from backend.profiling.report import as_json
from backend.route_process.endpoints_file import Server
from backend.route_process.model_name import HEADERS
from backend.route_process.observed_demand import StatedModel
from backend.route_process.router_metrics import PICK_BUCKETS_US, RouterMetrics
from backend.scheduler_process.state_publisher import SUBSCRIBERS_MAX
from predictor import state_file
from predictor.bound import UpperBound
from predictor.evaluate import Evaluation, Score
from predictor.learners.isochrone import Isochrone
from predictor.samples import RecordedCoRunner, Sample
from predictor.transfers import TransferModel
from profiler.profile_file import ProfileEntry, ProfileFile

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PRODUCT = ("backend", "predictor", "profiler", "benchmarks", "model.py")


def section(page: str, heading: str) -> str:
    """The text below a heading of a page, up to the next heading of any level."""
    text = (REFERENCE / f"{page}.md").read_text()
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page}.md has no heading '{heading}'"
    return found[1]


def rows(page: str, heading: str, table: int = 0) -> dict[str, list[str]]:
    """A table below a heading: the first cell, without backquotes and label, to the others."""
    tables = re.findall(r"^\|.*?\n\n", section(page, heading) + "\n\n", re.MULTILINE | re.DOTALL)
    lines = tables[table].strip().splitlines()[2:]
    cells = [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {re.sub(r"\{\w+\}", "", first).strip("`"): rest for first, *rest in cells}


def shown(value: object) -> str:
    """A default as the tables write it."""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# Parameters


def test_every_parameter_is_documented_with_its_default_and_what_is_allowed() -> None:
    documented, defaults = rows("configuration", "Parameters"), Parameters()
    assert set(documented) == set(KEYS)
    for name, key in KEYS.items():
        default, allowed, _ = documented[name]
        value = getattr(defaults, key.field)
        assert default in (("none", "`auto`") if value is None else (shown(value),)), name
        assert allowed == key.allowed, name


class Asking(dict[str, object]):
    """Request parameters, none of them given, that remember which were looked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return False


def test_every_request_parameter_is_documented() -> None:
    asking = Asking()
    read_due(asking, 0, Parameters(), Arrival(0, 0))
    assert set(rows("request-parameters", "Request parameters")) == asking.names


@pytest.mark.parametrize("name", rows("request-parameters", "Request parameters"))
def test_a_documented_request_parameter_is_checked(name: str) -> None:
    with pytest.raises(RequestError, match=name):
        read_due({name: "nonsense"}, 0, Parameters(), Arrival(0, 0))


# Metrics


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    documented = rows("metrics", "Metrics")
    assert set(documented) == set(METRICS)
    for name, metric in METRICS.items():
        kind, values, _ = documented[name]
        assert kind == ("histogram" if metric.buckets else "gauge" if metric.gauge else "counter"), name
        assert re.findall(r"`([\w ]+)`", values) == [value for value in metric.values if value], name
        label = f"{{{metric.label}}}" if metric.label else ""
        assert f"| `{name}{label}` |" in section("metrics", "Metrics")


def test_every_histogram_is_documented_with_its_buckets() -> None:
    documented = {
        name: [float(bound) for bound in bounds.split(", ")]
        for names, (bounds,) in rows("metrics", "Buckets").items()
        for name in re.findall(r"\w+", names)
    }
    assert documented == {name: list(metric.buckets) for name, metric in METRICS.items() if metric.buckets}


def test_every_metric_of_the_router_is_documented_with_its_type_and_labels() -> None:
    documented = {name.partition("{")[0]: rest for name, rest in rows("metrics", "The router's").items()}
    families = {family.name: family for family in RouterMetrics().registry.collect()}
    assert {name.removesuffix("_total") for name in documented} == set(families)
    for name, (kind, meaning) in documented.items():
        assert kind == families[name.removesuffix("_total")].type
        if kind == "histogram":
            assert ", ".join(map(str, PICK_BUCKETS_US)) in meaning


def test_every_header_for_a_router_is_documented() -> None:
    assert set(rows("request-parameters", "Headers for a router")) == set(HEADERS)


# Commands

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_every_command_has_a_section() -> None:
    text = (REFERENCE / "commands.md").read_text()
    assert re.findall(r"^## isochrone (\w+)$", text, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented_with_its_default(name: str) -> None:
    documented, params = rows("commands", f"isochrone {name}"), COMMANDS[name].params
    assert list(documented) == [_option(param) for param in params]
    for param in params:
        default, _ = documented[_option(param)]
        if param.required:
            assert default == "required", param.opts
        elif param.default is False:
            assert default == "off", param.opts
        elif param.default is None:
            assert re.fullmatch(r"\*.+\*", default), param.opts
        else:
            assert default == shown(param.default), param.opts


def _option(param: Any) -> str:
    return str(param.opts[0] if param.param_type_name == "option" else param.name.upper())


def test_every_target_of_the_makefile_is_documented() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help"}
    assert set(rows("commands", "make")) == {f"make {target}" for target in targets}


# Environment


def test_every_environment_variable_is_documented() -> None:
    named = {name for text in _sources() for name in re.findall(r"\bISOCHRONE_[A-Z_]+\b", text)}
    assert named == set(re.findall(r"ISOCHRONE_[A-Z_]+", (REFERENCE / "environment.md").read_text()))


def _sources() -> Iterator[str]:
    for part in PRODUCT:
        path = ROOT / part
        for file in [path] if path.is_file() else path.rglob("*.py"):
            yield file.read_text()


# The published state

STATE: dict[str, type[msgspec.Struct]] = {
    "The connection": Subscribe,
    "The snapshot": DeviceSnapshot,
    "The machine": MachineFacts,
    "A model": ModelState,
    "A running batch": RunningState,
}


@pytest.mark.parametrize("heading", STATE)
def test_every_field_of_the_published_state_is_documented(heading: str) -> None:
    assert list(rows("state", heading)) == list(STATE[heading].__struct_fields__)


def test_the_limits_of_the_published_state_are_documented() -> None:
    text = (REFERENCE / "state.md").read_text()
    assert f"at most {MAX_LINE_BYTES:,} bytes" in text
    assert f"at most {MAX_MODELS}, " in text
    assert f"more than {MAX_CLASSES} classes" in text
    assert f"takes {SUBSCRIBERS_MAX} subscribers" in text
    assert f'"protocol": {FLEET_PROTOCOL}' in text


# Files

READ: dict[str, type[msgspec.Struct]] = {
    "Samples": Sample,
    "A co-runner": RecordedCoRunner,
    "profile.json": ProfileFile,
    "An entry": ProfileEntry,
    "Workload": Workload,
    "A model of a workload": Traffic,
    "The predictor's state": state_file._File,
    "model.plan.json": PlanFacts,
    "model.emulated.json": EmulatedSpec,
    "Endpoints": Server,
    "Demand": StatedModel,
}


@pytest.mark.parametrize("heading", READ)
def test_every_field_of_a_file_is_documented_with_its_default(heading: str) -> None:
    documented = rows("file-formats", heading)
    fields = {field.encode_name: field for field in msgspec.structs.fields(READ[heading])}
    assert set(documented) == set(fields)
    for name, field in fields.items():
        default, _ = documented[name]
        assert default in _defaults(field), name


def _defaults(field: msgspec.structs.FieldInfo) -> tuple[str, ...]:
    if field.required:
        return ("required",)
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None:
        return ("null",)
    return ("none", "empty") if value in ("", (), {}) else (shown(value), str(value))


def test_every_field_of_what_commands_write_is_documented() -> None:
    heading = "What commands write"
    for table, kind in enumerate((Evaluation, SimulatedPoint, figures.MeasuredPoint)):
        assert list(rows("file-formats", heading, table)) == list(kind.__struct_fields__), kind
    assert list(rows("file-formats", "Figures")) == list(Summary.__struct_fields__)
    (learners,) = rows("file-formats", heading)["learners"]
    assert re.findall(r"`(\w+)`", learners) == list(Score.__struct_fields__)
    text = section("file-formats", heading)
    assert ", ".join(f"`{name}`" for name in figures._COLUMNS) in " ".join(text.split())
    written = msgspec.json.decode(as_json((), {"m": "wrong"}, wall_s=0.0, interrupted=False))
    assert {f"`{name}`" for name in (*written, *written["models"][0])} <= set(re.findall(r"`\w+`", text))


def test_every_part_of_the_state_is_documented() -> None:
    documented = rows("file-formats", "The predictor's state")
    for name, part in (("learner", Isochrone()), ("bound", UpperBound()), ("transfers", TransferModel())):
        assert re.findall(r"`(\w+)`", documented[name][1]) == list(part.state()), name
    assert documented["version"][1].startswith(f"{state_file.VERSION};")
    assert documented["format"][1] == f"`{state_file._FORMAT}`"


def test_every_field_of_a_plans_tensors_and_profiles_is_documented() -> None:
    documented = rows("file-formats", "model.plan.json")
    assert re.findall(r"`(\w+)`", documented["tensors"][1]) == list(PlanTensor.__struct_fields__)
    assert re.findall(r"`(\w+)`", documented["profiles"][1]) == list(OptimizationProfile.__struct_fields__)


def test_every_field_of_an_emulated_models_device_tensors_and_batches_is_documented() -> None:
    documented, devices = rows("file-formats", "model.emulated.json"), rows("file-formats", "model.emulated.json", 1)
    for name, kind in (("inputs", TensorJson), ("batches", BatchSpec)):
        assert set(re.findall(r"`(\w+)`", documented[name][1])) - {"max_batch_size"} == set(kind.__struct_fields__), (
            name
        )
    assert list(devices) == list(DeviceSpec.__struct_fields__)
    for field in msgspec.structs.fields(DeviceSpec):
        default = "required" if field.required else shown(getattr(field.default, "value", field.default))
        assert devices[field.name][0] == default, field.name
