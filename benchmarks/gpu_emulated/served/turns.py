"""Turns on a real tritonserver: a draw's models under one rival, started anew, with one load after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import msgspec
import numpy as np
from tritonclient import grpc as triton

from backend.engines.emulated.dilation import VARIABLE
from backend.load.arrivals import Arrival
from backend.load.generator import run_load
from backend.load.outcomes import Outcome, by_class, lateness_ms
from backend.progress_bar import StageBar
from backend.scheduler_process import scheduler_factory
from backend.server.embedded import EmbeddedServer
from benchmarks.emulated.dilated import dilated_requests
from benchmarks.gpu_emulated.drawn_gpu import DrawnGpu, drawn_gpu
from benchmarks.gpu_emulated.plan import OURS, STOCK_SERVED, TWO_CLASSES, Served
from benchmarks.gpu_emulated.requests import request_plan
from benchmarks.gpu_emulated.served.repository import INPUT, ROW_IN, write_ours, write_stock
from benchmarks.harness.cpu_steal import CpuStealWatch
from benchmarks.harness.deadlines_kept import DeadlinesKept
from benchmarks.harness.loads import expect_answers
from benchmarks.harness.servers import temporary_server
from benchmarks.harness.steps import Step
from benchmarks.rivals import NAME_VARIABLE

SERVED = "served"
_START_S = 9.0
_TIMEOUT_S = 120.0
"""Of a request: what waits long misses its deadline, as in virtual time, and does not fail."""


class LoadKept(DeadlinesKept, msgspec.Struct, frozen=True):
    """Requests and deadlines kept at one load, by class. seconds: counted, of the device's time; failed: requests."""

    load: float
    seconds: float
    requests: dict[str, int]
    met: dict[str, int]
    failed: int = 0


class Turn(msgspec.Struct, frozen=True):
    """One rival, all loads, once. lost: share of the CPU that the host took; late_ms: p99 of how late requests left, in
    real time.
    """

    rival: str
    repeat: int
    loads: list[LoadKept]
    lost: float = 0.0
    late_ms: float = 0.0


def turns(served: Served) -> list[tuple[str, int]]:
    """Rival and repeat of each turn, in order: all rivals before the next repeat, another one first each time."""
    names = served.rivals
    return [(names[(i + repeat) % len(names)], repeat) for repeat in range(served.repeats) for i in range(len(names))]


class TurnRecords(Protocol):
    """Records of a plan's turns."""

    @property
    def served(self) -> Served: ...

    def has(self, name: str) -> bool: ...

    def keep(self, name: str, record: object) -> None: ...


def turn_file(rival: str, repeat: int) -> str:
    """Name of a turn's record in the folder."""
    return f"{SERVED}/{rival.replace(', ', '-').replace(' ', '-')}-{repeat}.json"


def steps(records: TurnRecords, bar: StageBar) -> Iterator[Step]:
    """One per turn that is missing; nothing else may run meanwhile."""
    served = records.served
    seconds = _START_S + served.dilation * served.turn_seconds
    for rival, repeat in turns(served):
        if not records.has(turn_file(rival, repeat)):
            yield Step(
                f"{rival} on a server, emulated, repeat {repeat + 1}",
                seconds,
                partial(_take, records, rival, repeat, bar),
            )


def _take(records: TurnRecords, rival: str, repeat: int, bar: StageBar) -> None:
    records.keep(turn_file(rival, repeat), take_turn(records.served, rival, repeat, bar))


def take_turn(served: Served, rival: str, repeat: int, bar: StageBar) -> Turn:
    """Start the server, send every load. Raises IsochroneError, also where all requests fail."""
    drawn = drawn_gpu(served.draw, TWO_CLASSES.models)
    plan = dilated_requests(turn_plan(drawn, served, repeat), served.dilation)
    with _running(drawn, served, rival) as server, CpuStealWatch() as watch:
        payloads = {model.name: [_payload()] for model in drawn.models}
        outcomes = expect_answers(
            run_load(server.grpc_url, plan, payloads, timeout_s=_TIMEOUT_S, on_progress=bar.advance)
        )
    return Turn(rival, repeat, loads_kept(served, outcomes), watch.found.lost, lateness_ms(outcomes))


def turn_plan(drawn: DrawnGpu, served: Served, repeat: int) -> list[Arrival]:
    """Requests of a turn in the device's time, one load after the other, the same for each rival."""
    each_s = served.warm_s + served.seconds
    return [
        Arrival(i * each_s + a.at_s, a.model, a.slo_ms, a.priority)
        for i, load in enumerate(served.loads)
        for a in request_plan(drawn, TWO_CLASSES, load, each_s, 1000 * repeat + served.draw)
    ]


def loads_kept(served: Served, outcomes: Sequence[Outcome]) -> list[LoadKept]:
    """Deadlines kept at each load. outcomes: in real time."""
    found, each_s = [], served.warm_s + served.seconds
    for i, load in enumerate(served.loads):
        from_s, until_s = (served.dilation * (i * each_s + s) for s in (served.warm_s, each_s))
        counted = [o for o in outcomes if from_s <= o.intended_s < until_s]
        classes = by_class(counted, served.seconds)
        requests = {c: s.requests for c, s in classes.items()}
        met = {c: s.met for c, s in classes.items()}
        found.append(LoadKept(load, served.seconds, requests, met, sum(o.status == "failed" for o in counted)))
    return found


@contextmanager
def _running(drawn: DrawnGpu, served: Served, rival: str) -> Iterator[EmbeddedServer]:
    """Serve a draw under a rival: stock Triton, or another scheduler in this backend."""
    env = {VARIABLE: f"{served.dilation:g}"}
    if rival == STOCK_SERVED:
        write = partial(write_stock, drawn)
    else:
        write = partial(write_ours, drawn, served.dilation, served.lanes)
        if rival != OURS:
            env |= {scheduler_factory.VARIABLE: "benchmarks.rivals:scheduler_by_name", NAME_VARIABLE: rival}
    with temporary_server(write, env=env) as server:
        yield server


def _payload() -> Any:
    tensor = triton.InferInput(INPUT, (1, ROW_IN), "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, ROW_IN), np.uint8))
    return tensor
