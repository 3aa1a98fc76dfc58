"""A session of ONNX Runtime whose inputs and outputs are bound to memory: one call each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime

from backend.engines.gpu.runtime import Address, Stream
from backend.engines.gpu.transfers import Placed
from backend.engines.onnxruntime.session import CPU, first_line, input_specs, open_session, output_specs
from backend.engines.protocol import AS_USUAL, OnnxOptions
from backend.errors import ConfigError, EngineError
from backend.tensors import BY_ONNX, Array

CUDA = "CUDAExecutionProvider"


class OnnxBoundSession:
    """See `BoundSession`. memory: "cuda", or "cpu" for a session without a GPU. asked: by the user.

    Raises ConfigError.
    """

    def __init__(
        self, path: Path, providers: Sequence[object], memory: str, device_id: int, asked: OnnxOptions = AS_USUAL
    ) -> None:
        session = open_session(path, providers, asked=asked)
        self._memory, self._device_id = memory, device_id
        self.provider: str = session.get_providers()[0]
        self.inputs = input_specs(session, path)
        self.outputs = output_specs(session, path)
        places = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
        self.on_device = frozenset(node.name for node, info in places if info.name.lower() == memory)
        self._options = onnxruntime.RunOptions()
        # Else each run would wait for its own end before the copies out are enqueued.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._session: onnxruntime.InferenceSession | None = session
        self._binding: onnxruntime.IOBinding | None = session.io_binding()

    def bind(self, places: Sequence[Placed], host: Mapping[str, Array]) -> None:
        """See `BoundSession.bind`."""
        assert self._binding is not None, "bind after close"
        binding, memory = self._binding, (self._memory, self._device_id)
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        with _told():
            for p in places:
                binding.bind_input(p.name, *memory, p.datatype.numpy, p.shape, p.address)
            for name, array in host.items():
                # `bind_cpu_input` does not know the inputs that have a default.
                value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
                binding.bind_ortvalue_input(name, value)

    def run(self, outputs: Sequence[str]) -> list[Placed]:
        """See `BoundSession.run`."""
        assert self._session is not None and self._binding is not None, "run after close"
        binding = self._binding
        with _told():
            for name in outputs:  # without memory: their shapes may be known by the run only
                binding.bind_output(name, self._memory, self._device_id)
            self._session.run_with_iobinding(binding, self._options)
        return [
            Placed(name, BY_ONNX[value.data_type()], tuple(value.shape()), Address(value.data_ptr()))
            for name, value in zip(outputs, binding.get_outputs(), strict=True)
        ]

    def close(self) -> None:
        """See `BoundSession.close`."""
        self._binding = None
        self._session = None


def on_cuda(path: Path, device_id: int, stream: Stream, asked: OnnxOptions = AS_USUAL) -> OnnxBoundSession:
    """A session that runs on this stream of a GPU. asked: by the user. Raises ConfigError."""
    options = {
        "device_id": device_id,
        "user_compute_stream": stream,
        "arena_extend_strategy": "kSameAsRequested",  # by powers of two, many sessions would hold twice what they need
        "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive one is done anew by each lane and for each batch size
    }
    session = OnnxBoundSession(path, [(CUDA, options), CPU], "cuda", device_id, asked)
    if session.provider != CUDA:
        session.close()
        raise ConfigError(
            f"KIND_GPU on GPU {device_id} needs CUDA and cuDNN as ONNX Runtime {onnxruntime.__version__} was built for "
            f"them, but its {CUDA} does not load here; its error is in the log above"
        )
    return session


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # ONNX Runtime's exceptions share no base class of their own below Exception.
        raise EngineError(f"the model's run failed: {first_line(error)}") from error
