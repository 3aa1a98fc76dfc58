"""Two real tritonservers with models of emulated GPUs, a real Envoy before them, and the router that it asks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from backend.route_process.embedded_route import EmbeddedRoute
from backend.route_process.endpoints_file import EndpointsFile, Server
from backend.server.embedded import EmbeddedServer
from backend.server.ports import free_ports
from tests.fakes.emulated import spec, write_spec
from tests.server.control import eventually

CONFIG = 'backend: "isochrone"\ninstance_group [{ kind: KIND_CPU }]\n'
MODELS = {"a": ("both", "only_a", "spare"), "b": ("both", "only_b", "chain")}
"""Loaded at start. The repository of `b` has `spare`, too. `chain` is an ensemble, which is on no device."""
CHAIN = """
platform: "ensemble"
max_batch_size: 4
input [{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }]
ensemble_scheduling { step [{
  model_name: "both"
  model_version: -1
  input_map { key: "x" value: "x" }
  output_map { key: "y" value: "y" }
}] }
"""
TOKEN = "the token of this test"


class ServerOnPorts(EmbeddedServer):
    """A server on given ports."""

    def __init__(self, ports: list[int], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._chosen = ports

    def _choose_ports(self) -> list[int]:
        return self._chosen


class Machine:
    """One server on ports that it keeps when it comes back."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._ports = free_ports(4)
        self._repository = folder / name
        (self._repository / "chain" / "1").mkdir(parents=True)
        (self._repository / "chain" / "config.pbtxt").write_text(CHAIN)
        for model in {*MODELS[name], "spare"} - {"chain"}:
            write_spec(self._repository, model, spec(f"emulated-{name}-0", 2000.0, pair_sd=0.0), CONFIG)
        self.server: EmbeddedServer | None = None

    def start(self) -> None:
        state = f"0.0.0.0:{self._ports[3]}" if self.name == "a" else f"127.0.0.1:{self._ports[3]}"
        env = {"ISOCHRONE_STATE_ADDRESS": state, "ISOCHRONE_STATE_TOKEN": TOKEN}
        extra = ["--model-control-mode=explicit", *(f"--load-model={model}" for model in MODELS[self.name])]
        self.server = ServerOnPorts(self._ports[:3], self._repository, env=env, extra=extra)
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()

    @property
    def pid(self) -> int:
        assert self.server is not None
        return self.server.pid

    def endpoint(self) -> Server:
        http, grpc, _, state = (f"127.0.0.1:{port}" for port in self._ports)
        return Server(self.name, http, grpc, (state,), token_env="ROUTE_TOKEN")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Machine]]:
    folder = tmp_path_factory.mktemp("models")
    found = {name: Machine(name, folder) for name in MODELS}
    starting = [threading.Thread(target=machine.start) for machine in found.values()]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    try:
        yield found
    finally:
        for machine in found.values():
            machine.stop()


@pytest.fixture(scope="module")
def route(machines: dict[str, Machine]) -> Iterator[EmbeddedRoute]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUTE_TOKEN", TOKEN)
        with EmbeddedRoute([machine.endpoint() for machine in machines.values()]) as route:
            eventually(lambda: all(is_up(route, name) for name in machines))
            yield route


def is_up(route: EmbeddedRoute, name: str) -> bool:
    return metric(route, "endpoint_up", endpoint=name) == 1.0


def metric(route: EmbeddedRoute, name: str, **labels: str) -> float:
    """0 where there is none."""
    text = ",".join(f'{label}="{value}"' for label, value in labels.items())
    series = f"isochrone_route_{name}" + (f"{{{text}}}" if labels else "")
    found = re.search(rf"^{re.escape(series)} (\S+)$", route.router_says("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def payload(module: Any, rows: int = 1) -> list[Any]:
    x = module.InferInput("x", [rows, 4], "FP32")
    x.set_data_from_numpy(np.ones((rows, 4), np.float32))
    return [x]


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, route: EmbeddedRoute) -> Iterator[Any]:
    if request.param == "grpc":
        with closing(triton_grpc.InferenceServerClient(route.grpc_url)) as client:
            yield client
    else:
        with closing(triton_http.InferenceServerClient(route.http_url)) as client:
            yield client


def infer(client: Any, model: str, **options: Any) -> Any:
    module = triton_grpc if isinstance(client, triton_grpc.InferenceServerClient) else triton_http
    return client.infer(model, payload(module, options.pop("rows", 1)), **options).as_numpy("y")


def test_each_request_goes_to_a_server_that_holds_its_model(route: EmbeddedRoute, client: Any) -> None:
    """Least request would send every other one to the wrong server."""
    before = {name: metric(route, "picks_total", endpoint=name) for name in MODELS}
    for _ in range(10):
        assert infer(client, "only_a").shape == (1, 2)
        assert infer(client, "only_b", rows=3).shape == (3, 2)
        assert infer(client, "only_b", model_version="1").shape == (1, 2)
    assert metric(route, "picks_total", endpoint="a") == before["a"] + 10
    picks = sum(metric(route, "picks_total", endpoint=name) for name in MODELS)
    eventually(lambda: metric(route, "answered_total") == picks)  # as Envoy's log tells
    assert metric(route, "picks_total", endpoint="b") == before["b"] + 20


def test_an_ensemble_goes_to_a_server_that_has_it_although_no_device_does(route: EmbeddedRoute, client: Any) -> None:
    with closing(triton_grpc.InferenceServerClient(route.grpc_url)) as asking:
        eventually(lambda: bool(asking.is_model_ready("chain")))  # the router has asked both
    for _ in range(6):
        assert infer(client, "chain").shape == (1, 2)


def test_a_client_may_name_the_model_in_a_header(route: EmbeddedRoute) -> None:
    with closing(triton_grpc.InferenceServerClient(route.grpc_url)) as client:
        headers = {"x-isochrone-model": "only_b", "x-isochrone-slo-ms": "500", "x-isochrone-priority": "2"}
        for _ in range(6):
            assert infer(client, "only_b", headers=headers).shape == (1, 2)


def test_a_model_that_nobody_holds_is_not_found(client: Any) -> None:
    with pytest.raises(InferenceServerException) as told:
        infer(client, "nobody")
    assert "no server holds model 'nobody'" in str(told.value)
    assert told.value.status() in ("StatusCode.NOT_FOUND", "404")


def test_a_bad_header_is_told_as_the_clients_fault(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="header 'x-isochrone-slo-ms' is 'soon'") as told:
        infer(client, "both", headers={"x-isochrone-slo-ms": "soon"})
    assert told.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")


def test_calls_that_are_no_inference_are_answered(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    for _ in range(4):  # by chance they would be answered by the other server
        for model in ("only_a", "only_b"):
            assert client.is_model_ready(model)
            assert client.get_model_metadata(model)
            assert client.get_model_config(model)
            assert client.get_inference_statistics(model)


@pytest.mark.parametrize("headers", [{}, {"x-isochrone-model": "only_a"}], ids=["found", "named"])
def test_a_large_message_passes(client: Any, headers: dict[str, str]) -> None:
    """Ten megabytes, which Envoy holds if it has to find the model in them."""
    module = triton_grpc if isinstance(client, triton_grpc.InferenceServerClient) else triton_http
    x = module.InferInput("x", [1, 2_500_000], "FP32")
    x.set_data_from_numpy(np.ones((1, 2_500_000), np.float32))
    with pytest.raises(InferenceServerException) as told:
        client.infer("only_a", [x], headers=headers)
    assert "2500000" in str(told.value), "Triton's own words on the shape"


# Placement


def isochrone_place(machines: dict[str, Machine], folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    endpoints = folder / "endpoints.json"
    endpoints.write_bytes(msgspec.json.encode(EndpointsFile(tuple(one.endpoint() for one in machines.values()))))
    demand = folder / "demand.json"
    demand.write_text('{"models": [{"model": "spare", "rate_per_s": 1, "replicas": 2}]}')
    command = [sys.executable, "-m", "backend.commands.main", "place", "--endpoints", str(endpoints), "--seconds", "1"]
    command += ["--demand", str(demand), "--gain", "1000", *options]
    return subprocess.run(command, text=True, capture_output=True, check=False, timeout=60.0)


def test_a_plan_is_printed_and_only_then_carried_out(
    route: EmbeddedRoute, machines: dict[str, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTE_TOKEN", TOKEN)
    server = machines["b"].server
    assert server is not None
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        dry = isochrone_place(machines, tmp_path)
        assert dry.returncode == 0, dry.stderr
        assert "load spare on b" in dry.stdout
        assert not client.is_model_ready("spare")

        done = isochrone_place(machines, tmp_path, "--apply")
        assert "1 moves are done" in done.stdout, done.stderr
        assert client.is_model_ready("spare")
    before = metric(route, "picks_total", endpoint="b")

    def goes_to_both() -> bool:
        """More at once than either server would have, whichever is the faster."""
        with closing(triton_grpc.InferenceServerClient(route.grpc_url)) as client, ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: infer(client, "spare", rows=4).shape, range(64)))
        assert set(answers) == {(4, 2)}
        return metric(route, "picks_total", endpoint="b") > before

    eventually(goes_to_both)
    assert "nothing to do" in isochrone_place(machines, tmp_path).stdout


def test_a_wrong_token_is_told_in_a_sentence(
    machines: dict[str, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTE_TOKEN", "another token")
    done = isochrone_place(machines, tmp_path)
    assert done.returncode == 2
    assert "isochrone: endpoint 'a' has published no state within 1 s, so nothing is planned" in done.stderr
    assert "refuses: " in done.stderr
    assert "another token" not in done.stderr


# Losses, each undone at its end. Who asks sends one request after the other, so at most one is in flight.


_PAUSE_S = 0.01
"""Between two requests of one client: a server that starts needs the cores, too."""


class Asking:
    """Clients that ask the model that both servers hold, from a thread each, until the block ends."""

    def __init__(self, route: EmbeddedRoute) -> None:
        self._route = route
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(kind,)) for kind in ("grpc", "http")]
        self.answered = 0
        self.errors: list[str] = []

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(timeout=60.0)

    def some_more(self, count: int = 40) -> None:
        """Wait until so many more were answered."""
        wanted = self.answered + count
        eventually(lambda: self.answered >= wanted)

    def _ask(self, kind: str) -> None:
        module = triton_grpc if kind == "grpc" else triton_http
        options = {"client_timeout": 3.0} if kind == "grpc" else {}
        url = self._route.grpc_url if kind == "grpc" else self._route.http_url
        while not self._enough.is_set():
            with closing(module.InferenceServerClient(url)) as client:
                try:
                    while not self._enough.is_set():
                        infer(client, "both", **options)
                        self.answered += 1
                        self._enough.wait(_PAUSE_S)
                except Exception as error:  # a client's own, too
                    self.errors.append(f"{kind}: {error}")


def test_all_is_answered_while_the_router_is_dead_and_picked_again_once_it_is_back(route: EmbeddedRoute) -> None:
    with Asking(route) as asking:
        asking.some_more()
        route.kill_router()
        asking.some_more(100)
        route.start_router()
        eventually(lambda: all(is_up(route, name) for name in MODELS))
        eventually(lambda: metric(route, "picks_total", endpoint="a") + metric(route, "picks_total", endpoint="b") > 20)
    assert asking.errors == []


def test_all_is_answered_while_the_router_hangs(route: EmbeddedRoute) -> None:
    with Asking(route) as asking:
        os.kill(route.pid("router"), signal.SIGSTOP)
        try:
            asking.some_more(100)
        finally:
            os.kill(route.pid("router"), signal.SIGCONT)
        asking.some_more()
    assert asking.errors == []
    eventually(lambda: all(is_up(route, name) for name in MODELS))


def test_a_killed_server_costs_what_was_in_flight_there_and_is_used_when_it_is_back(
    route: EmbeddedRoute, machines: dict[str, Machine]
) -> None:
    with Asking(route) as asking:
        asking.some_more()
        os.kill(machines["a"].pid, signal.SIGKILL)
        eventually(lambda: not is_up(route, "a"))
        asking.some_more(100)
        # Of each client what was in flight, and one that was sent before Envoy had seen its connection's end.
        assert len(asking.errors) <= 4, asking.errors
        machines["a"].stop()
        machines["a"].start()
        eventually(lambda: is_up(route, "a"))
        with closing(triton_grpc.InferenceServerClient(route.grpc_url)) as client:
            assert infer(client, "only_a").shape == (1, 2)
        errors = len(asking.errors)
        asking.some_more()
        assert len(asking.errors) == errors


def test_a_server_that_hangs_is_left_out_although_its_scheduler_publishes(
    route: EmbeddedRoute, machines: dict[str, Machine]
) -> None:
    """Last in this file: a tritonserver that was stopped for a while may crash, so it is killed."""
    os.kill(machines["b"].pid, signal.SIGSTOP)
    try:
        eventually(lambda: not is_up(route, "b"))
        with Asking(route) as asking:
            asking.some_more()
        assert asking.errors == []
        client = triton_grpc.InferenceServerClient(route.grpc_url)
        with closing(client), pytest.raises(InferenceServerException, match="only_b") as told:
            infer(client, "only_b")
        assert told.value.status() == "StatusCode.UNAVAILABLE"
    finally:
        os.kill(machines["b"].pid, signal.SIGKILL)
