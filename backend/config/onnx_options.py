"""Options of ONNX Runtime's sessions in config.pbtxt, by the keys that Triton's own backend for it knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.engines.protocol import OnnxOptions
from backend.errors import ConfigError, quoted

_SWITCH = {"0": False, "false": False, "1": True, "true": True}


def read_onnx_options(config: Mapping[str, Any], model_file: Path) -> OnnxOptions:
    """Raises ConfigError on what cannot be read, or on a library that is not there."""
    named = (config.get("model_operations") or {}).get("op_library_filename") or ()
    parameters = config.get("parameters") or {}
    return OnnxOptions(
        op_libraries=tuple(_library(str(name), model_file) for name in named),
        graph_level=_level(config),
        memory_arena=_switch(parameters, "enable_mem_arena"),
        memory_pattern=_switch(parameters, "enable_mem_pattern"),
    )


def options_without_effect(options: OnnxOptions, engine: str) -> list[str]:
    """Sentences for the options that are set, where another engine than ONNX Runtime runs the model.

    Libraries of operators are not among them: `open_engine` refuses those.
    """
    if engine == "onnxruntime":
        return []
    usual = OnnxOptions()
    set_ = {
        "optimization graph level": options.graph_level != usual.graph_level,
        "parameter 'enable_mem_arena'": options.memory_arena != usual.memory_arena,
        "parameter 'enable_mem_pattern'": options.memory_pattern != usual.memory_pattern,
    }
    return [
        f"{name} has no effect: it is for ONNX Runtime, but the engine of this model is {engine}; leave it out"
        for name, applies in set_.items()
        if applies
    ]


def _library(name: str, model_file: Path) -> str:
    """Beside the model file, in the model's folder, or as Triton's own backend has it: from the server's working
    directory, and where the name is no path, wherever the system's loader finds it.
    """
    folders = (model_file.parent, model_file.parent.parent, Path.cwd())
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is not None:
        return str(found.absolute())
    if "/" not in name:
        return name
    places = "" if Path(name).is_absolute() else " in " + ", ".join(f"'{folder}'" for folder in folders)
    raise ConfigError(f"op_library_filename in model_operations is '{name}', but there is no such file{places}")


def _level(config: Mapping[str, Any]) -> int:
    level = int(((config.get("optimization") or {}).get("graph") or {}).get("level") or 0)
    if level not in (-1, 0, 1, 2):
        raise ConfigError(
            f"optimization graph level is {level}; it must be -1 (basic optimisations), 0 (all), 1 (extended) or "
            "2 (none)"
        )
    return level


def _switch(parameters: Mapping[str, Mapping[str, str]], name: str) -> bool:
    text = parameters.get(name, {}).get("string_value", "1")
    if text.strip().lower() not in _SWITCH:
        raise ConfigError(f'parameter \'{name}\' is "{quoted(text)}"; it must be "0" or "1"')
    return _SWITCH[text.strip().lower()]
