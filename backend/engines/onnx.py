"""ONNX Runtime on CPU as an engine: a thread per core of a lane, so that a batch stays on the cores of its lane."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

# Since 1.29 ONNX Runtime reports each session to its vendor, from the moment of its import, unless told not to before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from backend.aside import Aside
from backend.datatypes import BY_ONNX
from backend.engines.parts import joined
from backend.engines.protocol import AS_IT_IS, Alone, Array, Executing, Feeds, Ran, TensorSpec
from backend.errors import ConfigError, EngineError

# Warnings of ONNX Runtime about a graph go to the server's log on each load; errors reach us as exceptions.
_ERRORS_ONLY = 3
CPU = "CPUExecutionProvider"
NO_ENTRIES: Mapping[str, str] = MappingProxyType({})


class OnnxEngine:
    """A `model.onnx` in this process. `run` may be called from several threads at once."""

    lost = None

    def __init__(self, path: Path, teams: Sequence[Sequence[int]] = ((0,),)) -> None:
        """teams: the cores of each lane, as many for each. Raises ConfigError."""
        # One core to a lane needs no threads but the lane's own, so that all lanes may run one session.
        threads = len(teams[0])
        self._sessions = [_open_for(team, path) for team in teams] if threads > 1 else [open_session(path, [CPU])]
        self.inputs = input_specs(self._sessions[0], path)
        self.outputs = output_specs(self._sessions[0], path)
        per_batch = "1 thread" if threads == 1 else f"{threads} threads"
        self.identity = f"onnxruntime {onnxruntime.__version__} {CPU}, {per_batch} per batch"
        self._has_text = any(spec.datatype.numpy.hasobject for spec in (*self.inputs, *self.outputs))

    def run(self, lane: int, feeds: Feeds, outputs: Sequence[str], executing: Executing = AS_IT_IS) -> Ran:
        """See `Engine.run`."""
        assert self._sessions, "run after close"
        session = self._sessions[lane % len(self._sessions)]
        inputs = {name: joined(parts) for name, parts in feeds.items()}
        try:
            run = _run_at_once if self._has_text or isinstance(executing, Alone) else _run_bound
            return run(session, inputs, list(outputs), executing)
        except Exception as error:
            # ONNX Runtime's exceptions share no base class of their own below Exception.
            raise EngineError(f"the model's run failed: {first_line(error)}") from error

    def close(self) -> None:
        """See `Engine.close`."""
        self._sessions.clear()


def _open_for(team: Sequence[int], path: Path) -> onnxruntime.InferenceSession:
    """For batches of a thread on the first core of the team: a helper of the session's own stays on each other core.

    Helpers inherit the rank of the thread that opens the session, so that they go after others as the lane's own does.
    They spin between two operators, but not between two batches.
    """
    options = {
        "session.intra_op_thread_affinities": ";".join(str(core + 1) for core in team[1:]),
        "session.force_spinning_stop": "1",
    }
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(_open_aside, path, len(team), options).result()


def _open_aside(path: Path, threads: int, options: Mapping[str, str]) -> onnxruntime.InferenceSession:
    with Aside(behind=True):
        return open_session(path, [CPU], threads=threads, entries=options)


def _run_bound(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], outputs: list[str], executing: Executing
) -> Ran:
    """Arrays become the library's own before the execution, and its own arrays after it."""
    binding = session.io_binding()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
    for name, value in values.items():  # `bind_cpu_input` does not know the inputs that have a default
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name)
    with executing:
        started_ns = time.perf_counter_ns()
        session.run_with_iobinding(binding)
        exec_ns = time.perf_counter_ns() - started_ns
    return Ran(binding.copy_outputs_to_cpu(), exec_ns)


def _run_at_once(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], outputs: list[str], executing: Executing
) -> Ran:
    """Arrays are converted on the way in and out. The least Python, which is slow where a batch emptied the caches.

    Text cannot be bound, and as an output would end the process.
    """
    with executing:
        started_ns = time.perf_counter_ns()
        results = session.run(outputs, inputs)
        return Ran(results, time.perf_counter_ns() - started_ns)


def read_specs(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a model file, without preparing it to run."""
    session = open_session(path, [CPU], optimize=False)
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
    providers: Sequence[object],
    *,
    optimize: bool = True,
    threads: int = 1,
    entries: Mapping[str, str] = NO_ENTRIES,
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
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
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
