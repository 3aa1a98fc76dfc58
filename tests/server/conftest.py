"""Every test in this folder runs a real tritonserver, and nothing of it may be left when its module is done."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.server.processes import pids_with
from tests.server.control import regions_mapped_by

_MARK = "ISOCHRONE_TEST_MARK"  # inherited by everything that a test starts, however far down
_SHM = Path("/dev/shm")
_SETTLE_S = 5.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="module", autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the module: no process, no shared memory, no temporary file or socket of its servers."""
    tmp_path_factory.getbasetemp()  # pytest's own folder stays outside the one below
    mark = str(uuid.uuid4())
    shm_before = set(_shared_memory())
    with tempfile.TemporaryDirectory(prefix="it-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_MARK, mark)
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
        deadline = time.monotonic() + _SETTLE_S
        while (left := _left(mark, shm_before, Path(folder))) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not left


def _left(mark: str, shm_before: set[str], folder: Path) -> list[str]:
    ours = pids_with(_MARK, mark)
    left = [f"process {pid}: {_command_line(pid)}" for pid in ours]
    new = set(_shared_memory()) - shm_before
    if new:  # other servers may run on this machine: what a living process of theirs maps is theirs
        pids = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()} - {*ours, os.getpid()}
        new -= {region for pid in pids for region in regions_mapped_by(pid)}
    left += [f"shared memory {name}" for name in sorted(new)]
    return left + [f"file {path}" for path in sorted(folder.rglob("*"))]


def _shared_memory() -> list[str]:
    return [entry.name for entry in _SHM.iterdir() if entry.name.startswith(("triton_", "isochrone"))]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "(gone)"
