"""Calls of Triton's at a model's load, made here: the same checks as in a model's process, at a hundredth of its price.

No process is started: engines are opened by nobody, and a model's trial is given. config.pbtxt is parsed by protobuf's
Python library, which lets more pass than Triton does.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

from backend.engines.loading import read_model_specs
from backend.errors import ConfigError
from backend.profiling.repository import read_config
from backend.trial.messages import Trial
from tests.server.malformed.model_folder import Folder

_MODULE = "backend.triton_model"
_OF_TRITON = ("exporter", "shared_memory", "responder", "instance", "tensor_check")
_TRIAL = Trial(batch=True, batches=True)


@contextmanager
def entry_point() -> Iterator[Any]:
    """The module that a model's process imports, with stand-ins for what lies behind its checks."""
    triton: Any = ModuleType("triton_python_backend_utils")
    triton.TritonModelException = type("TritonModelException", (Exception,), {})
    triton.Tensor = object
    names = [_MODULE, *(f"backend.model_process.{name}" for name in _OF_TRITON)]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        with patch.dict(sys.modules, {"triton_python_backend_utils": triton}):
            module: Any = importlib.import_module(_MODULE)
            with (
                patch.object(module, "check_tensors_come_through", lambda: None),
                patch.object(module, "_opened", lambda config, _: _engine(config)),
                patch.object(module, "tried", lambda *_, **__: _TRIAL),
                patch.object(module, "Instance", lambda *_: SimpleNamespace(close=lambda: None)),
                patch.object(module, "raise_priority", lambda: None),
                patch("backend.trial.completion.tried", lambda *_, **__: _TRIAL),
            ):
                yield module
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


def said_of(module: Any, place: Path, folder: Folder) -> str:
    """The sentence that a load ends with, empty where it does not fail. Whatever else is raised is a bug."""
    name = place.name
    for path, content in folder.files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    version = max((each.name for each in place.iterdir() if each.is_dir() and each.name.isdecimal()), default="1")
    model = module.TritonPythonModel
    try:
        config = read_config(place / "config.pbtxt")
        config["name"] = name
        with patch.object(module, "_version_directory_of_this_process", lambda: place / version):
            model.auto_complete_config(SimpleNamespace(as_dict=lambda: config))
        arguments = {
            "model_config": json.dumps(config),
            "model_name": name,
            "model_version": version,
            "model_repository": str(place),
            "model_instance_name": f"{name}_0",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
        }
        model().initialize(arguments)
    except ConfigError as error:  # of the parser that stands for Triton's
        return str(error)
    except Exception as error:
        if type(error).__name__ != "TritonModelException":
            raise
        return str(error)
    return ""


def _engine(config: Any) -> SimpleNamespace:
    specs = read_model_specs(config.model_file, config.device_id, config.onnx)
    return SimpleNamespace(inputs=specs.inputs, outputs=specs.outputs, close=lambda: None)
