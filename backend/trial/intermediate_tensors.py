"""Check that no row's part of a tensor between a model's inputs and outputs depends on other rows.

An effect of rows on each other may show in an answer for few inputs only, such as a running sum below a limit. In
intermediate tensors it shows for any. Tensors whose shape depends on the values, or that have no dimension for the rows
alone, are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from backend.errors import EngineError
from backend.tensors import Array, TensorSpec
from backend.trial.batching import CO_BATCHED_TOLERANCE, ODD_SHARE, SOLO_TOLERANCE, RefutedError, close, in_batch
from backend.trial.messages import SyntheticInputs
from backend.trial.synthetic_inputs import KINDS, Kind, arrays

FILE_BYTES_MAX = 128 << 20
"""Size of the files that are opened a second time for this: larger ones cost too much."""
LIGHT_S = 0.1
"""CPU time of a run of three rows up to which there is another, with other rows."""
Look = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Runs the model once; its tensors by name. Raises EngineError."""


def is_small(file: Path) -> bool:
    """True where the file is worth being opened a second time."""
    return file.stat().st_size <= FILE_BYTES_MAX


def with_all_outputs(file: Path) -> tuple[bytes, list[str]]:
    """Model with every tensor of its main graph as an output, and their names.

    Raises what onnx raises, and ValueError where weights lie in files of their own, which may be large.
    """
    import onnx  # noqa: PLC0415 - a trial that refutes needs none of it

    model = onnx.load(file, load_external_data=False)
    if any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in model.graph.initializer):
        raise ValueError("weights in files of their own")
    known = {value.name for value in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name]
    inner = [name for name in dict.fromkeys(made) if name not in known]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    return model.SerializeToString(), [*known, *inner]


def check_intermediate_tensors(
    look: Look, specs: Sequence[TensorSpec], synthetic: SyntheticInputs, seed: int = 0
) -> None:
    """Run three rows and compare. Raises RefutedError; a model that does not run so passes."""
    kinds: Sequence[Kind] = ["wide"] * 4 if seed % 2 else KINDS
    row, *others = (arrays(specs, synthetic, 1, seed * 4 + i, kind) for i, kind in enumerate(kinds))
    try:
        alone = look(row)
        begin_s = time.process_time()
        beside_some = look(in_batch([others[0], row, others[1]]))
        is_light = time.process_time() - begin_s < LIGHT_S
        beside_others = look(in_batch([others[2], row, others[1]])) if is_light else None
    except (EngineError, MemoryError):
        return
    for name in alone.keys() & beside_some.keys():
        beside = None if beside_others is None else beside_others.get(name)
        if not all(close(*pair) for pair in _pairs(alone[name], beside_some[name], beside)):
            raise RefutedError(f"a row's part of the tensor '{name}' inside depends on the rows beside it")


def _pairs(
    alone: Array, beside_some: Array, beside_others: Array | None
) -> Iterator[tuple[Array, Array, Mapping[int, float], float]]:
    """Parts of a tensor that must be equal: the middle row's, or all where its shape does not depend on the rows."""
    shape = beside_some.shape
    if alone.ndim != len(shape) or (beside_others is not None and beside_others.shape != shape):
        return
    changing = [axis for axis, (one, three) in enumerate(zip(alone.shape, shape, strict=True)) if one != three]
    if not changing and beside_others is not None:
        yield beside_some, beside_others, CO_BATCHED_TOLERANCE, 0.0
    elif len(changing) == 1 and (alone.shape[changing[0]], shape[changing[0]]) == (1, 3):
        middle = beside_some.take([1], changing[0])
        if beside_others is not None:
            yield middle, beside_others.take([1], changing[0]), CO_BATCHED_TOLERANCE, 0.0
        yield middle, alone, SOLO_TOLERANCE, ODD_SHARE
