"""Options that a model file is opened with. ONNX Runtime's have the keys of Triton's own backend for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from backend.errors import ConfigError

_SWITCH = {"0": False, "false": False, "1": True, "true": True}


class OnnxOptions(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Options of ONNX Runtime's sessions in config.pbtxt. op_libraries: files of custom operators. graph_level: of its
    optimisations, as in config.pbtxt. memory_arena, memory_pattern: how it takes memory on the CPU.
    """

    op_libraries: tuple[str, ...] = ()
    graph_level: int = 0
    memory_arena: bool = True
    memory_pattern: bool = True

    @property
    def unusual(self) -> str:
        """Options other than the default that timings depend on, for `Engine.identity`."""
        told = {
            f", graph level {self.graph_level}": self.graph_level != 0,
            ", no memory arena": not self.memory_arena,
            ", no memory pattern": not self.memory_pattern,
        }
        return "".join(what for what, so in told.items() if so)


AS_USUAL = OnnxOptions()


class EngineOptions(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Options that a model file is opened with. device_id: a GPU, None on CPU. lanes: opened at load; another is opened
    when a batch comes for it. max_batch_size: 0 where the model does not batch. priority: the class of the model, 1 is
    the highest: on a GPU its kernels precede those of lower classes. onnx: for a model.onnx.
    """

    device_id: int | None
    lanes: int
    max_batch_size: int
    priority: int = 1
    onnx: OnnxOptions = AS_USUAL


def read_onnx_options(config: Mapping[str, Any], model_file: Path) -> OnnxOptions:
    """Read the options. Raises ConfigError on values that cannot be read, or a library that does not exist."""
    named = (config.get("model_operations") or {}).get("op_library_filename") or ()
    parameters = config.get("parameters") or {}
    return OnnxOptions(
        op_libraries=tuple(_library(str(name), model_file) for name in named),
        graph_level=_level(config),
        memory_arena=_switch(parameters, "enable_mem_arena"),
        memory_pattern=_switch(parameters, "enable_mem_pattern"),
    )


def _library(name: str, model_file: Path) -> str:
    """Find a library beside the model file, in the model's folder, or as Triton's own backend does: from the server's
    working directory, and where the name is no path, wherever the system's loader finds it.
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
        raise ConfigError(f'parameter \'{name}\' is "{text}"; it must be "0" or "1"')
    return _SWITCH[text.strip().lower()]
