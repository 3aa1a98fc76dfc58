"""Cost of the check of batching for a model's first load, and its next ones: `python -m benchmarks.trial`.

Each model of the repository is tried from nothing, in the process of its own that a load starts, by turns.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from backend.config.model_config import ModelConfig
from backend.engines.loading import read_model_specs
from backend.model_process.load_profile import inputs_of, timed_run
from backend.model_process.placement import open_engine
from backend.profiling.repository import find_versions, served_model
from backend.runtime_dir import VARIABLE
from backend.trial.launch import try_file
from backend.trial.messages import Question, Trial
from backend.trial.question import question_of
from benchmarks.harness import markdown
from benchmarks.harness.markdown import spread
from profiler.host import cpu_name
from zoo.catalog import MODELS

_SOLO_RUNS = 20


def solo_ms(config: ModelConfig, trial: Trial) -> float:
    """Median of one row's execution alone."""
    engine, inputs = open_engine(config), inputs_of(config, trial)
    assert inputs is not None, trial.why
    try:
        times = sorted(timed_run(config, engine, inputs, 1) for _ in range(_SOLO_RUNS))
    finally:
        engine.close()
    return times[_SOLO_RUNS // 2] / 1e6


def seconds(question: Question, *, afresh: bool) -> float:
    """Duration of one trial; afresh: in a runtime folder that remembers nothing."""
    with tempfile.TemporaryDirectory(prefix="iso-") as folder:
        os.environ[VARIABLE] = folder
        if not afresh:
            try_file(question, batch=True)
        begin_s = time.perf_counter()
        try_file(question, batch=True)
        return time.perf_counter() - begin_s


def main(
    model_repository: Annotated[Path, typer.Option(help="Folder of models.")] = Path("model_repository"),
    repeats: Annotated[int, typer.Option(help="Of each model.")] = 5,
) -> None:
    """Print a table of medians, with the least and the most."""
    with tempfile.TemporaryDirectory(prefix="iso-") as folder:
        os.environ[VARIABLE] = folder
        versions, _ = find_versions(model_repository, tuple(MODELS))
        served = [(version, *served_model(version)) for version in versions]
        solo = {config.name: solo_ms(config, trial) for _, config, trial in served}
    asked = {}
    for version, config, _ in served:
        specs = read_model_specs(config.model_file, config.device_id)
        asked[config.name] = question_of({**version.config, "name": config.name}, config.model_file, specs, None)
    first: dict[str, list[float]] = {name: [] for name in asked}
    again: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(repeats):
        for name, question in asked.items():
            first[name].append(seconds(question, afresh=True))
            again[name].append(seconds(question, afresh=False))
    print(f"{cpu_name()}, {os.cpu_count()} cores, {repeats} repeats by turns; median (least to most)\n")
    rows = [
        (name, f"{solo[name]:.1f}", spread(first[name]), f"{statistics.median(again[name]) * 1e3:.1f}")
        for name in asked
    ]
    print(markdown.table("model | alone, ms | first check, s | a second one, ms", rows))


if __name__ == "__main__":
    typer.run(main)
