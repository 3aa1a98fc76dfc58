"""The same comparison through a stock tritonserver, where one is installed: as a client sees it, with transport."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from backend.engines.tensorrt.plan_facts import facts_path
from backend.errors import ServerError
from backend.load.arrivals import Arrival
from backend.load.outcomes import Outcome
from backend.progress_bar import StageBar
from backend.scheduler_process import sample_log
from backend.server.locate import locate
from benchmarks.gpu_check.order_turns import take_turn
from benchmarks.gpu_check.records import AWARE, IN_ORDER, SERVER, CheckRecords
from benchmarks.harness.servers import temporary_server
from benchmarks.harness.steps import Step
from benchmarks.models.model_repository import link_files, model_files, write_configs
from profiler.profile_file import NAME

RATE_MAX_PER_S = 500.0
"""Rate of all models together; beyond it the Python client would be what is measured."""
_START_S = 40.0


def missing() -> str | None:
    """Reason why nothing can go through a server here; None where it can."""
    if find_spec("tritonclient") is None:
        return "tritonclient is not installed"
    try:
        locate()
    except ServerError as error:
        return str(error)
    return None


def steps(records: CheckRecords, bar: StageBar) -> Iterator[Step]:
    """One per turn that is missing."""
    plan = records.plan
    seconds = _START_S + plan.warm_up_seconds + len(plan.loads) * plan.seconds
    for order in (IN_ORDER, AWARE):
        if records.turn(SERVER, plan.server_lanes, order) is None:
            yield Step(f"{order}, through tritonserver", seconds, partial(_take, records, order, bar))


def _take(records: CheckRecords, order: str, bar: StageBar) -> None:
    from backend.load.generator import run_load  # noqa: PLC0415 - needs tritonclient, an extra
    from benchmarks.harness.payloads import payloads  # noqa: PLC0415 - likewise

    requests = payloads(model_files(records.models, records.profiles()), records.plan.seed)
    lanes = records.plan.server_lanes
    samples = records.turn_samples(SERVER, lanes, order)
    samples.parent.mkdir(parents=True, exist_ok=True)
    samples.unlink(missing_ok=True)

    def send(arrivals: Sequence[Arrival], _recorded: bool) -> list[Outcome]:
        return run_load(server.grpc_url, arrivals, requests, on_progress=bar.advance)

    with temporary_server(
        partial(_write, records, order), env={sample_log.VARIABLE: str(samples.absolute())}
    ) as server:
        turn = take_turn(records, SERVER, lanes, order, send, RATE_MAX_PER_S)
    records.keep_turn(turn)


def _write(records: CheckRecords, order: str, repository: Path) -> None:
    """Links only the file that the model's engine takes, so that it is the one that is served."""
    for model, engine in records.usable().items():
        file = records.target.config(records.models, model, engine).model_file
        link_files(repository / model / "1", filter(Path.is_file, (file, facts_path(file), file.with_name(NAME))))
    aware = "true" if order == AWARE else "false"
    parameters = {"interference_aware": aware, "on_miss": "reject", "device_lanes": str(records.plan.server_lanes)}
    write_configs(repository, parameters, kind=records.target.kind)
