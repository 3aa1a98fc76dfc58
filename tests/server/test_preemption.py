"""A request that cannot wait goes before batches that can, on a device whose lanes are all taken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc

from backend.linux.cpu_topology import cores
from backend.linux.low_priority import LowPriority
from backend.server import processes
from backend.server.embedded import EmbeddedServer
from tests.fakes.thread_priority import may_raise_priority, on_a_thread
from tests.server.busy import Asked, Batches, arrived
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile
from tests.server.harness import batchmates, write_model

pytestmark = pytest.mark.alone

LONG_MS, SHORT_MS = 1_500.0, 20.0
CONFIG = 'backend: "isochrone"\nmax_batch_size: 1\n'
IN_ORDER = 'parameters { key: "interference_aware" value { string_value: "false" } }\n'
ONE_LANE = 'parameters { key: "device_lanes" value { string_value: "1" } }\n'
TAKES_MS = {"long": LONG_MS, "long_in_order": LONG_MS, "short": SHORT_MS}


@contextmanager
def serving(repository: Path, models: Sequence[str], config: str = CONFIG) -> Iterator[EmbeddedServer]:
    folders: dict[str, Path] = {
        name: write_model(repository, name, batchmates(TAKES_MS[name]), config + IN_ORDER * name.endswith("in_order"))
        for name in models
    }
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name, folder in folders.items():
            remember_profile(server, folder, TAKES_MS[name])
        assert load(server, models) == {}
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with serving(tmp_path_factory.mktemp("models"), list(TAKES_MS)) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Any]:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        yield client


def short_beside(client: Any, model: str, lanes: int | None = None) -> tuple[Batches, Batches]:
    """Every lane runs a batch of that model when a request of 20 ms arrives that is due in 400. Once it is answered."""
    long, short = Batches(client, model), Batches(client, "short")
    for i in range(lanes or len(cores())):
        with arrived(client, model):
            long.ask(Asked(i))
    short.ask(Asked(100, slo_ms=400.0))
    short.wait()
    return long, short


def test_what_is_due_soon_goes_before_what_has_time(server: EmbeddedServer, client: Any) -> None:
    long, short = short_beside(client, "long")
    assert (short.ended, long.ended) == ([[100]], [])
    assert sorted(long.wait()) == [[i] for i in range(len(cores()))]
    eventually(lambda: metric(server, "isochrone_batches_total", model="long") == len(cores()))
    eventually(lambda: metric(server, "isochrone_requests_total", model="short", outcome="met") == 1)
    eventually(lambda: metric(server, "isochrone_preempted_total", model="long") == 1)
    # What stood still tells nothing of the prediction.
    told = "isochrone_prediction_error_ratio_count"
    eventually(lambda: metric(server, told, model="long") == len(cores()) - 1)


def test_a_lane_of_all_cores_is_a_lane(tmp_path: Path) -> None:
    with (
        serving(tmp_path, ["long", "short"], CONFIG + ONE_LANE) as server,
        closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client,
    ):
        long, short = short_beside(client, "long", lanes=1)
        assert (short.ended, long.ended) == ([[100]], [])
        assert long.wait() == [[0]]
        eventually(lambda: metric(server, "isochrone_preempted_total", model="long") == 1)


def test_only_an_executing_thread_has_low_priority(server: EmbeddedServer, client: Any) -> None:
    """Its other work holds Python's lock: the priority is restored for it where the kernel allows that."""
    before = idling(server)
    long = Batches(client, "long")
    long.ask(Asked(200))
    eventually(lambda: idling(server) > before or not can_restore_priority())
    long.wait()
    eventually(lambda: idling(server) == before)
    assert before == 0 or not can_restore_priority()


def test_threads_that_decide_and_launch_have_raised_priority(server: EmbeddedServer) -> None:
    """Threads of the scheduler; in each model's process Triton's, the scheduler client's and the starvation guard's."""
    expected = 1 + 3 * len(TAKES_MS) if may_raise_priority() else 0
    assert threads(server, lambda thread: os.getpriority(os.PRIO_PROCESS, thread) == -20) == expected


def idling(server: EmbeddedServer) -> int:
    """Threads of the server's processes that run only while nothing else wants their core."""
    return threads(server, lambda thread: os.sched_getscheduler(thread) == os.SCHED_IDLE)


def threads(server: EmbeddedServer, which: Callable[[int], bool]) -> int:
    """How many of the server's processes' are so."""
    found = 0
    for pid in processes.pids_with("ISOCHRONE_RUNTIME_DIR", str(server.runtime_dir)):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # it ended meanwhile
                found += which(int(thread.name))
    return found


def can_restore_priority() -> bool:
    """Asked on a thread of its own, whose priority may stay low."""
    return on_a_thread(lambda: LowPriority(preemptible=True).can_restore)


def test_it_waits_for_a_model_that_launches_in_order(server: EmbeddedServer, client: Any) -> None:
    long, _ = short_beside(client, "long_in_order")
    assert long.wait()
    assert metric(server, "isochrone_preempted_total", model="long_in_order") == 0
    eventually(lambda: metric(server, "isochrone_requests_total", model="short", outcome="missed") == 1)
