"""`isochrone profile`'s measurements of each model on the device, one model at a time, kept beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from shutil import which

from backend.model_process.placement import open_engine
from backend.profiling.campaign import Hooks, run_campaign
from backend.profiling.job import Job
from backend.runtime_dir import runtime_dir
from benchmarks.gpu_check.records import CheckRecords
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.steps import Step
from benchmarks.models.profiles import unprofiled
from profiler.profile_file import NAME

_OPEN_S, _ENTRY_S = 6.0, 2.0
_COUNTERS_S = 25.0
"""Duration for one batch size where Nsight Compute reads the GPU's counters."""


def steps(records: CheckRecords, say: Callable[[str], None]) -> Iterator[Step]:
    """One per model that lacks a batch size."""
    plan = records.plan
    for model, engine in records.usable().items():
        if missing := unprofiled(records.models, [model], plan.batch_sizes):
            counting_s = _COUNTERS_S if records.target.device_id is not None and which("ncu") else 0.0
            seconds = _OPEN_S + missing * (max(_ENTRY_S, plan.profile_seconds) + counting_s)
            yield Step(f"profiling {model}", seconds, partial(_profile, records, model, engine, say))


def need_all(records: CheckRecords) -> None:
    """Raises BenchmarkError where some model has no profile."""
    if missing := [model for model in records.usable() if model not in records.profiles()]:
        raise BenchmarkError(f"there is no profile of {', '.join(missing)}: run --part profile")


def _profile(records: CheckRecords, model: str, engine: str, say: Callable[[str], None]) -> None:
    config = records.target.config(records.models, model, engine)
    inputs = records.target.inputs(records.models, model, engine)
    job = Job(config, config.model_file.with_name(NAME), records.plan.batch_sizes, open_engine, inputs)
    hooks = Hooks(lambda *_: None, lambda _: None, say)
    run_campaign([job], hooks, directory=runtime_dir(), budget_ns=round(records.plan.profile_seconds * 1e9))
    if job.error:
        raise BenchmarkError(f"model '{model}' is not profiled: {job.error}")
