"""A dead server's stubs and memory, and a command that ends with its parent; with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from backend.server import processes
from backend.server.tether import tethered

OURS, OTHERS = (f"triton_isochrone_{uuid.uuid4().hex[:16]}_" for _ in range(2))


def test_a_tethered_command_keeps_its_pid_and_ends_with_its_parent() -> None:
    parent = (
        "import subprocess, sys; from backend.server.tether import tethered\n"
        "child = subprocess.Popen(tethered(['/bin/sleep', '60']), stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", parent], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        wait_for(lambda: "sleep" in Path(f"/proc/{pid}/comm").read_text())
        process.kill()
    wait_for(lambda: not alive(pid))


def test_a_command_whose_parent_is_gone_does_not_start() -> None:
    argv = tethered(["/bin/echo", "started"])
    argv[4] = "1" if os.getpid() != 1 else "2"  # another process asked for it
    done = subprocess.run(argv, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_sweep_ends_a_dead_servers_stubs_and_spares_all_others(tmp_path: Path) -> None:
    with stub(tmp_path / "ours") as ours, stub(tmp_path / "others") as others:
        wait_for(lambda: len(processes.stubs_of(tmp_path / "ours")) == 1)
        wait_for(lambda: len(processes.stubs_of(tmp_path / "others")) == 1)
        (found,) = processes.stubs_of(tmp_path / "ours")
        (spared,) = processes.stubs_of(tmp_path / "others")
        assert (found.pid, found.model, found.instance) == (ours.pid, "resnet50", "resnet50_0")
        assert spared.pid == others.pid
        regions = [Path("/dev/shm", f"{prefix}{uuid.uuid4()}") for prefix in (OURS, OURS, OTHERS)]
        try:
            for region in regions:
                region.touch()
            processes.sweep(tmp_path / "ours", OURS, grace_s=0.0)
            assert [region.exists() for region in regions] == [False, False, True]
            assert ours.wait(5) == -signal.SIGTERM
            assert others.poll() is None
        finally:
            for region in regions:
                region.unlink(missing_ok=True)
            ours.kill()
            others.kill()


def stub(backends: Path) -> subprocess.Popen[bytes]:
    """A process with the arguments of a stub of Triton."""
    script = backends / "models" / "resnet50" / "1" / "model.py"
    script.parent.mkdir(parents=True)
    script.write_text("import time; time.sleep(60)")
    argv = ["stub", str(script), "region", "1", "1", "1", f"{backends}/python", "336", "resnet50_0", "DEFAULT"]
    return subprocess.Popen(argv, executable=sys.executable)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and ") Z " not in status.read_text()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)
