"""A process of a load in gaps of the device: a real scheduler's process, and a fake model that holds the lanes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import backend.model_process.loading.child_in_gaps as gaps_module
from backend.config.model_config import EngineConfig
from backend.config.parameters import Parameters
from backend.errors import ConfigError
from backend.linux.cpu_topology import cores
from backend.linux.loading_priority import may_restore
from backend.model_process.loading.child_in_gaps import child_in_gaps
from profiler.child import CODE_ROOT
from tests.fakes.fake_model import FakeModel, eventually
from tests.fakes.open_files import open_files

pytestmark = [
    pytest.mark.usefixtures("runtime_dir"),
    pytest.mark.skipif(not may_restore(), reason="the kernel lets no thread come back"),
    pytest.mark.skipif(len(cores()) < 2, reason="two lanes on one core cannot be preempted"),
]
CONFIG = EngineConfig("loaded", "1", Path("model.onnx"), 4, Parameters(device_lanes=2), None)
BUSY = "while True: pass"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", BUSY], process_group=0) as process:
        yield process
        process.kill()


def test_it_stands_still_while_others_hold_the_lanes_and_runs_on_one_core_in_gaps(
    child: subprocess.Popen[bytes],
) -> None:
    with FakeModel() as other:
        other.fill(lanes=2)
        with child_in_gaps(CONFIG, child):
            eventually(lambda: state(child.pid) == "T")
            before_s = cpu_s(child.pid)
            time.sleep(0.3)
            assert cpu_s(child.pid) == before_s
            other.gate.set()
            eventually(lambda: cpu_s(child.pid) > before_s + 0.2)
            assert len(os.sched_getaffinity(child.pid)) == 1
            assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE


def test_what_waits_for_too_long_goes_on_as_an_ordinary_process(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gaps_module, "PATIENCE_S", 0.3)
    everywhere = os.sched_getaffinity(0)
    with FakeModel() as other:
        other.fill(lanes=2)
        with child_in_gaps(CONFIG, child):
            eventually(lambda: "its load waited" in caplog.text)
            eventually(lambda: os.sched_getscheduler(child.pid) == os.SCHED_OTHER)
            assert os.sched_getaffinity(child.pid) == everywhere
            before_s = cpu_s(child.pid)
            eventually(lambda: cpu_s(child.pid) > before_s + 0.1)


def test_an_end_leaves_no_thread_and_no_descriptor(child: subprocess.Popen[bytes]) -> None:
    threads, descriptors = threading.active_count(), open_files(os.getpid())
    with child_in_gaps(CONFIG, child):
        eventually(lambda: cpu_s(child.pid) > 0.1)
        child.kill()
        child.wait(timeout=5.0)
    eventually(lambda: threading.active_count() <= threads)
    assert open_files(os.getpid()) <= descriptors


def test_what_goes_wrong_leaves_no_child_standing(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> float:
        raise RuntimeError("a bug")

    monkeypatch.setattr(gaps_module._Gaps, "_moment", fails)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with child_in_gaps(CONFIG, child):
        before_s = cpu_s(child.pid)
        eventually(lambda: cpu_s(child.pid) > before_s + 0.1)


@pytest.mark.parametrize("config", [replace(CONFIG, device_id=0), replace(CONFIG, emulated="emulated-a100-0")])
def test_beside_lanes_that_are_no_cores_it_is_left_alone(
    config: EngineConfig, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps_module, "join_to_load", None)
    with child_in_gaps(config, child):
        assert state(child.pid) != "T"


def test_without_a_scheduler_it_runs_all_the_same(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise ConfigError("no")

    monkeypatch.setattr("backend.model_process.loading.joining.Dispatcher", refused)
    with child_in_gaps(CONFIG, child):
        before_s = cpu_s(child.pid)
        eventually(lambda: cpu_s(child.pid) > before_s + 0.1)


def test_one_that_stands_still_ends_with_its_parent() -> None:
    """Also where another process of its session takes it over, as in a container with an init process."""
    child = "from profiler.child import end_with_parent; end_with_parent(); print(flush=True); input()"
    parent = (
        "import os, signal, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], process_group=0, stdin=-1, stdout=-1)\n"
        "child.stdout.readline()\n"
        "os.kill(child.pid, signal.SIGSTOP)\n"
        "print(child.pid, flush=True)\n"
        "input()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", parent], stdin=pipe, stdout=pipe, cwd=CODE_ROOT) as process:
        assert process.stdout is not None
        child_id = int(process.stdout.readline())
        eventually(lambda: state(child_id) == "T")
        os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: state(child_id) in ("", "Z"))


def state(process: int) -> str:
    """Letter of the kernel's for a process, "" where there is none."""
    return stat(process)[0] if stat(process) else ""


def cpu_s(process: int) -> float:
    """CPU time that a process has spent."""
    return (int(stat(process)[11]) + int(stat(process)[12])) / os.sysconf("SC_CLK_TCK")


def stat(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
