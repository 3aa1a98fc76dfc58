"""A disk and a shared memory that are full, and a runtime folder that is gone."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.chaos.account import Allowance
from tests.chaos.faults.fault import Fault, Undo, nothing_to_undo
from tests.chaos.faults.processes import kill
from tests.chaos.stage import Stage

_SHM = Path("/dev/shm")
_CHUNK = 1 << 16
VOLUME = frozenset({"volume"})
NO_ROOM = Allowance(
    "Triton refuses what does not fit /dev/shm",
    "server/test_shared_memory.py::test_an_input_that_does_not_fit_is_told_by_triton",
    r"--shm-size|shared memory",
)


def fill(folder: Path) -> Undo:
    """Write a file until not a byte more fits; the end removes it."""
    ballast = folder / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (_CHUNK, 1):
            with suppress(OSError):
                while os.write(descriptor, b"\0" * size):
                    pass
    finally:
        os.close(descriptor)
    return partial(ballast.unlink, missing_ok=True)


def fill_disk(stage: Stage) -> Undo:
    """Fill the file system of the runtime folder, of the event log and of the samples."""
    assert stage.volume is not None
    return fill(stage.volume)


def fill_disk_and_kill(role: str, stage: Stage) -> Undo:
    """Let a process be replaced where nothing can be written."""
    undo = fill_disk(stage)
    kill(role, stage)
    return undo


def fill_shared_memory(stage: Stage) -> Undo:  # noqa: ARG001 - the contract's call
    """Fill this namespace's /dev/shm."""
    return fill(_SHM)


def remove_runtime_folder(stage: Stage, killed: str = "") -> Undo:
    """Remove the runtime folder, sockets and locks and all, as a cleaner of /tmp would. killed: a process besides."""
    aside = stage.runtime_dir.with_name(f"{stage.runtime_dir.name}-removed")
    stage.runtime_dir.rename(aside)  # first, since sockets are put back as soon as they are missed
    shutil.rmtree(aside)
    if killed:
        kill(killed, stage)
    return nothing_to_undo


FAULTS = (
    Fault("fill the disk", fill_disk, 2.0, needs=VOLUME),
    Fault("fill the disk and kill the scheduler", partial(fill_disk_and_kill, "scheduler"), 3.0, needs=VOLUME),
    Fault("fill the disk and kill the engine process", partial(fill_disk_and_kill, "engine"), 3.0, needs=VOLUME),
    Fault("fill /dev/shm", fill_shared_memory, 2.0, (NO_ROOM,), needs=VOLUME),
    Fault("remove the runtime folder", remove_runtime_folder),
    Fault("remove the runtime folder and kill the scheduler", partial(remove_runtime_folder, killed="scheduler")),
)
