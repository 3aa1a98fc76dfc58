"""Cost of the router: latency of one request at a time beside Envoy by least request, and CPU time per request.

The model is emulated and takes half a millisecond, so that what is between client and server is most of the time. The
ways take turns, a block of requests each, so that the machine's drift hits all alike.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http

from backend.commands.emulate import CONFIG
from backend.load.arrivals import Traffic, poisson
from backend.load.generator import run_load
from backend.progress_bar import console
from backend.route_process.embedded_route import EmbeddedRoute
from backend.route_process.endpoints_file import Server
from backend.scheduler_process.state_address import VARIABLE as STATE_ADDRESS
from backend.server.ports import free_ports
from benchmarks.harness.command import interrupt_on_term, one_sentence_errors
from benchmarks.harness.servers import temporary_server

SIZES = {"64 B": 16, "196 kB": 49_000, "602 kB": 150_528}
"""Values of an FP32 input."""
DIRECT, ALONE, ROUTED, NAMED = "direct", "Envoy, least request", "Envoy and router", "with x-isochrone-model"
_BLOCK = 50
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def routes() -> Iterator[tuple[dict[str, Any], dict[str, EmbeddedRoute]]]:
    """Two servers, yielded as the addresses of one, and both Envoys."""
    with ExitStack() as stack:
        endpoints = []
        for i, state in enumerate(free_ports(2)):
            env = {STATE_ADDRESS: f"127.0.0.1:{state}"}
            server = stack.enter_context(temporary_server(partial(_write, i), env=env))
            endpoints.append(Server(f"server-{i}", server.http_url, server.grpc_url, (f"127.0.0.1:{state}",)))
        alone = stack.enter_context(EmbeddedRoute(endpoints, with_router=False))
        routed = stack.enter_context(EmbeddedRoute(endpoints))
        _wait_until_known(routed, len(endpoints))
        yield {"grpc": endpoints[0].grpc, "http": endpoints[0].http}, {ALONE: alone, ROUTED: routed}


def _write(number: int, folder: Path) -> None:
    for name, values in SIZES.items():
        spec = {
            "schema": 1,
            "device": {"name": f"emulated-cost{number}-0", "pair_sd": 0.0},
            "max_batch_size": 1,
            "inputs": [{"name": "x", "datatype": "TYPE_FP32", "shape": [values]}],
            "outputs": [{"name": "y", "datatype": "TYPE_FP32", "shape": [2]}],
            "batches": [
                {
                    "batch_size": 1,
                    "solo_us": 500,
                    "busy_share": 0.5,
                    "work_per_kernel": 1.0,
                    "features": {"compute": 0.1, "l2": 0.1, "dram": 0.1},
                }
            ],
            "source": "made up",
        }
        file = folder / model_of(name) / "1" / "model.emulated.json"
        file.parent.mkdir(parents=True)
        (file.parent.parent / "config.pbtxt").write_text(CONFIG)
        file.write_text(json.dumps(spec))


def model_of(size: str) -> str:
    """Name of the model with inputs of this size."""
    return f"of_{size.replace(' ', '_')}"


def _wait_until_known(route: EmbeddedRoute, endpoints: int) -> None:
    deadline = time.monotonic() + 30.0
    while route.router_says("/metrics")[1].count("} 1.0\n") < endpoints and time.monotonic() < deadline:
        time.sleep(0.1)


def latencies_ms(client: Any, module: Any, size: str, count: int, headers: dict[str, str]) -> list[float]:
    """One request at a time."""
    x = module.InferInput("x", [1, SIZES[size]], "FP32")
    x.set_data_from_numpy(np.ones((1, SIZES[size]), np.float32))
    found = []
    for _ in range(count):
        began = time.perf_counter()
        client.infer(model_of(size), [x], headers=headers)
        found.append((time.perf_counter() - began) * 1e3)
    return found


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@app.command()
def route_cost(
    blocks: Annotated[int, typer.Option(min=1, help=f"Of {_BLOCK} requests, for each way.")] = 20,
    rate: Annotated[float, typer.Option(min=1, help="Requests per second of the load whose CPU time is told.")] = 300.0,
    seconds: Annotated[float, typer.Option(min=1, help="Of that load.")] = 15.0,
) -> None:
    """Measure what Envoy and the router add to one request, and what a request costs the router."""
    interrupt_on_term()
    out = console()
    with one_sentence_errors("route-cost", kept="nothing is kept"), routes() as (direct, envoys):
        shown = Table(box=SIMPLE_HEAD, title="p50 in ms of one request at a time")
        for name in ("protocol", "input", DIRECT, ALONE, ROUTED, NAMED, "router adds"):
            shown.add_column(name, justify="left" if name in ("protocol", "input") else "right")
        for protocol, module in (("grpc", triton_grpc), ("http", triton_http)):
            for size in SIZES:
                shown.add_row(protocol, size, *_one_row(protocol, module, size, blocks, direct, envoys))
        out.print(shown)
        out.print(_load(envoys[ROUTED], rate, seconds), highlight=False)


def _one_row(
    protocol: str, module: Any, size: str, blocks: int, direct: dict[str, Any], envoys: dict[str, EmbeddedRoute]
) -> list[str]:
    urls = {DIRECT: direct[protocol]}
    urls |= {name: getattr(envoy, f"{protocol}_url") for name, envoy in envoys.items()}
    if protocol == "grpc":
        urls[NAMED] = urls[ROUTED]
    found: dict[str, list[float]] = {name: [] for name in urls}
    differences = []
    with ExitStack() as stack:
        clients = {name: stack.enter_context(closing(module.InferenceServerClient(url))) for name, url in urls.items()}
        for block in range(blocks + 1):
            medians = {}
            for name, client in clients.items():
                headers = {"x-isochrone-model": model_of(size)} if name == NAMED else {}
                latencies = latencies_ms(client, module, size, _BLOCK, headers)
                medians[name] = statistics.median(latencies)
                if block:  # the first warms up
                    found[name] += latencies
            if block:
                differences.append(medians[ROUTED] - medians[ALONE])
    p50 = [f"{statistics.median(found[name]):.2f}" if name in found else "–" for name in (DIRECT, ALONE, ROUTED, NAMED)]
    low, middle, high = np.percentile(differences, [25, 50, 75])
    return [*p50, f"{middle:.2f} ({low:.2f}–{high:.2f})"]


def _load(route: EmbeddedRoute, rate: float, seconds: float) -> str:
    model = model_of("64 B")
    x = triton_grpc.InferInput("x", [1, SIZES["64 B"]], "FP32")
    x.set_data_from_numpy(np.ones((1, SIZES["64 B"]), np.float32))
    plan = poisson([Traffic(model, rate)], seconds, 1)
    before, began = {name: cpu_s(route.pid(name)) for name in ("router", "envoy")}, time.monotonic()
    outcomes = run_load(route.grpc_url, plan, {model: [x]})
    wall_s = time.monotonic() - began
    used = {name: cpu_s(route.pid(name)) - cpu for name, cpu in before.items()}
    failed = sum(outcome.status != "ok" for outcome in outcomes)
    return (
        f"{len(outcomes)} requests at {rate:g}/s, {failed} failed: the router used {used['router'] / wall_s:.0%} of a "
        f"core ({used['router'] / len(outcomes) * 1e6:.0f} µs a request, subscriptions included), Envoy "
        f"{used['envoy'] / len(outcomes) * 1e6:.0f} µs a request"
    )


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.route_cost")
