"""Whether a model's engine lives in the model's process or in the engine process of its device."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from backend.config.model_config import EngineConfig
from backend.config.parameters import Parameters
from backend.errors import ConfigError
from backend.model_process.placement import in_engine_process, open_engine
from tests.fakes.emulated import spec, write_spec

PIPES = "CUDA_MPS_PIPE_DIRECTORY"


def shared(engine_process: str, device_id: int | None) -> bool:
    parameters = Parameters(engine_process=engine_process)
    return in_engine_process(EngineConfig("m", "1", Path("model.onnx"), 8, parameters, device_id))


@pytest.fixture
def mps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PIPES, str(tmp_path))
    return tmp_path


def test_what_is_asked_for_is_done() -> None:
    for device_id in (None, 0):
        assert shared("shared", device_id)
        assert not shared("own", device_id)


def test_auto_shares_on_a_gpu_without_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIPES, "/nowhere")
    assert shared("auto", 0)
    assert not shared("auto", None)


def test_auto_does_not_share_under_mps(mps: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        daemon.bind(str(mps / "control"))
        daemon.listen()
        assert not shared("auto", 0)
    assert shared("auto", 0), "nobody listens any more"


def test_a_folder_in_which_no_daemon_listens_is_no_mps(mps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mps / "control").write_text("")
    assert shared("auto", 0)
    monkeypatch.setenv(PIPES, str(mps / "nowhere"))
    assert shared("auto", 0)


def test_an_emulated_models_class_and_share_reach_its_engine() -> None:
    asked = Parameters(mps_percent=30, priority=2)
    options = EngineConfig("m", "1", Path("m"), 4, asked, None, emulated="emulated-test-0", time_dilation=4.0).options(
        3
    )

    assert (options.mps_percent, options.priority, options.time_dilation, options.lanes) == (30, 2, 4.0, 3)


def test_a_share_of_an_emulated_device_in_time_slices_is_refused(tmp_path: Path) -> None:
    file = write_spec(tmp_path, "one", spec(regime="time slices"))
    config = EngineConfig("one", "1", file, 4, Parameters(mps_percent=30), None, emulated="emulated-test-0")

    with pytest.raises(
        ConfigError, match=r"'mps_percent' is \"30\", but device\.regime is \"time slices\" in .*; leave it out"
    ):
        open_engine(config)
