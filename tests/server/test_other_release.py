"""A real server on a device whose scheduler is of another release: it serves, and says why it does so without."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.runtime_dir import VARIABLE
from backend.server.embedded import EmbeddedServer
from backend.server.processes import end, pids_with
from tests.fakes.other_release import NEWER, OLDER, scheduler_of_another_release
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile
from tests.server.harness import mlp, write_model
from tests.server.open_loop import OpenLoop

MODEL = mlp(16, 4, hidden=256)


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A runtime folder that two releases share."""
    folder = Path(tempfile.mkdtemp(prefix="run-"))
    try:
        yield folder
    finally:
        end(lambda: pids_with(VARIABLE, str(folder)))
        shutil.rmtree(folder)


@pytest.mark.parametrize("protocol", [OLDER, NEWER])
def test_a_server_serves_beside_a_scheduler_of_another_release(protocol: int, tmp_path: Path, shared_dir: Path) -> None:
    folder = write_model(tmp_path, "ours", MODEL, 'backend: "isochrone"\nmax_batch_size: 8\n')
    with (
        scheduler_of_another_release(shared_dir, protocol) as theirs,
        EmbeddedServer(tmp_path, extra=EXPLICIT, env={VARIABLE: str(shared_dir)}) as server,
    ):
        remember_profile(server, folder, solo_ms=0.2, max_batch_size=8)
        assert load(server, ["ours"]) == {}
        with OpenLoop(server.grpc_url, "ours", MODEL, rate_per_s=50.0) as asked:
            eventually(lambda: metric(server, "isochrone_fail_open_total", model="ours") > 0, timeout_s=60.0)
            theirs.kill()  # its release's last server was stopped
            theirs.wait()
            decided = {"model": "ours", "decision": "launch"}
            eventually(lambda: metric(server, "isochrone_decisions_total", **decided) > 0, timeout_s=60.0)
        assert asked.failures() == []
        said = server.log_text()
    assert said.count("model 'ours' launches without its scheduler: the scheduler of device 'cpu' is of another") == 1
