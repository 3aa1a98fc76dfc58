"""Random but valid requests for any model of the zoo, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from zoo.onnx_header import read_inputs
from zoo.roberta import END_ID, FIRST_ORDINARY_ID, PADDING_ID, START_ID

Array: TypeAlias = NDArray[Any]

# Ids stay below the smallest vocabulary of any scale, so that one request fits them all.
VOCABULARY_MIN = 8_192


class SessionInput(Protocol):
    """An entry of `onnxruntime.InferenceSession.get_inputs`."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str | None]: ...


@dataclass(frozen=True, slots=True)
class _Declared:
    name: str
    is_integer: bool
    shape: tuple[int, ...]  # without the batch dimension


def random_inputs(source: Path | str | Sequence[SessionInput], batch_size: int, seed: int) -> dict[str, Array]:
    """One request of `batch_size` rows for a model file, or for a session's inputs."""
    stream = np.random.default_rng(seed)
    declared = _from_file(Path(source)) if isinstance(source, str | Path) else _from_session(source)
    arrays: dict[str, Array] = {}
    for entry in declared:
        if not entry.is_integer:
            arrays[entry.name] = stream.standard_normal((batch_size, *entry.shape), dtype=np.float32)
    tokens = next((entry.shape[0] for entry in declared if entry.is_integer), None)
    return arrays if tokens is None else {**arrays, **_random_text(stream, batch_size, tokens)}


def _random_text(stream: np.random.Generator, batch_size: int, tokens: int) -> dict[str, Array]:
    """Sentences <s> ... </s> of half to full length, padded at the end."""
    ids = stream.integers(FIRST_ORDINARY_ID, VOCABULARY_MIN, (batch_size, tokens), dtype=np.int64)
    lengths = stream.integers(tokens // 2, tokens, (batch_size, 1), endpoint=True)
    place = np.arange(tokens)
    ids[:, 0] = START_ID
    ids = np.where(place == lengths - 1, END_ID, ids)
    ids = np.where(place >= lengths, PADDING_ID, ids)
    return {"input_ids": ids, "attention_mask": (place < lengths).astype(np.int64)}


def _from_file(path: Path) -> list[_Declared]:
    declared: list[_Declared] = []
    for info in read_inputs(path):
        kind = info.type.tensor_type
        shape = tuple(dimension.dim_value for dimension in kind.shape.dim[1:])
        declared.append(_Declared(info.name, kind.elem_type == TensorProto.INT64, shape))
    return declared


def _from_session(inputs: Sequence[SessionInput]) -> list[_Declared]:
    declared: list[_Declared] = []
    for entry in inputs:
        shape = tuple(size for size in entry.shape[1:] if isinstance(size, int))
        declared.append(_Declared(entry.name, entry.type == "tensor(int64)", shape))
    return declared
