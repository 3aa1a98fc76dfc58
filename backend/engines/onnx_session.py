"""ONNX Runtime's sessions: how a model file is opened, and what it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import onnxruntime

from backend.datatypes import BY_ONNX
from backend.engines.protocol import TensorSpec
from backend.errors import ConfigError

# Warnings of ONNX Runtime about a graph go to the server's log on each load; errors reach us as exceptions.
_ERRORS_ONLY = 3
CPU = "CPUExecutionProvider"
_NO_ENTRIES: Mapping[str, str] = MappingProxyType({})


def read_specs(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a model file, without preparing it to run."""
    session = open_session(path, optimize=False)
    return input_specs(session, path), output_specs(session, path)


def input_specs(session: onnxruntime.InferenceSession, path: Path) -> tuple[TensorSpec, ...]:
    """Required inputs, then those with a default."""
    required = [_spec(node, path) for node in session.get_inputs()]
    return (*required, *(_spec(node, path, optional=True) for node in session.get_overridable_initializers()))


def output_specs(session: onnxruntime.InferenceSession, path: Path) -> tuple[TensorSpec, ...]:
    """All outputs."""
    return tuple(_spec(node, path) for node in session.get_outputs())


def open_session(
    path: Path,
    providers: Sequence[object] = (CPU,),
    *,
    optimize: bool = True,
    threads: int = 1,
    entries: Mapping[str, str] = _NO_ENTRIES,
) -> onnxruntime.InferenceSession:
    """providers: in order of preference. threads: for what runs on the CPU. entries: of ONNX Runtime's configuration.

    Raises ConfigError.
    """
    if not path.is_file():
        raise ConfigError(f"there is no model file '{path}'")
    if path.stat().st_size == 0:
        raise ConfigError(f"the model file '{path}' is empty")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # Its own fallback would hide why a provider cannot be had, and serve on another.
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers), enable_fallback=0)
    except Exception as error:
        raise ConfigError(f"ONNX Runtime cannot load '{path}': {first_line(error)}") from error


def _spec(node: onnxruntime.NodeArg, path: Path, *, optional: bool = False) -> TensorSpec:
    if node.type not in BY_ONNX:
        raise ConfigError(
            f"'{node.name}' of '{path}' has type {node.type}, which cannot be served; "
            f"types that can: {', '.join(sorted(BY_ONNX))}"
        )
    shape = tuple(d if isinstance(d, int) else -1 for d in node.shape)
    return TensorSpec(node.name, BY_ONNX[node.type], shape, optional)


def first_line(error: Exception) -> str:
    """What ONNX Runtime says of an error, without its backtrace."""
    return str(error).strip().split("\n", 1)[0]
