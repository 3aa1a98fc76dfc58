"""Models that are loaded again, or unloaded and loaded, with requests under way."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial

import tritonclient.grpc as triton_grpc

from tests.chaos.account import Allowance
from tests.chaos.faults.fault import Fault, Undo, nothing_to_undo
from tests.chaos.models import SPARE
from tests.chaos.stage import Stage

_LOAD_S = 60.0
_TEST = "server/test_load_unload.py::test_a_model_comes_and_goes_beside_another"
GONE = (
    Allowance("a model that is not loaded is unknown", _TEST, r"Request for unknown model: '\w+'", (SPARE,)),
    Allowance(
        "a model that is not loaded is not ready", _TEST, r"model '?\w+'? .*(is not|has no) (ready|available)", (SPARE,)
    ),
)


def reload(stage: Stage) -> Undo:
    """Load a model whose files changed while it serves: Triton starts the new one, then drains the old one."""
    os.utime(stage.model_folder(SPARE) / "config.pbtxt")
    os.utime(stage.model_folder(SPARE) / "1" / "model.onnx")
    _load(stage)
    return nothing_to_undo


def unload(stage: Stage) -> Undo:
    """Unload a model, and load it in the end."""
    with closing(triton_grpc.InferenceServerClient(stage.server.grpc_url)) as client:
        client.unload_model(SPARE)
    return partial(_load, stage)


def load_again(stage: Stage) -> None:
    """Unload a model whose process is gone, and load it."""
    unload(stage)()


def _load(stage: Stage) -> None:
    with closing(triton_grpc.InferenceServerClient(stage.server.grpc_url)) as client:
        client.load_model(SPARE, client_timeout=_LOAD_S)


FAULTS = (
    Fault("load a model that changed", reload, stops_decisions=True),
    Fault("unload a model and load it", unload, 0.5, GONE, stops_decisions=True),
)
