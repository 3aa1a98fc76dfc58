"""Messages about a device's state, from its scheduler's process to whoever subscribes: one JSON object per line.

A subscriber sends `Subscribe` and gets `DeviceSnapshot` lines, or one `Refused`. docs/reference/state.md has the format
for others. Unknown fields are ignored, so that fields may be added without another protocol.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

FLEET_PROTOCOL = 1
"""Raised when a field changes its meaning or goes away."""
MAX_LINE_BYTES = 256_000
"""Of one message, its line feed included."""
MAX_HELLO_BYTES = 4096
"""Of a `Subscribe`."""
MAX_MODELS = 512
MAX_RUNNING = 512
MAX_SOLO_SIZES = 8
MAX_CLASSES = 16
"""In `ModelState.waiting`; requests of classes below the last of these count as of that one."""
MIN_INTERVAL_NS = 20_000_000
MAX_INTERVAL_NS = 500_000_000
"""Between two snapshots of a device, at least and at most."""

_Text = Annotated[str, msgspec.Meta(max_length=512)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
_Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
_Figure = Annotated[float, msgspec.Meta(ge=0.0)]
_Peak = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    """A subscriber's only message. token: the publisher's; anything will do where that has none."""

    protocol: int
    token: Annotated[str, msgspec.Meta(max_length=1024)] = ""

    def __repr__(self) -> str:
        """Without the token, which is in no log."""
        return f"Subscribe(protocol={self.protocol})"


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The publisher's only message to a subscriber that it does not take; it closes the connection then."""

    reason: _Text


class MachineFacts(msgspec.Struct, frozen=True):
    """A device's hardware; None where it is not known. emulated: it exists in software only.

    compute_tflops: dense peak at the precision that models run in there: FP16 on tensor cores, FP32 on a CPU.
    """

    name: _Text
    emulated: bool
    compute_tflops: _Peak | None = None
    memory_gb_per_s: _Peak | None = None
    memory_bytes: _Count | None = None
    multiprocessors: _Count | None = None


class ModelState(msgspec.Struct, frozen=True):
    """A model on one device, all its instances there together.

    max_batch_size: rows, 1 where it does not batch. arrivals: requests received since the publisher's start.
    waiting: rows that wait, by class, whose number is the key in decimal. solo_ns: (rows, latency alone on the device,
    transfers included) as learned, ascending, at least of 1 row. A batch of one row is slowed down by base +
    sensitivity × the sum of its co-runners' pressures; pressure: what it is to others. slo_ns: the model's default.
    """

    name: _Text
    version: _Text
    max_batch_size: _Positive
    arrivals: _Count
    waiting: Annotated[dict[str, _Count], msgspec.Meta(max_length=MAX_CLASSES)]
    waiting_requests: _Count
    solo_ns: Annotated[list[tuple[_Positive, _Positive]], msgspec.Meta(min_length=1, max_length=MAX_SOLO_SIZES)]
    base: _Ratio
    sensitivity: _Ratio
    pressure: _Ratio
    slo_ns: _Count | None
    instances: _Positive


class RunningState(msgspec.Struct, frozen=True):
    """A batch that runs, or is suspended. remaining_ns: predicted, beside what runs.

    slack_ns: its tightest deadline less its predicted end, None without a deadline.
    """

    model: _Text
    rows: _Positive
    priority: _Positive
    remaining_ns: _Count
    slack_ns: int | None


class DeviceSnapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """A device at one instant.

    publisher: drawn at each start of its process: with a new one all counters began anew. sequence: 1, 2, … of that
    publisher. at_ns: Unix time. device: as in the runtime folder ("cpu", "gpu-0", "emulated-a100-0"). backlog_ns:
    predicted time until all that runs and waits is done. models: those with work first, then by their last use.
    overhead_ns: learned time from launch to finish beside a batch's execution and transfers.
    """

    protocol: int
    publisher: _Text
    sequence: _Count
    at_ns: _Count
    device: _Text
    lanes: _Positive
    machine: MachineFacts
    backlog_ns: _Count
    models: Annotated[list[ModelState], msgspec.Meta(max_length=MAX_MODELS)]
    running: Annotated[list[RunningState], msgspec.Meta(max_length=MAX_RUNNING)]
    overhead_ns: _Count = 0


Message = Subscribe | Refused | DeviceSnapshot


class _Protocol(msgspec.Struct):
    """Any message that names its protocol, whatever else is in it."""

    protocol: int


_encoder = msgspec.json.Encoder()
_published: msgspec.json.Decoder[Refused | DeviceSnapshot] = msgspec.json.Decoder(Refused | DeviceSnapshot)
_hello = msgspec.json.Decoder(Subscribe)
_any = msgspec.json.Decoder(_Protocol)


def encode(message: Message) -> bytes:
    """Encode as one line. A snapshot that would be too long loses the last of its models."""
    line = _encoder.encode(message) + b"\n"
    while len(line) > MAX_LINE_BYTES and isinstance(message, DeviceSnapshot) and message.models:
        fewer = len(message.models) * MAX_LINE_BYTES // len(line) * 9 // 10
        message = msgspec.structs.replace(message, models=message.models[:fewer])
        line = _encoder.encode(message) + b"\n"
    return line


def decode(line: bytes) -> Refused | DeviceSnapshot:
    """Decode what a publisher sent, with or without its line feed. Raises ValueError, a sentence."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a message of {len(line)} bytes is no device's state, which has at most {MAX_LINE_BYTES}")
    try:
        message = _published.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"what was sent is no device's state{_of_protocol(line)}: {error}") from None
    if isinstance(message, DeviceSnapshot):
        _check_protocol(message.protocol)
    return message


def decode_hello(line: bytes) -> Subscribe:
    """Decode what a subscriber sent, with or without its line feed. Raises ValueError, a sentence without the token."""
    if len(line) > MAX_HELLO_BYTES:
        raise ValueError(f"a subscriber's message has at most {MAX_HELLO_BYTES} bytes")
    try:
        message = _hello.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError(
            f'what was sent{_of_protocol(line)} is no {{"type":"subscribe","protocol":{FLEET_PROTOCOL},"token":"…"}}'
        ) from None
    _check_protocol(message.protocol)
    return message


def _check_protocol(protocol: int) -> None:
    if protocol != FLEET_PROTOCOL:
        raise ValueError(f"protocol {protocol} is not spoken here, only {FLEET_PROTOCOL}")


def _of_protocol(line: bytes) -> str:
    """Words for another protocol than ours, if the message names one."""
    try:
        protocol = _any.decode(line).protocol
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return "" if protocol == FLEET_PROTOCOL else f" (protocol {protocol}, where {FLEET_PROTOCOL} is spoken here)"
