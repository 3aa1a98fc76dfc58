"""Arrays for a model's inputs, to try and profile it with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from backend.tensors import Array, TensorSpec
from backend.trial.messages import Fill, SyntheticInputs

Kind = Literal["uniform", "wide", "sparse", "negative"]
"""Distribution of floats: 0..1, around 0 and up to some hundreds, mostly 0, −1..0."""
KINDS: tuple[Kind, ...] = ("uniform", "wide", "sparse", "negative")


def arrays(
    specs: Sequence[TensorSpec],
    synthetic: SyntheticInputs,
    rows: int | None = None,
    seed: int = 0,
    kind: Kind = "uniform",
) -> dict[str, Array]:
    """Make an array per required input, in the model's whole shape; the same for the same arguments.

    rows: of the first dimension; None leaves the shape as it is. Floats are never all 0, as a GPU draws less power on
    zeros and so may run faster.
    """
    random = np.random.default_rng(seed)
    return {
        spec.name: _array(spec, synthetic[spec.name], rows, random, kind) for spec in specs if spec.name in synthetic
    }


def _array(spec: TensorSpec, fill: Fill, rows: int | None, random: np.random.Generator, kind: Kind) -> Array:
    shape = fill.dims if rows is None or not fill.dims else (rows, *fill.dims[1:])
    datatype = spec.datatype.numpy
    if fill.data:
        return _from_file(spec, fill, shape)
    if datatype.hasobject:
        return np.asarray(random.choice(np.array(fill.words, np.object_), shape), np.object_)
    if fill.zeros:
        return np.zeros(shape, datatype)
    if datatype.kind == "b":
        return np.asarray(random.random(shape) < 0.5)
    if datatype.kind == "f":
        return np.asarray(_floats(random, shape, kind)).astype(datatype)
    return np.asarray(random.integers(fill.low, fill.high, shape)).astype(datatype)


def _floats(random: np.random.Generator, shape: tuple[int, ...], kind: Kind) -> Array:
    if kind == "uniform":
        return np.asarray(random.random(shape, np.float32))
    if kind == "negative":
        return np.asarray(-random.random(shape, np.float32))
    normal = random.standard_normal(shape, np.float32)
    return np.asarray(normal * 100 if kind == "wide" else normal * (random.random(shape) < 0.3))


def _from_file(spec: TensorSpec, fill: Fill, shape: tuple[int, ...]) -> Array:
    """Read raw values as Triton does for warm-up; repeated or cut to the shape. Raises OSError or ValueError."""
    content = Path(fill.data).read_bytes()
    values = _strings(content) if spec.datatype.numpy.hasobject else np.frombuffer(content, spec.datatype.numpy)
    return np.resize(values, shape)


def _strings(content: bytes) -> Array:
    """Decode strings, each with its length before it, in four bytes."""
    found, at = [], 0
    while at + 4 <= len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "little")
        found.append(content[at + 4 : end].decode(errors="replace"))
        at = end
    return np.array(found, np.object_)
