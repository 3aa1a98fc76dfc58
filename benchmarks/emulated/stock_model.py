"""Blocking model for stock Triton's Python backend, on the same emulated GPU as Isochrone's models.

Copied into a model repository as `model.py`, beside a `model.emulated.json`; runs inside Triton's stub, one per
instance. Batches are those that Triton formed; nothing of Isochrone's scheduler takes part.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from backend.engine_process.client.engine import EngineClient
from backend.engines.emulated.dilation import time_dilation
from backend.engines.emulated.spec import NAME, read_spec
from backend.engines.protocol import EngineOptions


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        file = Path(args["model_repository"]) / args["model_version"] / NAME
        instance = int(args["model_instance_name"].rsplit("_", 1)[1])
        self._lane = int(config["parameters"]["first_lane"]["string_value"]) + instance
        options = EngineOptions(None, 1, config["max_batch_size"], time_dilation=time_dilation())
        self._engine = EngineClient(read_spec(file).device.name, file, options)
        self._inputs = [spec.name for spec in self._engine.inputs]
        self._outputs = [spec.name for spec in self._engine.outputs]

    def execute(self, requests: list) -> list:  # type: ignore[type-arg]
        arrays = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            for request in requests
        ]
        feeds = {name: [each[name] for each in arrays] for name in self._inputs}
        outputs = self._engine.run(self._lane, feeds, self._outputs).outputs
        ends = np.cumsum([len(each[self._inputs[0]]) for each in arrays]).tolist()
        return [
            self._response([array[start:end] for array in outputs])
            for start, end in zip([0, *ends], ends, strict=False)
        ]

    def _response(self, outputs: list):  # type: ignore[no-untyped-def,type-arg]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in zip(self._outputs, outputs, strict=True)]
        )

    def finalize(self) -> None:
        self._engine.close()
