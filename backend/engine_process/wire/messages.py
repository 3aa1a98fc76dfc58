"""Messages between a model's process and its device's engine process, frozen and typed; tensors are in `regions`.

A model has one connection on which it is opened, one per lane, and one for pings. Closing the first releases the model.
"""

from __future__ import annotations

import msgspec

from backend.engines.protocol import EngineOptions
from backend.tensors import TensorSpec

PROTOCOL = 6
"""Version of these messages, and part of the name by which an engine process is met: releases with another one have an
engine process of their own."""


class EngineMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages: encoded as a tagged array."""


class TensorPlace(EngineMessage, frozen=True):
    """Place of an array in the sender's region, in bytes. dtype: as numpy spells it, `|O` for text."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class OpenModel(EngineMessage, frozen=True, tag="open"):
    """Request to load a model, or to share it where it is loaded already; the first message on a connection.

    file: absolute.
    """

    protocol: int
    file: str
    options: EngineOptions


class AddLane(EngineMessage, frozen=True, tag="add-lane"):
    """Request to serve a lane; comes with the descriptor of the other end of a connection for its batches."""

    lane: int


class EnginePing(EngineMessage, frozen=True, tag="ping"):
    """Request for a sign of life; its connection carries nothing else."""


class RunBatch(EngineMessage, frozen=True, tag="run"):
    """Request to run a batch; comes with the descriptor of the region of the inputs, if that is a new one.

    core: where to run it, None: anywhere.
    """

    core: int | None
    inputs: tuple[TensorPlace, ...]
    outputs: tuple[str, ...]


class ModelOpened(EngineMessage, frozen=True, tag="opened"):
    """Answer to `OpenModel`. identity, inputs, outputs: see `Engine`. file_stamp: of the file as it was loaded."""

    identity: str
    file_stamp: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class EnginePong(EngineMessage, frozen=True, tag="pong"):
    """Answer to `EnginePing`, whatever else the process does."""


class ModelRefused(EngineMessage, frozen=True, tag="refused"):
    """Answer to `OpenModel`: the model cannot be loaded."""

    reason: str


class BatchFinished(EngineMessage, frozen=True, tag="finished"):
    """Answer to `RunBatch`; comes with the descriptor of the region of the outputs, if that is a new one.

    The times are those of `BatchResult`.
    """

    outputs: tuple[TensorPlace, ...]
    exec_ns: int
    transfer_in_ns: int = 0
    transfer_out_ns: int = 0


class BatchFailed(EngineMessage, frozen=True, tag="failed"):
    """Answer to `RunBatch`: the model's run failed."""

    reason: str


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(OpenModel | AddLane | EnginePing).decode
decode_run = msgspec.msgpack.Decoder(RunBatch).decode
decode_pong = msgspec.msgpack.Decoder(EnginePong).decode
decode_opened = msgspec.msgpack.Decoder(ModelOpened | ModelRefused).decode
decode_finished = msgspec.msgpack.Decoder(BatchFinished | BatchFailed).decode
