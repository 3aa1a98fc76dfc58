"""Messages and descriptors arrive as they were sent, and no descriptor is left where something goes wrong."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from backend.engine_process.wire.channel import Channel, ChannelError
from backend.engine_process.wire.messages import (
    AddLane,
    BatchFailed,
    ModelOpened,
    ModelRefused,
    OpenModel,
    RunBatch,
    TensorPlace,
    decode_finished,
    decode_opened,
    decode_request,
    decode_run,
)
from backend.engines.protocol import EngineOptions
from backend.tensors import Datatype, TensorSpec
from tests.fakes.open_files import open_files

Ends = tuple[Channel, Channel, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Two ends of a channel, and the socket of the first."""
    before = open_files(os.getpid())
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channels = Channel(first), Channel(second)
    yield (*channels, first)
    for channel in channels:
        channel.close()
    assert open_files(os.getpid()) == before


def memory(text: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, text)
    return descriptor


def content(descriptor: int | None) -> bytes:
    assert descriptor is not None
    try:
        return os.pread(descriptor, 100, 0)
    finally:
        os.close(descriptor)


def test_messages_arrive_in_order_with_what_belongs_to_them(ends: Ends) -> None:
    ours, theirs, _ = ends
    opening = OpenModel(1, "/m/1/model.onnx", EngineOptions(None, 2, 8))
    ours.send(opening)
    ours.send(AddLane(3), memory(b"lane"))
    assert theirs.receive(decode_request) == (opening, None)
    lane, descriptor = theirs.receive(decode_request)
    assert (lane, content(descriptor)) == (AddLane(3), b"lane")


def test_a_message_of_any_length(ends: Ends) -> None:
    ours, theirs, _ = ends
    specs = tuple(TensorSpec(f"input_{i}", Datatype.FP32, (-1, 3)) for i in range(20_000))
    ours.send(ModelOpened("engine", "stamp", specs, ()))
    assert theirs.receive(decode_opened) == (ModelOpened("engine", "stamp", specs, ()), None)
    run = RunBatch(0, tuple(TensorPlace(f"input_{i}", "<f4", (1, 3), 64 * i, 12) for i in range(5_000)), ("y",))
    ours.send(run, memory(b"region"))
    found, descriptor = theirs.receive(decode_run)
    assert (found, content(descriptor)) == (run, b"region")


def test_the_other_end_is_closed(ends: Ends) -> None:
    ours, theirs, _ = ends
    theirs.close()
    with pytest.raises(ConnectionError):
        ours.receive(decode_opened)
    with pytest.raises(ConnectionError):
        ours.send(AddLane(0), memory(b""))


def test_hanging_up_is_noticed_at_both_ends(ends: Ends) -> None:
    ours, theirs, _ = ends
    ours.hang_up()
    for channel in (ours, theirs):
        with pytest.raises(ConnectionError):
            channel.receive(decode_opened)


@pytest.mark.parametrize("packet", [b"\x00", b"nonsense", b"\xc1"])
def test_nonsense(ends: Ends, packet: bytes) -> None:
    _, theirs, sender = ends
    socket.send_fds(sender, [packet], [sender.fileno()])
    with pytest.raises(ChannelError):
        theirs.receive(decode_request)


@pytest.mark.parametrize("length", [1 << 24, (1 << 24) + 1])
def test_a_long_message_has_a_bound(ends: Ends, length: int) -> None:
    first, second, raw = ends
    descriptor = memory(b"")
    os.truncate(descriptor, length)
    socket.send_fds(raw, [b"\xc1"], [descriptor])
    os.close(descriptor)
    with pytest.raises(ChannelError) as refused:
        second.receive(decode_request)
    assert ("a message has at most 16777216 bytes" in str(refused.value)) == (length > 1 << 24)
    assert first.fileno() != second.fileno()


def test_a_message_where_another_one_is_due(ends: Ends) -> None:
    ours, theirs, _ = ends
    ours.send(ModelRefused("no"), memory(b""))
    with pytest.raises(ChannelError):
        theirs.receive(decode_finished)
    ours.send(BatchFailed("no"))
    assert theirs.receive(decode_finished) == (BatchFailed("no"), None)


def test_more_descriptors_than_a_message_has(ends: Ends) -> None:
    _, theirs, sender = ends
    socket.send_fds(sender, [b"\x92\xa8add-lane\x00"], [sender.fileno()] * 2)
    with pytest.raises(ChannelError, match="2 descriptors"):
        theirs.receive(decode_request)
