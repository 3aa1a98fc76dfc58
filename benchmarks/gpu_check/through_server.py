"""The same comparison through a stock tritonserver, where one is installed: as a client sees it, with transport."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from backend.engines.tensorrt.plan_facts import facts_path
from backend.errors import ServerError
from backend.load.arrivals import Traffic, poisson
from backend.load.outcomes import MeasuredLoad, Outcome, first_error
from backend.scheduler_process import sample_log
from backend.server.embedded import EmbeddedServer
from backend.server.locate import locate
from benchmarks.gpu_check.loads import seconds_of, traffic
from benchmarks.gpu_check.records import AWARE, IN_ORDER, SERVER, CheckRecords, OrderTurn
from benchmarks.harness.command import outlive_servers
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.model_repository import short_temporary_folder, write_configs
from benchmarks.harness.steps import Step
from profiler.profile_file import NAME

RATE_MAX_PER_S = 500.0
"""Of all models; beyond it the Python client would be what is measured."""
_START_S, _READY_S = 40.0, 180.0


def missing() -> str | None:
    """Why nothing can go through a server here; None where it can."""
    if find_spec("tritonclient") is None:
        return "tritonclient is not installed"
    try:
        locate()
    except ServerError as error:
        return str(error)
    return None


def steps(
    records: CheckRecords, on_stage: Callable[[str, float], None], on_progress: Callable[[float], None]
) -> Iterator[Step]:
    """One per turn that is missing."""
    plan = records.plan
    seconds = _START_S + plan.warm_up_seconds + len(plan.loads) * plan.seconds
    for target in (IN_ORDER, AWARE):
        if records.turn(SERVER, plan.server_lanes, target) is None:
            take = partial(_take, records, target, on_progress)
            yield Step(f"{target}, through tritonserver", seconds, partial(outlive_servers, take, on_stage))


def _take(records: CheckRecords, target: str, on_progress: Callable[[float], None]) -> None:
    from backend.load.generator import run_load  # noqa: PLC0415 - needs tritonclient, an extra
    from benchmarks.harness.payloads import payload  # noqa: PLC0415 - likewise

    plan, profiles, clocks = records.plan, records.profiles(), [records.target.clocks()]
    payloads = {m: payload(records.models / m / "1" / "model.onnx", plan.seed) for m in profiles}
    rates, measured = [], []

    def load(asked: tuple[Traffic, ...], seconds: float, seed: int) -> list[Outcome]:
        outcomes = run_load(server.grpc_url, poisson(asked, seconds, seed), payloads, on_progress=on_progress)
        if outcomes and all(o.status == "failed" for o in outcomes):
            raise BenchmarkError(f"every request failed; the first was told: {first_error(outcomes)}")
        return outcomes

    with _server(records, target) as server:
        load(_bounded(traffic(profiles, plan.loads[0])), plan.warm_up_seconds, 10_000)
        for i, factor in enumerate(plan.loads):
            asked = _bounded(traffic(profiles, factor))
            rates.append(sum(t.rate_per_s for t in asked))
            seconds = seconds_of(rates[-1], plan.seconds, plan.requests)
            outcomes = load(asked, seconds, plan.seed + i)
            measured.append(MeasuredLoad(f"tritonserver, {target}", factor, 0, seconds, outcomes))
    clocks.append(records.target.clocks())
    records.keep_turn(OrderTurn(SERVER, plan.server_lanes, target, rates, clocks, measured))


def _bounded(asked: tuple[Traffic, ...]) -> tuple[Traffic, ...]:
    factor = min(1.0, RATE_MAX_PER_S / sum(t.rate_per_s for t in asked))
    return tuple(replace(t, rate_per_s=t.rate_per_s * factor) for t in asked)


@contextmanager
def _server(records: CheckRecords, target: str) -> Iterator[EmbeddedServer]:
    folder, samples = short_temporary_folder(), records.turn_samples(SERVER, records.plan.server_lanes, target)
    samples.parent.mkdir(parents=True, exist_ok=True)
    samples.unlink(missing_ok=True)
    try:
        _link(records, folder)
        aware = "true" if target == AWARE else "false"
        parameters = {
            "interference_aware": aware,
            "on_miss": "reject",
            "device_lanes": str(records.plan.server_lanes),
        }
        write_configs(folder, parameters, kind=records.target.kind)
        env = {sample_log.VARIABLE: str(samples.absolute())}
        with EmbeddedServer(folder, env=env, ready_timeout_s=_READY_S) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(records: CheckRecords, repository: Path) -> None:
    """Only the file that the model's engine takes, so that it is the one that is served."""
    for model, engine in records.usable().items():
        file = records.target.config(records.models, model, engine).model_file
        version = repository / model / "1"
        version.mkdir(parents=True)
        for path in (file, facts_path(file), file.with_name(NAME)):
            if path.is_file():
                (version / path.name).symlink_to(path.resolve())
