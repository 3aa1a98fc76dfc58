"""What others see of a device on a real tritonserver: its published state, and the gauges on /metrics.

On an emulated GPU, whose batches take their time whatever else this machine does.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from backend.commands.emulate import CONFIG, emulate
from backend.fleet.snapshot import DeviceSnapshot, Refused, Subscribe, decode, encode
from backend.server.embedded import EmbeddedServer
from backend.server.ports import free_ports
from tests.server.control import EXPLICIT, eventually, load, metric, request

DEVICE = "emulated-a100-0"
MODELS = ("resnet50", "vgg19")
GAUGES = ("isochrone_waiting_requests", "isochrone_running_batches", "isochrone_backlog_ms")
TOKEN = "a secret"
DILATION = 40
"""Real time per time of the device: a resnet50 takes some 90 ms alone, 16 of them 230, so that a load lasts longer than
gauges are behind."""
REQUESTS = 120
IMAGE = np.zeros((1, 3, 224, 224), np.float32)


class Subscriber:
    """Reads a device's snapshots as they come; `latest` is the newest."""

    def __init__(self, port: int, token: str = TOKEN) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=20.0)
        self._connection.sendall(encode(Subscribe(1, token)))
        self._lines = self._connection.makefile("rb")
        self.latest: DeviceSnapshot | None = None
        self.seen: list[DeviceSnapshot] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Subscriber:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=20.0)
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def refusal(self) -> str:
        found = decode(self._lines.readline())
        assert isinstance(found, Refused)
        return found.reason

    def _read(self) -> None:
        while line := self._lines.readline():
            found = decode(line)
            assert isinstance(found, DeviceSnapshot)
            self.latest = found
            self.seen.append(found)


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    emulate("a100", ",".join(MODELS), folder, 0)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path, port: int) -> Iterator[EmbeddedServer]:
    env = {
        "ISOCHRONE_EMULATED_TIME": str(DILATION),
        "ISOCHRONE_STATE_ADDRESS": f"127.0.0.1:{port}",
        "ISOCHRONE_STATE_TOKEN": TOKEN,
    }
    with EmbeddedServer(repository, extra=[*EXPLICIT, "--exit-timeout-secs=2"], env=env) as server:
        assert load(server, MODELS) == {}
        yield server


@contextmanager
def asked(server: EmbeddedServer, model: str, requests: int = REQUESTS) -> Iterator[list[Exception | None]]:
    """Requests that are sent at once; answered when the block ends, its errors in the list."""
    done: list[Exception | None] = []
    changed = threading.Condition()

    def answered(result: object, error: Exception | None) -> None:  # noqa: ARG001 - names that the client uses
        with changed:
            done.append(error)
            changed.notify_all()

    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        for _ in range(requests):
            client.async_infer(model, request(triton_grpc, {"input": IMAGE}), answered, client_timeout=60.0)
        yield done
        with changed:
            assert changed.wait_for(lambda: len(done) == requests, 60.0)


def ignored(result: object, error: Exception | None) -> None:
    """No answer comes from a killed process."""


def gauges(server: EmbeddedServer, model: str) -> list[float]:
    return [metric(server, name, model=model, device=DEVICE) for name in GAUGES]


def idle(server: EmbeddedServer, model: str) -> bool:
    return gauges(server, model) == [0.0, 0.0, 0.0]


def scheduler_pid(server: EmbeddedServer) -> int:
    return int((server.runtime_dir / f"{DEVICE}.lock").read_text())


@pytest.mark.alone
def test_snapshots_and_gauges_tell_a_load_and_its_end(server: EmbeddedServer, port: int) -> None:
    with Subscriber(port) as subscriber:
        eventually(lambda: subscriber.latest is not None)
        first = subscriber.latest
        assert first is not None
        assert (first.device, first.lanes, first.running, first.backlog_ns) == (DEVICE, 2, [], 0)
        assert {model.name for model in first.models} == set(MODELS)
        assert (first.machine.name, first.machine.emulated) == ("emulated A100 SXM 80 GB", True)
        assert first.machine.compute_tflops == 312.0

        with asked(server, "resnet50") as done:
            eventually(lambda: min(gauges(server, "resnet50")) > 0)
            assert idle(server, "vgg19")
            eventually(lambda: len(done) >= REQUESTS // 2)
        assert set(done) == {None}
        eventually(lambda: idle(server, "resnet50"))
        eventually(lambda: subscriber.latest is not None and not subscriber.latest.running)
        seen, last = subscriber.seen, subscriber.latest
    assert [each.sequence for each in seen] == sorted({each.sequence for each in seen})
    busiest = max(seen, key=lambda each: each.backlog_ns)
    model = busiest.models[0]
    assert (model.name, model.max_batch_size, model.instances) == ("resnet50", 16, 1)
    assert model.waiting_requests == model.waiting["1"] > REQUESTS // 4
    assert len(busiest.running) == 2
    done_ns = next(each.at_ns for each in seen if each.at_ns > busiest.at_ns and not each.running)
    # Little was learned yet: the order of magnitude is what holds.
    assert 0.25 < busiest.backlog_ns / (done_ns - busiest.at_ns) < 4.0
    assert last is not None
    assert (last.backlog_ns, last.models[0].waiting, last.models[0].arrivals) == (0, {}, REQUESTS)


def test_an_idle_device_is_told_at_least_twice_a_second(server: EmbeddedServer, port: int) -> None:  # noqa: ARG001
    with Subscriber(port) as subscriber:
        eventually(lambda: len(subscriber.seen) >= 5)
        stamps = [each.at_ns for each in subscriber.seen]
    gaps = [(after - before) / 1e6 for before, after in pairwise(stamps)]
    assert sorted(gaps)[len(gaps) // 2] <= 500


def test_top_shows_the_device(server: EmbeddedServer, port: int) -> None:
    """With the models that it serves, as a user of the command line sees them."""
    command = [sys.executable, "-m", "backend.commands.main", "top", "--once", "--state", f"127.0.0.1:{port}"]
    with asked(server, "resnet50"):
        env = {**os.environ, "ISOCHRONE_STATE_TOKEN": TOKEN}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(DEVICE)
    assert "of 2 lanes busy" in done.stdout
    assert all(f"\n{model} " in done.stdout for model in MODELS)


def test_a_wrong_token_is_refused(server: EmbeddedServer, port: int) -> None:  # noqa: ARG001
    with closing(Subscriber(port, "a guess")) as subscriber:
        assert "the token is not" in subscriber.refusal()


def test_gauges_go_back_to_0_after_the_scheduler_died_under_load(server: EmbeddedServer, port: int) -> None:
    with Subscriber(port) as subscriber:
        eventually(lambda: subscriber.latest is not None)
        before = subscriber.latest
    with asked(server, "resnet50") as done:
        eventually(lambda: min(gauges(server, "resnet50")) > 0)
        os.kill(scheduler_pid(server), signal.SIGKILL)
        eventually(lambda: len(done) >= REQUESTS // 2)
    assert set(done) == {None}
    eventually(lambda: idle(server, "resnet50"))
    eventually(lambda: connects(port))
    with Subscriber(port) as subscriber:
        eventually(lambda: subscriber.latest is not None)
        assert before is not None
        assert subscriber.latest is not None
        assert subscriber.latest.publisher != before.publisher


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def test_gauges_are_0_once_a_model_is_unloaded(server: EmbeddedServer) -> None:
    with asked(server, "vgg19"), closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        eventually(lambda: min(gauges(server, "vgg19")) > 0)
        client.unload_model("vgg19")
    eventually(lambda: idle(server, "vgg19"))
    assert load(server, ["vgg19"]) == {}


@pytest.mark.parametrize("instances", [1, 2])
def test_what_a_killed_process_left_in_the_gauges_goes_with_the_next_load(
    server: EmbeddedServer, repository: Path, instances: int
) -> None:
    """Last, since Triton waits for the requests of a killed process as it ends."""
    config = CONFIG.replace("KIND_CPU", f"KIND_CPU count: {instances}")
    (repository / "vgg19" / "config.pbtxt").write_text(config)
    assert load(server, ["vgg19"]) == {}
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        for _ in range(REQUESTS):
            client.async_infer("vgg19", request(triton_grpc, {"input": IMAGE}), ignored, client_timeout=5.0)
        eventually(lambda: gauges(server, "vgg19")[0] > 0)
        stubs = [stub.pid for stub in server.stubs() if stub.model == "vgg19"]
        assert len(stubs) == instances
        for pid in stubs:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not [stub for stub in server.stubs() if stub.model == "vgg19"])
        left = gauges(server, "vgg19")
        client.unload_model("vgg19")
    assert left[0] > 0
    assert load(server, ["vgg19"]) == {}
    assert idle(server, "vgg19")
    with asked(server, "vgg19", 10):
        pass
    eventually(lambda: idle(server, "vgg19"))
