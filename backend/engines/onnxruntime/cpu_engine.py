"""ONNX Runtime on CPU as an engine: a thread per core of a lane, so that a batch stays on the cores of its lane."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import onnxruntime

from backend.engines.onnxruntime.intra_op_threads import NO_SPINNING, open_pinned_session
from backend.engines.onnxruntime.session import CPU, first_line, input_specs, open_session, output_specs
from backend.engines.protocol import DEFAULT_ONNX_OPTIONS, BatchResult, OnnxOptions
from backend.errors import EngineError
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority, IntraOpThreads
from backend.tensors import Array, Feeds, joined


class OnnxCpuEngine:
    """A `model.onnx` in this process. `run` may be called from several threads at once."""

    lost = None

    def __init__(
        self,
        path: Path,
        lane_cores: Sequence[Sequence[int]] = ((0,),),
        onnx_options: OnnxOptions = DEFAULT_ONNX_OPTIONS,
        *,
        pinned: bool = True,
    ) -> None:
        """lane_cores: the cores of each lane, as many for each. pinned: intra-op threads stay on their lane's cores.

        Raises ConfigError.
        """
        # A lane of one core needs no thread but its own, so that all lanes may run one session.
        threads = len(lane_cores[0])
        self._sessions: list[tuple[onnxruntime.InferenceSession, IntraOpThreads | None]]
        if threads == 1:
            self._sessions = [(open_session(path, onnx_options=onnx_options), None)]
        elif pinned:
            self._sessions = [open_pinned_session(path, cores, onnx_options) for cores in lane_cores]
        else:
            unpinned = partial(open_session, path, threads=threads, entries=NO_SPINNING, onnx_options=onnx_options)
            self._sessions = [(unpinned(), None) for _ in lane_cores]
        self.inputs, self.outputs = input_specs(self._sessions[0][0], path), output_specs(self._sessions[0][0], path)
        per_batch = "1 thread" if threads == 1 else f"{threads} threads"
        self.identity = f"onnxruntime {onnxruntime.__version__} {CPU}, {per_batch} per batch{onnx_options.deviations}"
        self._has_text = any(spec.datatype.numpy.hasobject for spec in (*self.inputs, *self.outputs))

    def run(
        self,
        lane: int,
        feeds: Feeds,
        outputs: Sequence[str],
        priority: ExecutionPriority = ORDINARY_PRIORITY,
        *,
        exclusive: bool = False,
    ) -> BatchResult:
        """See `Engine.run`."""
        assert self._sessions, "run after close"
        session, threads = self._sessions[lane % len(self._sessions)]
        inputs, names = {name: joined(parts) for name, parts in feeds.items()}, list(outputs)
        try:
            # Without a binding the library converts arrays within the run: that takes the least Python, which is slow
            # after a batch has emptied the caches. Text cannot be bound, and as an output would end the process.
            binding = None if self._has_text or exclusive else _bind(session, inputs, names)
            with priority:
                if threads is not None:
                    priority.include(threads)
                started_ns = time.perf_counter_ns()
                results = session.run(names, inputs) if binding is None else session.run_with_iobinding(binding)
                exec_ns = time.perf_counter_ns() - started_ns
            return BatchResult(results if binding is None else binding.copy_outputs_to_cpu(), exec_ns)
        except Exception as error:
            # ONNX Runtime's exceptions share no base class of their own below Exception.
            raise EngineError(f"the model's run failed: {first_line(error)}") from error

    def close(self) -> None:
        """See `Engine.close`."""
        self._sessions.clear()


def _bind(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], outputs: Sequence[str]
) -> onnxruntime.IOBinding:
    """Convert arrays to the library's own before the run. `inputs` stays alive until that ends: nothing is copied."""
    binding = session.io_binding()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
    for name, value in values.items():  # `bind_cpu_input` does not know the inputs that have a default
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name)
    return binding
