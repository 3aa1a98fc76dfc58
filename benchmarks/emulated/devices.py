"""`python -m benchmarks.emulated.devices`: models on several emulated GPUs of a server, and who picks a request's GPU.

EMULATED: nothing is computed. On a real server with dilated time: *predicted*, one model on all GPUs whose instance
picks the GPU; *by turns*, as Triton hands requests to instances on several GPUs; *by speed*, in turns of as many
requests as each GPU has capacity for. For the latter two each GPU has models of its own, between which the client
picks. All go through the same scheduler on each GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import typer
from tritonclient import grpc as triton
from tritonclient.utils import np_to_triton_dtype

from backend.commands.emulate import CONFIG
from backend.engines.emulated.catalogue import solo_runs
from backend.engines.emulated.dilation import VARIABLE
from backend.engines.emulated.spec import NAME
from backend.load.arrivals import Arrival, Traffic, poisson
from backend.load.generator import run_load
from backend.load.outcomes import Outcome, summarise
from backend.server.embedded import EmbeddedServer
from benchmarks.emulated.virtual_devices import (
    MODELS,
    PREDICTED,
    SPEED,
    TURNS,
    in_virtual_time,
    model_content,
    on_gpu,
    picked,
)
from benchmarks.harness.command import one_sentence_errors
from benchmarks.harness.loads import expect_answers
from benchmarks.harness.servers import temporary_server

SLO_FACTOR = 4.0
"""Deadlines over the latency alone on the slowest GPU, so that each can keep them."""
CAPACITY_ROWS = 4
WARM_S = 8.0
"""Beginning of each load that is not counted: latencies are learned there."""


def write_models(repository: Path, gpus: Sequence[str], names: Mapping[str, str]) -> None:
    """Write models on all of these GPUs. names: folder of each model."""
    for model, name in names.items():
        content = model_content(gpus, model)
        file = repository / name / "1" / NAME
        file.parent.mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(CONFIG)
        file.write_text(json.dumps(content))


def traffic(gpus: Sequence[str], rate_per_s: float, dilation: float) -> list[Traffic]:
    """Equal rates of all models, in real time."""
    slowest_us = {model: max(solo_runs(gpu, model)[1].solo_us for gpu in gpus) for model in MODELS}
    return [
        Traffic(model, rate_per_s / len(MODELS), SLO_FACTOR * slowest_us[model] / 1e3 * dilation) for model in MODELS
    ]


@contextmanager
def _server(groups: Sequence[tuple[Sequence[str], Mapping[str, str]]], dilation: float) -> Iterator[EmbeddedServer]:
    def write(repository: Path) -> None:
        for gpus, names in groups:
            write_models(repository, gpus, names)

    with temporary_server(write, env={VARIABLE: f"{dilation:g}"}) as server:
        yield server


def _payloads(server: EmbeddedServer, names: Sequence[str]) -> dict[str, list[Any]]:
    found = {}
    for name in names:
        with triton.InferenceServerClient(server.grpc_url) as client:
            declared = client.get_model_metadata(name).inputs[0]
        array = np.zeros((1, *[int(size) for size in declared.shape[1:]]), np.int64)
        found[name] = [triton.InferInput(declared.name, array.shape, np_to_triton_dtype(array.dtype))]
        found[name][0].set_data_from_numpy(array)
    return found


def _outcomes(server: EmbeddedServer, plan: Sequence[Arrival]) -> list[Outcome]:
    payloads = _payloads(server, sorted({arrival.model for arrival in plan}))
    return expect_answers(run_load(server.grpc_url, plan, payloads))


def capacity_per_s(gpu: str) -> float:
    """Requests a second that a GPU serves in its own time, equal numbers of each model, in batches of `CAPACITY_ROWS`
    one after the other.
    """
    return 1e6 / mean(solo_runs(gpu, model)[CAPACITY_ROWS].solo_us / CAPACITY_ROWS for model in MODELS)


def main(
    gpus: Annotated[str, typer.Option(help="Of a100, v100, t4 and l4, each once.")] = "a100,t4",
    load: Annotated[float, typer.Option(help="Share of the GPUs' capacity, in batches of 4.")] = 0.9,
    repeats: Annotated[int, typer.Option(min=1, help="Of all, with other arrivals each.")] = 3,
    seconds: Annotated[float, typer.Option(help="Counted, of each load, in real time.")] = 30.0,
    dilation: Annotated[float, typer.Option(help="Real time per time of the GPUs.")] = 10.0,
    virtual: Annotated[bool, typer.Option(help="In virtual time, with the same scheduler and choice.")] = False,
) -> None:
    """Measure deadlines kept by who picks the GPU. EMULATED."""
    with one_sentence_errors("benchmarks.emulated.devices", kept="nothing is kept"):
        names = [gpu.strip() for gpu in gpus.split(",")]
        rates = {gpu: capacity_per_s(gpu) for gpu in names}
        print("capacity: " + ", ".join(f"emulated {gpu} {rate:.0f}/s" for gpu, rate in rates.items()))
        shares: dict[str, list[float]] = {}
        for repeat in range(repeats):
            asked = traffic(names, load * sum(rates.values()) / dilation, dilation)
            plan = poisson(asked, WARM_S + seconds, repeat)
            measured = in_virtual_time(rates, plan, dilation) if virtual else _on_servers(rates, plan, dilation)
            for who, outcomes in measured:
                summary = summarise([o for o in outcomes if o.intended_s >= WARM_S], seconds)
                shares.setdefault(who, []).append(summary.met_share)
                print(
                    f"repeat {repeat + 1}, {who:9s}: {100 * summary.met_share:5.1f} % of {summary.requests} deadlines, "
                    f"p99 {summary.p99_ms / dilation:.1f} ms of the GPUs' time, {summary.failed} failed",
                    flush=True,
                )
        for who, each in shares.items():
            print(f"{who:9s}: {100 * mean(each):5.1f} % ({100 * min(each):.1f} to {100 * max(each):.1f})")


def _on_servers(
    rates: Mapping[str, float], plan: Sequence[Arrival], dilation: float
) -> Iterator[tuple[str, list[Outcome]]]:
    gpus = tuple(rates)
    with _server([([gpu], on_gpu(gpu)) for gpu in gpus], dilation) as server:
        yield TURNS, _outcomes(server, picked(plan, dict.fromkeys(gpus, 1.0)))
        yield SPEED, _outcomes(server, picked(plan, rates))
    with _server([(gpus, {model: model for model in MODELS})], dilation) as server:
        yield PREDICTED, _outcomes(server, plan)


if __name__ == "__main__":
    typer.run(main)
