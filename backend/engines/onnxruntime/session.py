"""ONNX Runtime's sessions: opens a model file, and reads its inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import onnxruntime

from backend.engines.protocol import DEFAULT_ONNX_OPTIONS, ModelSpecs, OnnxOptions, check_file
from backend.errors import ConfigError
from backend.tensors import BY_ONNX, TensorSpec

# Warnings of ONNX Runtime about a graph go to the server's log on each load; errors reach us as exceptions.
_ERRORS_ONLY = 3
CPU = "CPUExecutionProvider"
_NO_ENTRIES: Mapping[str, str] = MappingProxyType({})
_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""As Triton's ONNX Runtime backend reads `optimization.graph.level`."""
_NOT_OF_ONNX_RUNTIME = re.compile(r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op")


def read_specs(path: Path, onnx_options: OnnxOptions = DEFAULT_ONNX_OPTIONS) -> ModelSpecs:
    """Inputs and outputs that a model file declares, read without optimising it, which may change them.

    Raises ConfigError.
    """
    session = open_session(path, optimize=False, onnx_options=onnx_options)
    inputs = _ranked(input_specs(session, path), path)
    unserved = {node.name: why for node in session.get_outputs() if (why := _why_unserved(node)) is not None}
    outputs = [_spec(node, path) for node in session.get_outputs() if node.name not in unserved]
    if not outputs:
        name, why = next(iter(unserved.items()))
        raise ConfigError(f"no output of '{path}' can be served: '{name}' is {why}")
    return ModelSpecs(inputs, _ranked(outputs, path), unserved=unserved)


def input_specs(session: onnxruntime.InferenceSession, path: Path) -> tuple[TensorSpec, ...]:
    """Inputs: the required ones, then those with a default."""
    required = [_spec(node, path) for node in session.get_inputs()]
    return (*required, *(_spec(node, path, optional=True) for node in session.get_overridable_initializers()))


def output_specs(session: onnxruntime.InferenceSession, path: Path) -> tuple[TensorSpec, ...]:
    """Outputs that can be served."""
    return tuple(_spec(node, path) for node in session.get_outputs() if _why_unserved(node) is None)


def open_session(
    path: Path,
    providers: Sequence[object] = (CPU,),
    *,
    optimize: bool = True,
    threads: int = 1,
    entries: Mapping[str, str] = _NO_ENTRIES,
    content: bytes | None = None,
    onnx_options: OnnxOptions = DEFAULT_ONNX_OPTIONS,
) -> onnxruntime.InferenceSession:
    """Open a session. providers: in order of preference. threads: for what runs on the CPU. entries: of ONNX Runtime's
    session configuration. content: a model in place of the file's.

    Raises ConfigError.
    """
    check_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    options.graph_optimization_level = _LEVELS[onnx_options.graph_level if optimize else 2]
    options.enable_cpu_mem_arena, options.enable_mem_pattern = onnx_options.memory_arena, onnx_options.memory_pattern
    for library in onnx_options.op_libraries:
        _register(options, library)
    try:
        # Its own fallback would hide why a provider is not available, and serve on another.
        return onnxruntime.InferenceSession(
            str(path) if content is None else content, options, providers=list(providers), enable_fallback=0
        )
    except Exception as error:
        why = first_line(error)
        if unknown := _NOT_OF_ONNX_RUNTIME.search(why):
            nor = "".join(f", nor of '{library}'" for library in onnx_options.op_libraries)
            raise ConfigError(
                f"'{path}' has the operator {unknown[1]}, which is not one of ONNX Runtime "
                f"{onnxruntime.__version__}{nor}; name the library that has it in "
                'config.pbtxt: model_operations { op_library_filename: "FILE" }'
            ) from error
        raise ConfigError(f"ONNX Runtime cannot load '{path}': {why}") from error


def _register(options: onnxruntime.SessionOptions, library: str) -> None:
    try:
        options.register_custom_ops_library(library)
    except Exception as error:
        raise ConfigError(
            f"the custom operators of op_library_filename '{library}' cannot be had: {first_line(error)}"
        ) from error


def _spec(node: onnxruntime.NodeArg, path: Path, *, optional: bool = False) -> TensorSpec:
    if (why := _why_unserved(node)) is not None:
        raise ConfigError(f"'{node.name}' of '{path}' is {why}")
    # No request and no config.pbtxt of Triton's can hold a dimension of 0, but for one that is dynamic.
    shape = tuple(d if isinstance(d, int) and d > 0 else -1 for d in node.shape)
    names = tuple("" if d is None else str(d) for d in node.shape)
    return TensorSpec(node.name, BY_ONNX[node.type], shape, optional, dim_names=names)


def _why_unserved(node: onnxruntime.NodeArg) -> str | None:
    """Reason why no tensor of Triton can hold it, None where one can."""
    if node.type in BY_ONNX:
        return None
    if node.type.startswith(("seq(map(", "map(")):
        advice = "export the classifier without ZipMap (skl2onnx: options={'zipmap': False}), so that it is a tensor"
    elif node.type.startswith(("seq(", "optional(")):
        advice = "let the model give it as a tensor, as with ConcatFromSequence or OptionalGetElement"
    else:
        advice = f"types that can be served: {', '.join(sorted(BY_ONNX))}"
    return f"{node.type}, which cannot be served; {advice}"


def _ranked(specs: Sequence[TensorSpec], path: Path) -> tuple[TensorSpec, ...]:
    """Specs with those of unknown rank marked, which ONNX Runtime shows like scalars."""
    if all(spec.shape for spec in specs):
        return tuple(specs)
    import onnx  # noqa: PLC0415 - a process that serves keeps no more of it than it must

    graph = onnx.load(path, load_external_data=False).graph
    values = (*graph.input, *graph.output)
    open_ = {value.name for value in values if not value.type.tensor_type.HasField("shape")}
    return tuple(replace(spec, ranked=bool(spec.shape) or spec.name not in open_) for spec in specs)


def first_line(error: Exception) -> str:
    """ONNX Runtime's message of an error without its backtrace."""
    return str(error).strip().split("\n", 1)[0]
