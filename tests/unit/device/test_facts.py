"""What a GPU is, who shares it, what slows it down: real sockets for MPS, NVIDIA's modules with made-up answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from backend.device import mps
from backend.device.clocks import ASK_EVERY_S, CachedAnswer, throttled_of
from backend.device.facts import device_name, open_gpu
from backend.device.nvml import Gpu, GpuIdentity, slowed_by
from backend.errors import ConfigError
from profiler.host import cpu_name
from tests.fakes.driver import ADDRESS, OK, made_up_driver


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
    assert mps.stated_share() is None


@pytest.mark.usefixtures("daemon")
def test_the_share_is_set_for_cuda_to_read() -> None:
    mps.limit_multiprocessors(30)
    assert os.environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "30"
    assert mps.stated_share() == "30 % of the multiprocessors"
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
    return made_up_driver(monkeypatch)


def asked(monkeypatch: pytest.MonkeyPatch, name: str) -> list[object]:
    """What NVML's function is given."""
    given: list[object] = []
    monkeypatch.setattr(pynvml, name, lambda *arguments: given.extend(arguments))
    return given


@pytest.mark.usefixtures("driver")
def test_a_gpu_is_its_name_its_memory_and_its_driver() -> None:
    with open_gpu(0) as gpu:
        assert gpu.identity() == GpuIdentity("NVIDIA A100-SXM4-40GB", 40 << 30, "570.1")
    assert device_name(0) == "NVIDIA A100-SXM4-40GB, 40960 MiB, driver 570.1"
    assert device_name(None) == cpu_name()


@pytest.mark.usefixtures("driver")
def test_nvml_is_asked_for_the_gpu_that_cuda_counts_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given = asked(monkeypatch, "nvmlDeviceGetHandleByPciBusId")
    open_gpu(0).close()
    assert given == [ADDRESS]


def test_what_slows_it_down_now(driver: dict[str, Any]) -> None:
    with open_gpu(0) as gpu:
        assert gpu.slowed_by() == ()
        driver["nvmlDeviceGetCurrentClocksThrottleReasons"] = pynvml.nvmlClocksThrottleReasonSwPowerCap
        assert gpu.slowed_by() == ("its power cap",)
        for error in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_GPU_IS_LOST):
            driver["nvmlDeviceGetCurrentClocksThrottleReasons"] = pynvml.NVMLError(error)
            assert gpu.slowed_by() is None


def test_its_clocks_now(driver: dict[str, Any]) -> None:
    with open_gpu(0) as gpu:
        assert gpu.clocks_mhz() == (1410, 1215)
        driver["nvmlDeviceGetClockInfo"] = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        assert gpu.clocks_mhz() is None


def test_a_gpu_that_does_not_tell_what_it_is(driver: dict[str, Any]) -> None:
    driver["nvmlDeviceGetMemoryInfo"] = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    with pytest.raises(ConfigError, match=r"^the GPU at '0000:65:00.0' does not tell what it is: Not Supported$"):
        device_name(0)


def test_a_number_that_no_gpu_has(driver: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^there is no GPU 1: this process sees GPU 0$"):
        device_name(1)
    driver["cudaGetDeviceCount"] = (OK, 0)
    with pytest.raises(ConfigError, match=r"^KIND_GPU needs a GPU, but this process sees none; CUDA_VISIBLE_DEVICES"):
        device_name(0)


def test_no_such_gpu_to_nvml(driver: dict[str, Any]) -> None:
    driver["nvmlDeviceGetHandleByPciBusId"] = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    with pytest.raises(ConfigError, match=r"^there is no GPU at '0000:65:00.0': Not Found$"):
        device_name(0)


def test_a_driver_is_asked_once_a_second_at_most() -> None:
    now_s, answers = 10.0, iter((True, False))
    asked = CachedAnswer(lambda: next(answers), lambda: now_s)
    assert asked() is True
    now_s += ASK_EVERY_S - 0.01
    assert asked() is True
    now_s += 0.01
    assert asked() is False


@pytest.mark.parametrize(
    ("answer", "throttled"),
    [
        (pynvml.nvmlClocksThrottleReasonGpuIdle, False),
        (pynvml.nvmlClocksThrottleReasonSwThermalSlowdown, True),
        (pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED), None),
    ],
)
def test_a_gpus_clocks(answer: Any, throttled: bool | None, driver: dict[str, Any]) -> None:
    driver["nvmlDeviceGetCurrentClocksThrottleReasons"] = answer
    assert throttled_of("gpu-0")() is throttled


def test_clocks_that_nobody_can_ask_for(driver: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert throttled_of("cpu")() is None
    assert caplog.text == ""
    driver["nvmlInit"] = pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert throttled_of("gpu-0")() is None
    assert "samples do not tell whether the clocks of gpu-0 were throttled: NVIDIA's driver does not" in caplog.text
