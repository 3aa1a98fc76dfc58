"""Who shares a GPU and how fast it may run: real sockets for MPS, pynvml with a driver's answers made up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from backend.device import mps
from backend.device.nvml import Gpu, Identity, State, slowed_by
from backend.errors import ConfigError


@pytest.fixture(autouse=True)
def pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(mps.PIPE_DIRECTORY, str(tmp_path))
    monkeypatch.setenv(mps.SHARE, "")  # so that it is put back however the test leaves it
    monkeypatch.delenv(mps.SHARE)
    return tmp_path


@pytest.fixture(params=[socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def daemon(request: pytest.FixtureRequest, pipes: Path) -> Iterator[socket.socket]:
    """As nvidia-cuda-mps-control listens."""
    with socket.socket(socket.AF_UNIX, request.param) as listening:
        listening.bind(str(pipes / "control"))
        listening.listen()
        yield listening


def test_a_daemon_that_listens(daemon: socket.socket) -> None:
    assert mps.mps_runs()
    daemon.setblocking(False)
    with pytest.raises(BlockingIOError):
        daemon.accept()  # it was not disturbed


def test_a_socket_that_outlived_its_daemon(daemon: socket.socket, pipes: Path) -> None:
    daemon.close()
    assert (pipes / "control").exists()
    assert not mps.mps_runs()


def test_no_daemon(pipes: Path) -> None:
    assert not mps.mps_runs()
    with pytest.raises(ConfigError) as refused:
        mps.limit_multiprocessors(30)
    assert str(refused.value) == (
        f"parameter 'mps_percent' is \"30\", but no MPS daemon listens in '{pipes}'; "
        "start it with `nvidia-cuda-mps-control -d`, or set CUDA_MPS_PIPE_DIRECTORY"
    )
    assert mps.share_percent() is None


@pytest.mark.usefixtures("daemon")
def test_the_share_is_set_for_cuda_to_read() -> None:
    mps.limit_multiprocessors(30)
    assert os.environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "30"
    mps.limit_multiprocessors(30)
    with pytest.raises(ConfigError, match=r"^parameter 'mps_percent' is \"40\", but this process has 30 % already;"):
        mps.limit_multiprocessors(40)


def test_reasons_in_words() -> None:
    assert slowed_by(pynvml.nvmlClocksThrottleReasonGpuIdle) == ()
    assert slowed_by(pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting) == ()
    mask = pynvml.nvmlClocksThrottleReasonSwPowerCap | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
    assert slowed_by(mask) == ("its power cap", "heat, as the hardware sees it")


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is a driver here")
def test_no_driver() -> None:
    with pytest.raises(ConfigError, match=r"^NVIDIA's driver does not answer: NVML Shared Library Not Found$"):
        Gpu("0000:01:00.0")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a driver answers, by NVML's function; an exception is raised."""
    answers: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetHandleByPciBusId": "handle",
        "nvmlDeviceGetCudaComputeCapability": (9, 0),
        "nvmlDeviceGetName": "NVIDIA H200",
        "nvmlDeviceGetUUID": "GPU-1",
        "nvmlSystemGetDriverVersion": "570.1",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=150, used=50),
        "nvmlDeviceGetMaxClockInfo": 1980,
        "nvmlDeviceGetClockInfo": 1500,
        "nvmlDeviceGetCurrentClocksThrottleReasons": pynvml.nvmlClocksThrottleReasonSwPowerCap,
    }

    def answering(name: str) -> Any:
        def answer(*_: object) -> Any:
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name]

        return answer

    for name in answers:
        monkeypatch.setattr(pynvml, name, answering(name))
    return answers


@pytest.mark.usefixtures("driver")
def test_identity_and_state() -> None:
    with Gpu("0000:65:00.0") as gpu:
        assert gpu.identity() == Identity(
            "NVIDIA H200",
            "GPU-1",
            "0000:65:00.0",
            "9.0",
            "570.1",
            150,
            sm_clock_mhz_max=1980,
            memory_clock_mhz_max=1980,
        )
        assert gpu.state() == State(50, 1500, 1500, slowed_by=("its power cap",), mps=False)


def test_what_a_gpu_does_not_tell(driver: dict[str, Any]) -> None:
    unsupported = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    driver |= {"nvmlDeviceGetCurrentClocksThrottleReasons": unsupported, "nvmlDeviceGetClockInfo": unsupported}
    with Gpu("0000:65:00.0") as gpu:
        assert gpu.state() == State(50, None, None, slowed_by=None, mps=False)


def test_no_such_gpu(driver: dict[str, Any]) -> None:
    driver["nvmlDeviceGetHandleByPciBusId"] = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    with pytest.raises(ConfigError, match=r"^there is no GPU at '0000:99:00.0': Not Found$"):
        Gpu("0000:99:00.0")
