"""One workload on an emulated GPU, in virtual time and through a real tritonserver with dilated time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from backend.engines.emulated.dilation import VARIABLE
from backend.engines.emulated.spec import EmulatedSpec, read_spec
from backend.load.arrivals import Arrival, Traffic, poisson
from backend.load.generator import run_load
from backend.load.outcomes import Outcome, summarise
from backend.scheduler.core import Scheduler
from backend.server.embedded import EmbeddedServer
from backend.simulation.gpu_law import KernelDemand
from backend.simulation.simulator import SimulatedModel, simulate
from benchmarks.emulated.dilated import dilated_gpu, dilated_profile, dilated_requests
from tests.fakes.emulated import spec, write_spec

DEVICE = "emulated-dilated-0"
DILATION = 10.0
LANES = 4
SIMULATIONS = 5
CONFIG = f"""backend: "isochrone"
instance_group [{{ kind: KIND_CPU }}]
parameters {{ key: "device_lanes" value {{ string_value: "{LANES}" }} }}
parameters {{ key: "on_miss" value {{ string_value: "reject" }} }}
"""


class Model(NamedTuple):
    """An emulated model: solo latency of a row, u, w, and its objective in solo latencies."""

    name: str
    solo_us: float
    busy_share: float
    work: float
    slo: float

    def traffic(self, load: float, models: int) -> Traffic:
        """An equal part of a load of which 1 would keep the GPU busy with batches of one row."""
        rate_per_s = load / models / (self.solo_us * self.busy_share / 1e6)
        return Traffic(self.name, rate_per_s, self.slo * self.solo_us / 1e3)


MODELS = (
    Model("light", 4000, 0.5, 0.5, 4.0),
    Model("middle", 8000, 0.7, 1.0, 6.0),
    Model("heavy", 12000, 0.9, 2.0, 8.0),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for model in MODELS:
        content = spec(DEVICE, model.solo_us, seed=5)
        for batch in content["batches"]:
            batch |= {"busy_share": model.busy_share, "work_per_kernel": model.work * batch["batch_size"] ** 0.7}
        write_spec(folder, model.name, content, CONFIG)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, env={VARIABLE: f"{DILATION:g}"}) as server:
        yield server
    assert server.stop() == 0


def plan(loads: Sequence[float], seconds: float, seed: int) -> list[Arrival]:
    """Arrivals in real time: one load after the other, each for so many seconds of the device's time."""
    return dilated_requests(
        (
            replace(one, at_s=i * seconds + one.at_s)
            for i, load in enumerate(loads)
            for one in poisson([model.traffic(load, len(MODELS)) for model in MODELS], seconds, seed + i)
        ),
        DILATION,
    )


@pytest.fixture(scope="module")
def overhead_ns(server: EmbeddedServer, repository: Path) -> int:
    """Real time of a request beside the device's, measured: processes and messages, which the simulator has not."""
    found = specs(repository)["light"]
    device_ns = found.demand("light", 1)[0] + 2 * found.device.copy_engines.latency_ns
    overheads_ns = []
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        for _ in range(21):
            began_ns = time.perf_counter_ns()
            client.infer("light", payload())
            overheads_ns.append(time.perf_counter_ns() - began_ns - DILATION * device_ns)
    return max(0, round(float(np.median(overheads_ns))))


def payload() -> list[triton_grpc.InferInput]:
    x = triton_grpc.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.ones((1, 4), np.float32))
    return [x]


def specs(repository: Path) -> dict[str, EmulatedSpec]:
    return {model.name: read_spec(repository / model.name / "1" / "model.emulated.json") for model in MODELS}


def on_the_server(server: EmbeddedServer, arrivals: Sequence[Arrival]) -> list[Outcome]:
    return run_load(server.grpc_url, arrivals, {model.name: payload() for model in MODELS})


def in_virtual_time(repository: Path, arrivals: Sequence[Arrival], overhead_ns: int, seed: int) -> list[Outcome]:
    """As the server has it, in real time: a device of which everything takes `DILATION` times as long.

    seed: of what is left to chance beside the pairs' factors.
    """
    found = specs(repository)

    def demands(model: str, rows: int) -> tuple[float, KernelDemand]:
        return found[model].demand(model, rows)

    device = found["light"].device
    models = [
        SimulatedModel(name, dilated_profile(one.profile, DILATION), 4, rejects=True, bytes_in=16, bytes_out=8)
        for name, one in found.items()
    ]
    gpu = dilated_gpu(device.law, device.copy_engines, demands, DILATION, Random(seed))
    return simulate(models, arrivals, Scheduler(LANES), gpu, overhead_ns).outcomes()


def met_shares(outcomes: Sequence[Outcome], loads: Sequence[float], seconds: float) -> list[float]:
    """Points of deadlines kept at each load."""
    part_s = seconds * DILATION
    parts = [[o for o in outcomes if i * part_s <= o.intended_s < (i + 1) * part_s] for i in range(len(loads))]
    return [100 * summarise(part, part_s).met_share for part in parts]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("loads", "seconds", "points"),
    [((1.0,), 0.7, 8.0), pytest.param((0.5, 0.75, 1.0, 1.25, 1.5), 4.0, 4.0, marks=pytest.mark.slow)],
    ids=["one load", "five loads"],
)
def test_deadlines_kept_in_virtual_time_are_those_of_the_real_server(
    server: EmbeddedServer, repository: Path, overhead_ns: int, loads: tuple[float, ...], seconds: float, points: float
) -> None:
    """points: of deadlines, by which they may differ; a short run of some 180 requests has a standard error of 2.4."""
    arrivals = plan(loads, seconds, seed=1)
    outcomes = on_the_server(server, arrivals)
    served = met_shares(outcomes, loads, seconds)
    simulated = np.mean(
        [
            met_shares(in_virtual_time(repository, arrivals, overhead_ns, seed), loads, seconds)
            for seed in range(SIMULATIONS)
        ],
        axis=0,
    )
    assert not [outcome.error for outcome in outcomes if outcome.status == "failed"]
    assert served == pytest.approx(simulated.tolist(), abs=points)
