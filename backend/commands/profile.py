"""`isochrone profile` from its options to its exit code: 0 all measured, 1 some model failed, 130 interrupted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from backend.config.model_config import ModelConfig
from backend.engines.protocol import Engine
from backend.errors import ConfigError
from backend.model_process.load_profile import Inputs, inputs_of
from backend.model_process.placement import open_engine
from backend.profiling import report
from backend.profiling.campaign import Hooks, run_campaign
from backend.profiling.given_inputs import GivenInputs
from backend.profiling.job import Job, check_batch_sizes
from backend.profiling.repository import ModelVersion, find_versions, served_model
from backend.progress_bar import console
from backend.runtime_dir import runtime_dir
from backend.trial.messages import Trial
from profiler.brief import batch_sizes
from profiler.profile_file import NAME

BUDGET_S = 8.0
INTERRUPTED = 130


@dataclass(frozen=True)
class ProfileOptions:
    """batch_sizes: as the user wrote them, none: powers of two up to max_batch_size. seconds: per entry at most.

    inputs: a file of arrays, by input, of one request of the one model that is profiled.
    """

    model_repository: Path
    models: tuple[str, ...] = ()
    batch_sizes: str | None = None
    json: Path | None = None
    again: bool = False
    seconds: float = BUDGET_S
    inputs: Path | None = None


def profile(options: ProfileOptions, open_model: Callable[[ModelConfig], Engine] = open_engine) -> int:
    """Returns the exit code. Raises ConfigError on wrong options, before anything is measured."""
    began_s = time.monotonic()
    sizes = read_batch_sizes(options.batch_sizes)
    if not 0 < options.seconds <= 3600:
        raise ConfigError(f"--seconds {options.seconds:g} must be above 0 and at most 3600")
    _check_json(options.json)
    given = None
    if options.inputs is not None:
        if len(options.models) != 1:
            raise ConfigError(f"--inputs {options.inputs} are of one model; name it with --model")
        given = GivenInputs(options.inputs)
    versions, failed = find_versions(options.model_repository, options.models)
    jobs = _jobs(versions, sizes, failed, given, open_model)
    out = console()
    interrupted = _measure(jobs, options, out)
    if any(job.file and job.file.entries for job in jobs):
        out.print(report.table(jobs))
        out.print(report.features_sentence(jobs), highlight=False, soft_wrap=True)
    wall_s = time.monotonic() - began_s
    _summarize(jobs, failed, out, wall_s, interrupted)
    if options.json:
        _write_json(options.json, report.as_json(jobs, failed, wall_s=wall_s, interrupted=interrupted))
    if interrupted:
        return INTERRUPTED
    return 1 if failed or any(job.error for job in jobs) else 0


def read_batch_sizes(text: str | None) -> tuple[int, ...]:
    """From "1,2,4"; empty where none are given. Raises ConfigError."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdecimal()) or len(part) > 9 or int(part) < 1:
            raise ConfigError(f"--batch-sizes {text!r} must be whole numbers from 1 with commas between, such as 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def _jobs(
    versions: list[ModelVersion],
    sizes: tuple[int, ...],
    failed: dict[str, str],
    given: GivenInputs | None,
    open_model: Callable[[ModelConfig], Engine],
) -> list[Job]:
    """One per version that can be read; the others go to `failed`."""
    jobs = []
    for version in versions:
        path = version.directory / NAME
        try:
            config, trial = served_model(version)
            inputs = _inputs(config, trial, given)
            if not os.access(version.directory, os.W_OK):
                raise ConfigError(f"'{path}' cannot be written: the directory does not permit it")
        except ConfigError as error:
            failed[version.model] = str(error)
            continue
        check_batch_sizes(config, sizes)  # a wrong option ends the command, where a broken model does not
        own = sizes or tuple(batch_sizes(max(1, config.max_batch_size)))
        jobs.append(Job(config, path, own, open_model, inputs))
    return jobs


def _inputs(config: ModelConfig, trial: Trial, given: GivenInputs | None) -> Inputs:
    """Inputs to measure with. Raises ConfigError where none is known to run."""
    if given is not None:
        return given.of(config)
    inputs = inputs_of(config, trial)
    if inputs is None:
        raise ConfigError(
            f"{trial.why}; name inputs that run with model_warmup in config.pbtxt, or give --inputs FILE.npz"
        )
    return inputs


def _measure(jobs: list[Job], options: ProfileOptions, out: Console) -> bool:
    """Returns whether it was interrupted."""
    try:
        with report.Bar(out) as bar:
            run_campaign(
                jobs,
                Hooks(bar.entry, bar.advance, bar.say),
                directory=runtime_dir(),
                budget_ns=round(options.seconds * 1e9),
                again=options.again,
            )
    except KeyboardInterrupt:
        return True
    return False


def _summarize(jobs: list[Job], failed: Mapping[str, str], out: Console, wall_s: float, interrupted: bool) -> None:
    errors = {**failed, **{job.name: job.error for job in jobs if job.error}}
    for name, error in errors.items():
        out.print(f"isochrone: model '{name}' is not profiled: {error}", highlight=False, soft_wrap=True, markup=False)
    asked = sum(len(job.batch_sizes) for job in jobs)
    measured = sum(len(job.measured) for job in jobs)
    missing = sum(len(job.missing) if job.file else len(job.batch_sizes) for job in jobs)
    sentence = (
        f"{measured} of {asked} entries measured in {wall_s:.0f} s, {asked - measured - missing} kept as they were"
    )
    if interrupted:
        sentence += f"; interrupted with {missing} missing, run the same command again to go on"
    out.print(sentence, highlight=False, soft_wrap=True)


def _check_json(path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ConfigError(f"--json {path} cannot be written: it must name a file in a folder that can be written to")


def _write_json(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error.strerror}") from None
