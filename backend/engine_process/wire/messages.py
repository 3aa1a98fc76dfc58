"""What a model's process and its device's engine process say to each other: frozen and typed; tensors lie elsewhere.

A model has one connection of its own, on which it is opened, one per lane, and one for signs of life. Closing the first
releases the model.
"""

from __future__ import annotations

import msgspec

from backend.engines.protocol import EngineOptions

PROTOCOL = 4
"""Raised when a message changes its meaning; an engine process of another protocol is not spoken to."""


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages: encoded as a tagged array."""


class Tensor(Message, frozen=True):
    """An array in the sender's region. dtype: as numpy spells it, `|O` for text. offset, nbytes: where it lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class Spec(Message, frozen=True):
    """A `TensorSpec`. datatype: as in config.pbtxt."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool


class Open(Message, frozen=True, tag="open"):
    """Load a model, or share it where it is loaded already; the first message on a connection.

    file: absolute.
    """

    protocol: int
    file: str
    options: EngineOptions


class AddLane(Message, frozen=True, tag="add-lane"):
    """Comes with a descriptor: the other end of a connection for this lane's batches."""

    lane: int


class Ping(Message, frozen=True, tag="ping"):
    """Are you there? The first message on a connection that carries nothing else."""


class Run(Message, frozen=True, tag="run"):
    """Run a batch; comes with the descriptor of the region where the inputs lie, if that is a new one.

    core: run it there, as the calling thread would; None: anywhere.
    """

    core: int | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


class Opened(Message, frozen=True, tag="opened"):
    """Answer to `Open`. identity, inputs, outputs: see `Engine`. file_stamp: of the file as it was loaded."""

    identity: str
    file_stamp: str
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]


class Pong(Message, frozen=True, tag="pong"):
    """Answer to `Ping`, whatever else the process does."""


class Refused(Message, frozen=True, tag="refused"):
    """Answer to `Open`: the model cannot be loaded."""

    reason: str


class Finished(Message, frozen=True, tag="finished"):
    """Answer to `Run`; comes with the descriptor of the region where the outputs lie, if that is a new one.

    The times are those of `Ran`.
    """

    outputs: tuple[Tensor, ...]
    exec_ns: int
    transfer_in_ns: int = 0
    transfer_out_ns: int = 0


class Failed(Message, frozen=True, tag="failed"):
    """Answer to `Run`: the model's run failed."""

    reason: str


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Open | AddLane | Ping).decode
decode_run = msgspec.msgpack.Decoder(Run).decode
decode_pong = msgspec.msgpack.Decoder(Pong).decode
decode_opened = msgspec.msgpack.Decoder(Opened | Refused).decode
decode_finished = msgspec.msgpack.Decoder(Finished | Failed).decode
