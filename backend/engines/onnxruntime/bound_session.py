"""Session of ONNX Runtime whose inputs and outputs are bound to memory, on a GPU the device's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime

from backend.engines.gpu.device import Address
from backend.engines.gpu.lane_streams import DeviceTensor
from backend.engines.onnxruntime.session import first_line, input_specs, open_session, output_specs
from backend.engines.protocol import DEFAULT_ONNX_OPTIONS, OnnxOptions
from backend.errors import EngineError
from backend.tensors import BY_ONNX, Array


class BoundSession:
    """A loaded model that runs on one stream, on tensors where they lie; used by one thread at a time.

    memory: "cuda", or "cpu" for a session without a GPU. on_device: inputs that the model reads from device memory, and
    not from the host's. Raises ConfigError.
    """

    def __init__(
        self,
        path: Path,
        providers: Sequence[object],
        memory: str,
        device_id: int,
        onnx_options: OnnxOptions = DEFAULT_ONNX_OPTIONS,
    ) -> None:
        session = open_session(path, providers, onnx_options=onnx_options)
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

    def bind(self, places: Sequence[DeviceTensor], host: Mapping[str, Array]) -> None:
        """Bind all inputs of the next run: those on the device, whose data may come until then, and in host memory.

        Raises EngineError.
        """
        assert self._binding is not None, "bind after close"
        binding, memory = self._binding, (self._memory, self._device_id)
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        with _as_engine_error():
            for p in places:
                binding.bind_input(p.name, *memory, p.datatype.numpy, p.shape, p.address)
            for name, array in host.items():
                # `bind_cpu_input` does not know the inputs that have a default.
                value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
                binding.bind_ortvalue_input(name, value)

    def run(self, outputs: Sequence[str]) -> list[DeviceTensor]:
        """Enqueue a run; return where the outputs will lie until the next `bind`. Raises EngineError."""
        assert self._session is not None and self._binding is not None, "run after close"
        binding = self._binding
        with _as_engine_error():
            for name in outputs:  # without memory: their shapes may be known by the run only
                binding.bind_output(name, self._memory, self._device_id)
            self._session.run_with_iobinding(binding, self._options)
        return [
            DeviceTensor(name, BY_ONNX[value.data_type()], tuple(value.shape()), Address(value.data_ptr()))
            for name, value in zip(outputs, binding.get_outputs(), strict=True)
        ]

    def close(self) -> None:
        """Free the model; no run is under way."""
        self._binding = None
        self._session = None


@contextmanager
def _as_engine_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # ONNX Runtime's exceptions share no base class of their own below Exception.
        raise EngineError(f"the model's run failed: {first_line(error)}") from error
