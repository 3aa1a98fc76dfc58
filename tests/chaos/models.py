"""Models whose answer says which request it is for: y = x + the model's tag, after work that grows with the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from tests.server.harness import Tensor, graph

_WIDTH, _DEPTH = 192, 64
_CONFIG = """
backend: "isochrone"
max_batch_size: 4
input [{{ name: "x" data_type: TYPE_FP32 dims: [1] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [1] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
parameters {{ key: "engine_process" value {{ string_value: "{engine}" }} }}
parameters {{ key: "priority" value {{ string_value: "{priority}" }} }}
"""


@dataclass(frozen=True)
class Model:
    """tag: added to each row's number; share: of the requests."""

    tag: float
    priority: int
    engine: str
    rounds: int
    slo_ms: float
    share: float

    def config(self) -> str:
        """The model's config.pbtxt."""
        return _CONFIG.format(engine=self.engine, priority=self.priority)

    def graph(self) -> onnx.ModelProto:
        """`x` FP32 [batch, 1] → `y` [batch, 1]; `rounds` times 5 million operations per row."""
        shape: list[int | str] = ["batch", _DEPTH, _WIDTH]
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node("MatMul", ["in", "turn"], ["out"]),
            ],
            "round",
            [_info("i", np.int64, []), _info("go", np.bool_, []), _info("in", np.float32, shape)],
            [_info("go_on", np.bool_, []), _info("out", np.float32, shape)],
        )
        nodes = [
            helper.make_node("Unsqueeze", ["x", "last"], ["column"]),
            helper.make_node("Mul", ["column", "zeros"], ["begin"]),
            helper.make_node("Loop", ["rounds", "yes", "begin"], ["end"], body=body),
            helper.make_node("ReduceMax", ["end"], ["most"], axes=[1], keepdims=0),
            helper.make_node("ReduceMax", ["most"], ["nothing"], axes=[1], keepdims=1),
            helper.make_node("Add", ["x", "nothing"], ["same"]),
            helper.make_node("Add", ["same", "tag"], ["y"]),
        ]
        weights: dict[str, npt.ArrayLike] = {
            "last": np.array([2], np.int64),
            "zeros": np.zeros((1, _DEPTH, _WIDTH), np.float32),
            "turn": np.roll(np.eye(_WIDTH, dtype=np.float32), 1, axis=0),
            "rounds": np.int64(self.rounds),
            "yes": np.bool_(True),
            "tag": np.float32(self.tag),
        }
        row: Tensor = (np.float32, ["batch", 1])
        return graph(nodes, {"x": row}, {"y": row}, weights)


def _info(name: str, dtype: type, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


MODELS: Mapping[str, Model] = {
    "first": Model(0.125, 1, "own", 40, 150.0, 0.3),
    "second": Model(0.25, 2, "own", 40, 400.0, 0.2),
    "shared": Model(0.375, 1, "shared", 40, 150.0, 0.2),
    "shared_too": Model(0.5, 2, "shared", 40, 400.0, 0.15),
    "spare": Model(0.625, 2, "own", 40, 400.0, 0.15),
}
"""All on one device. `shared*` run in the engine process. `spare` is the one that is killed, unloaded and loaded.

Numbers up to 2 million keep a tag's eighths exact in 32 bits."""
SPARE = "spare"
ROUTED = "first"
"""A third of its requests go through Envoy and the router."""
