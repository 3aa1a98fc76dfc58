"""Looks at every tensor between a model's inputs and outputs: whether one row's part of it depends on other rows.

What rows do to each other may show in an answer for few inputs only, such as a running sum below a limit. Inside it
shows for any. Tensors whose shape depends on the values, or that have no dimension for the rows alone, are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from backend.engines.protocol import Array, TensorSpec
from backend.errors import EngineError
from backend.trial.batching import ALONE_TOLERANCE, BESIDE_TOLERANCE, ODD_SHARE, RefutedError, close, in_batch
from backend.trial.made_up import KINDS, arrays
from backend.trial.messages import MadeUp

FILE_BYTES_MAX = 128 << 20
"""Of files that are opened a second time for this: beyond it costs more than it tells."""
_Rows = tuple[int, ...]
Look = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Runs the model once; its tensors by name. Raises EngineError."""


def is_small(file: Path) -> bool:
    """Whether it is worth being opened a second time."""
    return file.stat().st_size <= FILE_BYTES_MAX


def with_all_outputs(file: Path) -> tuple[bytes, list[str]]:
    """The model with every tensor of its main graph as an output, and their names. Raises what onnx raises."""
    import onnx  # noqa: PLC0415 - a trial that refutes needs none of it

    model = onnx.load(file)
    known = {value.name for value in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name]
    inner = [name for name in dict.fromkeys(made) if name not in known]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    return model.SerializeToString(), [*known, *inner]


def check_inside(look: Look, specs: Sequence[TensorSpec], made_up: MadeUp) -> None:
    """Raises RefutedError; what does not run so tells nothing."""
    for seed, kinds in enumerate((KINDS[:3], ("wide", "wide", "wide"))):
        _check_rows(look, [arrays(specs, made_up, 1, 3 * seed + i, kind) for i, kind in enumerate(kinds)])


def _check_rows(look: Look, rows: Sequence[Mapping[str, Array]]) -> None:
    try:
        found: dict[_Rows, Mapping[str, Array]] = {
            batch: look(in_batch([rows[i] for i in batch]))
            for batch in ((0,), (0, 1), (0, 2), (1, 0), (2, 0), (0, 1, 2))
        }
    except (EngineError, MemoryError):
        return
    for name in found[0,]:
        if not all(name in tensors for tensors in found.values()):
            continue
        tensors = {batch: of_batch[name] for batch, of_batch in found.items()}
        if not all(close(*pair) for pair in _pairs(tensors)):
            raise RefutedError(f"a row's part of the tensor '{name}' inside depends on the rows beside it")


def _pairs(tensors: Mapping[_Rows, Array]) -> Iterator[tuple[Array, Array, Mapping[int, float], float]]:
    """Row 0's part of a tensor, beside other rows."""
    two, three = tensors[0, 1].shape, tensors[0, 1, 2].shape
    if any(tensors[batch].shape != two for batch in ((0, 2), (1, 0), (2, 0))) or len(two) != len(three):
        return
    changing = [axis for axis, (a, b) in enumerate(zip(two, three, strict=True)) if a != b]
    if not changing:
        yield tensors[0, 1], tensors[0, 2], BESIDE_TOLERANCE, 0.0
    elif len(changing) == 1 and (two[changing[0]], three[changing[0]]) == (2, 3):
        (axis,) = changing
        first = tensors[0, 1].take([0], axis)
        yield first, tensors[0, 2].take([0], axis), BESIDE_TOLERANCE, 0.0
        yield tensors[1, 0].take([1], axis), tensors[2, 0].take([1], axis), BESIDE_TOLERANCE, 0.0
        if tensors[0,].shape == first.shape:
            yield first, tensors[0,], ALONE_TOLERANCE, ODD_SHARE
