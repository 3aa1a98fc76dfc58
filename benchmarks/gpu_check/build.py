"""Each model for this device: a plan by `isochrone build`, else ONNX Runtime as it is. Says why one did not work."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

from backend.errors import IsochroneError
from backend.model_process.placement import open_engine
from benchmarks.gpu_check.records import BuiltModel, CheckRecords
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.steps import Step, TimeBudget, TimeIsOver
from benchmarks.models.model_repository import link_models, write_config
from zoo.catalog import write

_MODEL_S, _PLAN_S, _SESSION_S = 10.0, 60.0, 5.0
_PLAN_MAX_S = 240.0
"""A plan that takes longer is given up, and ONNX Runtime runs the model."""


def steps(records: CheckRecords, budget: TimeBudget) -> Iterator[Step]:
    """One per model that was not tried yet."""
    engines = records.target.engines
    seconds = (_MODEL_S if records.source is None else 0.0) + _SESSION_S + _PLAN_S * ("tensorrt" in engines)
    for model in records.plan.models:
        if model not in records.built():
            yield Step(f"building {model}", seconds, partial(_build, records, budget, model))


def need_models(records: CheckRecords) -> None:
    """Raises BenchmarkError where no engine took any."""
    if records.usable():
        return
    reasons = "; ".join(f"{m}: {e}: {why}" for m, built in records.built().items() for e, why in built.skipped.items())
    raise BenchmarkError(f"no model can be run here, {reasons or 'none is built: run --part build'}")


def _build(records: CheckRecords, budget: TimeBudget, model: str) -> None:
    if records.source is None:
        write(model, records.plan.scale, records.models)
    else:
        link_models(records.source, records.models, [model])
    began_s = time.monotonic()
    skipped: dict[str, str] = {}
    for engine in records.target.engines:
        why = _plan(records, budget, model) if engine == "tensorrt" else None
        # The configuration of `Target.config`, for what reads it from a repository.
        parameters = {"engine": engine, "engine_process": "own"}
        write_config(records.models / model, parameters, kind=records.target.kind)
        if (why := why or _opens(records, model, engine)) is None:
            records.keep_built(model, BuiltModel(engine, time.monotonic() - began_s, skipped))
            return
        skipped[engine] = why
    records.keep_built(model, BuiltModel(None, time.monotonic() - began_s, skipped))


def _plan(records: CheckRecords, budget: TimeBudget, model: str) -> str | None:
    """Reason why there is no plan."""
    file = records.models / model / "1" / "model.onnx"
    sizes = ",".join(map(str, records.plan.built_sizes))
    command = [sys.executable, "-m", "backend.commands.main", "build", str(file), f"--batch-sizes={sizes}"]
    left_s = budget.left_s
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=min(left_s, _PLAN_MAX_S))
    except subprocess.TimeoutExpired:
        if left_s < _PLAN_MAX_S:
            raise TimeIsOver(
                f"the time is over while a plan of '{model}' is built; run the same command again to go on"
            ) from None
        return f"the plan was not built in {_PLAN_MAX_S:.0f} s"
    said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
    return None if done.returncode == 0 else said[-1].removeprefix("isochrone: ")


def _opens(records: CheckRecords, model: str, engine: str) -> str | None:
    """Reason why the engine does not take the model."""
    try:
        open_engine(records.target.config(records.models, model, engine)).close()
    except IsochroneError as error:
        return str(error)
    return None
