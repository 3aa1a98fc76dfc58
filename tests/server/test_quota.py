"""A server in a container with a CPU quota of less than its cores: a lane for each core's worth of it, on no core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc

from backend.linux.cpu_topology import cores
from backend.server.embedded import EmbeddedServer
from tests.server.busy import Asked, Batches
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile
from tests.server.harness import batchmates, write_model

TAKES_MS = 200.0
ONE_CORE_US = 100_000
GROUPS = [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that may use one core's worth of time."""
    for parent in GROUPS:
        made = parent / f"isochrone-test-{os.getpid()}"
        with suppress(OSError):
            made.mkdir()
            try:
                if (made / "cpu.cfs_quota_us").exists():
                    (made / "cpu.cfs_quota_us").write_text(str(ONE_CORE_US))
                elif (made / "cpu.max").exists():
                    (made / "cpu.max").write_text(f"{ONE_CORE_US} {ONE_CORE_US}")
                else:
                    continue
                yield made
                return
            finally:
                made.rmdir()
    pytest.skip("no control group can be made here")


@pytest.mark.alone
@pytest.mark.skipif(len(cores()) < 2, reason="one core is no more than the quota")
def test_lanes_by_quota(tmp_path: Path, group: Path) -> None:
    folder = write_model(tmp_path, "mates", batchmates(TAKES_MS), 'backend: "isochrone"\nmax_batch_size: 1\n')
    with EmbeddedServer(tmp_path, extra=EXPLICIT) as server:
        (group / "cgroup.procs").write_text(str(server.pid))
        remember_profile(server, folder, TAKES_MS)
        assert load(server, ["mates"]) == {}
        with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
            batches = Batches(client, "mates")
            for i in range(3):
                batches.ask(Asked(i))
            assert len(batches.wait()) == 3
        total = partial(metric, server, model="mates")
        eventually(lambda: total("isochrone_execution_us_count") == total("isochrone_queue_us_count") == 3)
        # One waited for a batch, one for two; of two at a time one would.
        assert total("isochrone_queue_us_sum") > 0.8 * total("isochrone_execution_us_sum")
        (pid,) = server.stub_pids().values()
        pinned = [t for t in Path(f"/proc/{pid}/task").iterdir() if len(os.sched_getaffinity(int(t.name))) == 1]
        assert pinned == []
