"""Messages between a load and the process of a trial: the question about a model file, and the result."""

from __future__ import annotations

import msgspec

from backend.engines.protocol import OnnxOptions

SCHEMA = 1
"""Incremented when a trial would find something else for the same question."""


class Fill(msgspec.Struct, frozen=True):
    """Synthetic values of one input. dims: its whole shape, of one row where the first dimension is the batch.

    low, high: integers lie in low <= value < high. words: strings are taken from these. data: a file of the model's
    `model_warmup` that holds the values of one row. zeros: nothing but zeros.
    """

    dims: tuple[int, ...]
    low: int = 0
    high: int = 2
    words: tuple[str, ...] = ("0", "1", "2")
    data: str = ""
    zeros: bool = False


SyntheticInputs = dict[str, Fill]
"""Inputs that the model runs on, by name."""


class Sample(msgspec.Struct, frozen=True):
    """Inputs of a `model_warmup` entry. dims: as written there, without the batch dimension."""

    name: str
    dims: dict[str, tuple[int, ...]]
    data: dict[str, str] = {}
    zeros: tuple[str, ...] = ()


class Question(msgspec.Struct, frozen=True):
    """A model file to try. file: absolute. engine: "onnxruntime" or "tensorrt". device_id: of a plan's GPU.

    dims: per input, what config.pbtxt says of its shape without the batch dimension, −1 where it leaves a length open.
    rows_max: the largest batch to try.
    """

    model_sha256: str
    file: str
    engine: str
    runtime: str
    device_id: int | None
    onnx: OnnxOptions
    dims: dict[str, tuple[int, ...]]
    samples: tuple[Sample, ...]
    rows_max: int


class Trial(msgspec.Struct, frozen=True):
    """Result. as_batch, as_is: inputs that the model runs on, with one row, and with the whole shape synthetic.

    batch: whether batching was tried; batches: whether it changes no answer, None where that could not be told; why: a
    clause that says so, where it does or that could not be told. splits: False where outputs of a batch have not a row
    for each of its rows. lasting: whether another attempt would find the same.
    """

    as_batch: SyntheticInputs | None = None
    as_is: SyntheticInputs | None = None
    batch: bool = False
    batches: bool | None = None
    why: str = ""
    splits: bool = True
    lasting: bool = True
