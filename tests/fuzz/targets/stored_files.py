"""What is remembered of a trial of a model file, and what stands beside a TensorRT plan."""

from __future__ import annotations

from backend.engines.tensorrt.plan_facts import facts_path, graph_of, read_facts
from backend.errors import ConfigError
from backend.trial.launch import Remembered
from profiler.store import read_json
from tests.fuzz.files import file_of

FORMAT = "json"


def check(data: bytes) -> None:
    """A trial or nothing; facts, nothing, or `ConfigError`."""
    read_json(file_of("trial.json", data), Remembered)
    plan = file_of("model.plan", b"")
    file_of(facts_path(plan).name, data)
    try:
        read_facts(plan)
        graph_of(plan)
    except ConfigError as error:
        assert str(error)
