"""What goes on when a process dies, hangs or is told to stop while requests are in flight."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path

import onnx
import pytest
import tritonclient.grpc as triton_grpc

from backend.device_process import LINGER_S
from backend.server.embedded import EmbeddedServer
from backend.server.processes import end, pids_with
from tests.server.burst import Burst
from tests.server.control import EXPLICIT, EXPORTED_WITHIN_S, eventually, load, metric, remember_profile
from tests.server.harness import batchmates, mlp, write_model
from tests.server.open_loop import OpenLoop, longest_s

pytestmark = pytest.mark.alone


CONFIG = 'backend: "isochrone"\nmax_batch_size: 8\n'
ONE_LANE = CONFIG + 'parameters { key: "device_lanes" value { string_value: "1" } }'
SMALL = {name: mlp(16, 4, seed, hidden=768) for seed, name in enumerate(("one", "two"))}  # about 1 ms
NOT_HEALTHY = "[StatusCode.INTERNAL] Stub process 'doomed_0' is not healthy."
TIMED_OUT = "[StatusCode.DEADLINE_EXCEEDED] Deadline Exceeded"
CANCELLED = "[StatusCode.CANCELLED] Locally cancelled by application!"
SLOW_MS = 40.0
VERY_SLOW = batchmates(10 * SLOW_MS)
RATE_PER_S = 50.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with serving(tmp_path_factory.mktemp("models"), SMALL) as server:
        yield server
    assert server.stop() == 0


def test_a_killed_scheduler_costs_no_request_and_is_replaced(server: EmbeddedServer) -> None:
    with ExitStack() as stack:
        loops = [stack.enter_context(OpenLoop(server.grpc_url, n, m, RATE_PER_S)) for n, m in SMALL.items()]
        time.sleep(2.0)
        first, killed_s, killed_at = scheduler_pid(server), time.monotonic(), datetime.now()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(joined(server, after=killed_at)) == len(SMALL))
        assert (max(joined(server, after=killed_at)) - killed_at).total_seconds() < 2.0
        expect_decisions(server)
    for loop in loops:
        assert loop.failures() == []
        assert longest_s(loop.sent(killed_s - 1.0)) < longest_s(loop.sent(before_s=killed_s - 1.0)) + 1.0
    assert scheduler_pid(server) != first
    assert only_scheduler(server)


def test_a_hanging_scheduler_is_gone_round_until_it_answers_again(server: EmbeddedServer) -> None:
    with ExitStack() as stack:
        loops = [stack.enter_context(OpenLoop(server.grpc_url, n, m, RATE_PER_S)) for n, m in SMALL.items()]
        time.sleep(1.0)
        pid, stopped_s, before = scheduler_pid(server), time.monotonic(), fail_opens(server)
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: fail_opens(server) > before)
            time.sleep(2.0)  # the models try to join it again meanwhile
        finally:
            continued_at = datetime.now()
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: len(joined(server, after=continued_at)) >= len(SMALL))
        expect_decisions(server)
    for loop in loops:
        assert loop.failures() == []
        assert longest_s(loop.sent(stopped_s - 0.5)) < longest_s(loop.sent(before_s=stopped_s - 0.5)) + 2.0
    assert scheduler_pid(server) == pid
    assert only_scheduler(server)


def test_a_killed_model_holds_up_no_other_and_can_be_loaded_again(tmp_path: Path) -> None:
    """Killed while it computes. A process that dies while it holds one of the locks that Triton's Python backend shares
    with it, to hand over an answer, takes tritonserver with it (boost lock_exception): no backend can help that.
    """
    models = {"doomed": VERY_SLOW, "one": SMALL["one"]}
    with serving(tmp_path, models, ONE_LANE, extra=["--exit-timeout-secs=2"]) as server:
        doomed = server.stub_pids()["doomed"]
        with OpenLoop(server.grpc_url, "one", SMALL["one"], RATE_PER_S) as other:
            time.sleep(1.0)
            lost = Burst(server.grpc_url, "doomed", 24, client_timeout_s=3.0)
            lost.wait_for_answers(8)
            time.sleep(0.1)  # a batch runs on the only lane now, and no answer is being handed to Triton
            killed_s, killed_at = time.monotonic(), datetime.now()
            os.kill(doomed, signal.SIGKILL)
            eventually(lambda: bool(left(server, after=killed_at)))
            assert (left(server, after=killed_at)[0] - killed_at).total_seconds() < 1.0
            assert Burst(server.grpc_url, "doomed", 1).outcomes() == {NOT_HEALTHY: 1}
            with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
                client.unload_model("doomed")
            assert load(server, ["doomed"]) == {}
            assert Burst(server.grpc_url, "doomed", 8).outcomes() == {"right": 8}
        # Triton does not answer what was in flight in the killed process: only the client's timeout ends it.
        assert set(lost.outcomes()) == {"right", TIMED_OUT}
        assert other.failures() == []
        assert longest_s(other.sent(killed_s - 0.5)) < longest_s(other.sent(before_s=killed_s - 0.5)) + 1.0
        stopping_s = time.monotonic()
    # The model that was lost keeps its unanswered requests, so Triton ends by its timeout and says so.
    assert server.stop() == 1
    assert "Exit timeout expired" in server.log_text()
    assert time.monotonic() - stopping_s < 10.0


def test_stopping_answers_what_is_in_flight(tmp_path: Path) -> None:
    runtime_dir = Path(tempfile.mkdtemp(prefix="run-"))
    try:
        with serving(tmp_path, {"slow": VERY_SLOW}, env={"ISOCHRONE_RUNTIME_DIR": str(runtime_dir)}) as server:
            burst = Burst(server.grpc_url, "slow", 150)
            burst.wait_for_answers(1)  # long after the last was sent
            assert burst.in_flight() > 100
        assert server.stop() == 0
        outcomes = burst.outcomes()
        assert outcomes.pop("right") > 100
        assert all("UNAVAILABLE" in error for error in outcomes), outcomes
        eventually(lambda: not schedulers(runtime_dir), timeout_s=LINGER_S + 3.0)
    finally:
        end(lambda: schedulers(runtime_dir))
        remove(runtime_dir)


def test_requests_given_up_in_the_queue_leave_the_others_alone(tmp_path: Path) -> None:
    with serving(tmp_path, {"slow": VERY_SLOW}) as server:
        for _ in range(3):
            burst = Burst(server.grpc_url, "slow", 160)
            burst.wait_for_answers(1)
            # Far behind those that are about to be answered: Triton 2.51 leaks a request, or crashes, when its
            # cancellation meets its answer.
            given_up = burst.cancel(range(80, 160, 2))
            assert burst.outcomes() == {"right": 160 - given_up, CANCELLED: given_up}
        eventually(lambda: metric(server, "isochrone_requests_total", outcome="cancelled") > 0)
        eventually(lambda: metric(server, "isochrone_requests_total", outcome="met") >= 3 * 120)
    assert server.stop() == 0


@contextmanager
def serving(
    repository: Path,
    models: Mapping[str, onnx.ModelProto],
    config: str = CONFIG,
    extra: list[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[EmbeddedServer]:
    """A server with these models loaded."""
    folders = [write_model(repository, name, model, config) for name, model in models.items()]
    with EmbeddedServer(repository, extra=[*EXPLICIT, *(extra or [])], env=env) as server:
        for folder in folders:
            remember_profile(server, folder, solo_ms=1 if folder.name in SMALL else SLOW_MS, max_batch_size=8)
        assert load(server, models) == {}
        yield server


def scheduler_pid(server: EmbeddedServer) -> int:
    return int((server.runtime_dir / "cpu.lock").read_text())


def schedulers(runtime_dir: Path) -> list[int]:
    """Processes of the device scheduler that belong to this folder."""
    pids = pids_with("ISOCHRONE_RUNTIME_DIR", str(runtime_dir))
    return [pid for pid in pids if b"backend.scheduler_process.process" in command_line(pid)]


def only_scheduler(server: EmbeddedServer) -> bool:
    """Those that lost the race for the lock end by themselves."""
    eventually(lambda: schedulers(server.runtime_dir) == [scheduler_pid(server)])
    return True


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def joined(server: EmbeddedServer, after: datetime) -> list[datetime]:
    return said(server, "joined", after)


def left(server: EmbeddedServer, after: datetime) -> list[datetime]:
    return said(server, "left", after)


def said(server: EmbeddedServer, word: str, after: datetime) -> list[datetime]:
    """When the scheduler's log says so of a model's process."""
    text = (server.runtime_dir / "cpu.log").read_text()
    stamps = re.findall(rf"^(\S+ \S+) source \d+\b.* {word}", text, re.MULTILINE)
    times = [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f") for stamp in stamps]
    return [time for time in times if time > after]


def fail_opens(server: EmbeddedServer) -> float:
    return metric(server, "isochrone_fail_open_total")


def expect_decisions(server: EmbeddedServer) -> None:
    """The scheduler decides, and nothing is launched without it, once older counts are exported."""
    time.sleep(EXPORTED_WITHIN_S)
    decided, alone = decisions(server), fail_opens(server)
    eventually(lambda: decisions(server) >= decided + 20)
    assert fail_opens(server) == alone


def decisions(server: EmbeddedServer) -> float:
    return metric(server, "isochrone_decisions_total", decision="launch")


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
