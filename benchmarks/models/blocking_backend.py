"""An ONNX model for stock Triton: blocking, as its user would write it (`blocking_model.py`), or minimal and
asynchronous (`minimal_async_model.py`), and a config.pbtxt.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from onnx import TensorProto

_BLOCKING, _MINIMAL_ASYNC = (Path(__file__).with_name(name) for name in ("blocking_model.py", "minimal_async_model.py"))
_TYPES: dict[int, str] = {TensorProto.FLOAT: "TYPE_FP32", TensorProto.INT64: "TYPE_INT64"}


def write_stock(
    folder: Path,
    max_batch_size: int,
    instances: int,
    *,
    batching: str = "dynamic_batching {}",
    limiter: str = "",
    minimal_async: bool = False,
) -> None:
    """Writes the model beside the `1/model.onnx` that is there. batching, limiter: in config.pbtxt's words."""
    graph = onnx.load(folder / "1" / "model.onnx", load_external_data=False).graph
    lines = (
        'backend: "python"',
        f"max_batch_size: {max_batch_size}",
        *(_tensor("input", info) for info in graph.input),
        *(_tensor("output", info) for info in graph.output),
        batching,
        f"instance_group [ {{ kind: KIND_CPU count: {instances} {limiter} }} ]",
        "",
    )
    (folder / "config.pbtxt").write_text("\n".join(lines))
    version = folder / "1"
    shutil.copy(_MINIMAL_ASYNC if minimal_async else _BLOCKING, version / "model.py")
    if minimal_async:  # it imports the other
        shutil.copy(_BLOCKING, version)


def _tensor(what: str, info: onnx.ValueInfoProto) -> str:
    kind = info.type.tensor_type
    dims = ", ".join(str(d.dim_value or -1) for d in kind.shape.dim[1:])
    return f'{what} [ {{ name: "{info.name}" data_type: {_TYPES[kind.elem_type]} dims: [ {dims} ] }} ]'
