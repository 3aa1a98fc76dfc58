"""What ONNX Runtime itself makes of a model and inputs: what a served model is held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from backend.tensors import BY_ONNX

Arrays = dict[str, npt.NDArray[Any]]

_SILENT = 4
_ROUNDING = 1e-5
"""How far a float may be from ONNX Runtime's own, as a share of it: another number of threads adds in another order."""


@dataclass(frozen=True)
class Reference:
    """outputs: those of Triton's types; None where ONNX Runtime cannot load or run it, or where it has none such.

    fails: which of these. sign: what a sentence that says why must contain.
    """

    outputs: Arrays | None
    fails: Literal["", "load", "type", "run"] = ""
    sign: str = ""


def reference(file: Path, inputs: Arrays | None) -> Reference:
    """inputs: None where one is of a type that numpy lacks. Never raises for a model that cannot be had."""
    try:
        session = open_session(file)
    except Exception:
        return Reference(None, "load", "ONNX Runtime")
    foreign = [node.type for node in session.get_inputs() if node.type not in BY_ONNX]
    if foreign or not any(node.type in BY_ONNX for node in session.get_outputs()):
        return Reference(None, "type", (foreign or [session.get_outputs()[0].type])[0])
    assert inputs is not None
    try:
        return Reference(run(session, inputs))
    except Exception as error:
        return Reference(None, "run", str(error).partition("\n")[0])


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """Raises whatever ONNX Runtime has against the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
    """The outputs of Triton's types, by name. Raises whatever ONNX Runtime has against the inputs."""
    names = [node.name for node in session.get_outputs() if node.type in BY_ONNX]
    return dict(zip(names, session.run(names, inputs), strict=True))


def difference(got: Any, wanted: Any, values: bool = True, share: float = _ROUNDING / 10) -> str:
    """How an answer's tensor differs from the one that is right, in a few words; empty where it does not.

    values: compare them too, not only types and shapes. share: of the largest value, how far each may be off.
    """
    wanted = np.asarray(wanted)
    shape = wanted.shape  # Triton has no tensor without dimensions
    if got is None or got.shape != shape or got.dtype != wanted.dtype:
        return f"is {_kind(got)}, not {wanted.dtype} {shape}"
    if not values or _equal(got.reshape(-1), wanted.reshape(-1), share):
        return ""
    return f"is {_few(got)}, not {_few(wanted)}"


def _equal(got: npt.NDArray[Any], wanted: npt.NDArray[Any], share: float) -> bool:
    if wanted.dtype.hasobject:
        return [_text(item) for item in got] == [_text(item) for item in wanted]
    if wanted.dtype.kind != "f":
        return np.array_equal(got, wanted)
    rounding = max(_ROUNDING, 2 * float(np.finfo(wanted.dtype).eps))
    largest = float(np.abs(wanted, where=np.isfinite(wanted), out=np.zeros_like(wanted)).max(initial=0.0))
    return np.allclose(got, wanted, rtol=rounding, atol=share * largest, equal_nan=True)


def _text(item: bytes | str) -> str:
    return item.decode() if isinstance(item, bytes) else item


def _kind(array: Any) -> str:
    return "missing" if array is None else f"{array.dtype} {array.shape}"


def _few(array: Any) -> str:
    return np.array2string(array.reshape(-1)[:6], max_line_width=200)
