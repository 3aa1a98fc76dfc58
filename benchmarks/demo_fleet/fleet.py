"""The demo's fleet: three tritonservers with an EMULATED GPU each, and two Envoys before them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backend.commands.emulate import CONFIG
from backend.engines.emulated.catalogue import emulated_model, solo_runs
from backend.engines.emulated.dilation import VARIABLE as DILATION
from backend.engines.emulated.spec import NAME
from backend.load.arrivals import Traffic
from backend.route_process.embedded_route import EmbeddedRoute
from backend.route_process.endpoints_file import Server
from backend.scheduler_process.state_address import VARIABLE as STATE_ADDRESS
from backend.server.embedded import EmbeddedServer
from backend.server.paths import short_temporary_folder
from backend.server.ports import free_ports
from benchmarks.harness.servers import READY_TIMEOUT_S

GPUS = ("a100", "v100", "t4")
MODELS = (
    *("bert-base", "bert-dist6l", "bert-large", "densenet121", "inceptionv3", "mobilenetv2"),
    *("resnet50", "resnet50-pytorch", "resnet101", "resnet152", "vgg16", "vgg19"),
)
LEAST_REQUEST, ROUTER = "least request", "router"
SIDE = 64
"""Pixels of an image's side, in the place of 224: the demo moves its tensors over two cores."""
SLO_FACTOR = 4.0
"""Deadlines over the latency alone on the V100."""


def traffic(load: float, dilation: float) -> tuple[Traffic, ...]:
    """All models at one rate, of classes 1 and 2 by turns. load: of what batches of one would take on all GPUs.

    dilation: by which everything is slower.
    """
    per_s = 0.0
    for gpu in GPUS:
        busy_us = [run.solo_us * run.busy_share for run in (solo_runs(gpu, model)[1] for model in MODELS)]
        per_s += 1e6 * len(MODELS) / sum(busy_us)
    rate_per_s = load * per_s / len(MODELS) / dilation
    return tuple(
        Traffic(
            model, rate_per_s, round(SLO_FACTOR * solo_runs("v100", model)[1].solo_us / 1e3 * dilation, 1), i % 2 + 1
        )
        for i, model in enumerate(MODELS)
    )


def write_models(gpu: str, repository: Path, seed: int) -> None:
    """Write one server's models. Requests that would miss their deadlines are rejected."""
    config = CONFIG + 'parameters { key: "on_miss" value { string_value: "reject" } }\n'
    for model in MODELS:
        content = emulated_model([gpu], model, seed)
        for tensor in content["inputs"]:
            if len(tensor["shape"]) == 3:
                tensor["shape"] = [3, SIDE, SIDE]
        file = repository / model / "1" / NAME
        file.parent.mkdir(parents=True)
        (repository / model / "config.pbtxt").write_text(config)
        file.write_text(json.dumps(content))


@contextmanager
def fleet(dilation: float, seed: int) -> Iterator[dict[str, str]]:
    """Run it; yields the gRPC address of each Envoy, by what balances there. Nothing of it is left after."""
    folder = short_temporary_folder()
    states = free_ports(len(GPUS))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        servers = []
        for gpu, state in zip(GPUS, states, strict=True):
            write_models(gpu, folder / gpu, seed)
            env = {DILATION: f"{dilation:g}", STATE_ADDRESS: f"127.0.0.1:{state}"}
            servers.append(EmbeddedServer(folder / gpu, env=env, ready_timeout_s=READY_TIMEOUT_S))
            stack.callback(servers[-1].stop)
        _start(servers)
        endpoints = [
            Server(gpu, server.http_url, server.grpc_url, (f"127.0.0.1:{state}",))
            for gpu, server, state in zip(GPUS, servers, states, strict=True)
        ]
        alone = stack.enter_context(EmbeddedRoute(endpoints, with_router=False))
        routed = stack.enter_context(EmbeddedRoute(endpoints))
        yield {LEAST_REQUEST: alone.grpc_url, ROUTER: routed.grpc_url}


def _start(servers: Sequence[EmbeddedServer]) -> None:
    """Start all at once. Raises the first one's error."""
    errors: list[BaseException] = []

    def start(server: EmbeddedServer) -> None:
        try:
            server.start()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
