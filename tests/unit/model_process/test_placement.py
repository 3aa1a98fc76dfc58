"""Whether a model's engine lives in the model's process or in the engine process of its device."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from backend.config.model_config import EngineConfig
from backend.config.parameters import Parameters
from backend.model_process.placement import in_engine_process

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
