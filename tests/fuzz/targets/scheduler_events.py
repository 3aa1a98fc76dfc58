"""Events of models' processes to a device's scheduler: a list of [microseconds since the last, source, event].

null in the place of an event lets the batch that was launched first end. The scheduler is the real one, and what its
process does with what cannot be is done here: the source leaves.
"""

from __future__ import annotations

import msgspec

from backend.scheduler.core import Scheduler
from backend.scheduler.messages import (
    MAX_MESSAGE_BYTES,
    Command,
    Decided,
    Finish,
    Launch,
    decode_event,
    decode_reply,
    encode,
    refusal_of_another_protocol,
)
from backend.scheduler_process.process import WRONG
from tests.fakes.builders import START_NS

FORMAT = "msgpack"
_EVENTS_MAX = 40
_decode = msgspec.msgpack.Decoder(list[tuple[int, int, msgspec.Raw]]).decode
_NULL = b"\xc0"


def check(data: bytes) -> None:
    """Commands that can be sent, after each event; of errors, those that end a connection. The state stays sound."""
    try:
        steps = _decode(data)[:_EVENTS_MAX]
    except (msgspec.DecodeError, RecursionError):
        return
    core, now_ns = Scheduler(2, cores=2), START_NS
    launches: list[Launch] = []
    for wait_us, source, raw in steps:
        refusal_of_another_protocol(bytes(raw))
        now_ns += min(max(wait_us, 0), 10**9) * 1000
        commands = _step(core, source % 4, bytes(raw), now_ns, launches)
        launches += [command for command in commands if isinstance(command, Launch)]
        for at in range(0, len(commands), 256):
            packet = encode(Decided(tuple(commands[at : at + 256]), 1000))
            assert len(packet) <= MAX_MESSAGE_BYTES
            decode_reply(packet)
        core.learn()
        core.check_invariants()


def _step(core: Scheduler, source: int, packet: bytes, now_ns: int, launches: list[Launch]) -> list[Command]:
    if packet == _NULL:
        ended = next((each for each in launches if (each.source, each.batch) in core.device.running), None)
        if ended is None:
            return core.wake(now_ns)
        return core.handle(ended.source, Finish(ended.batch, max(1, ended.times.predicted_ns)), now_ns)
    try:
        return core.handle(source, decode_event(packet), now_ns)
    except WRONG as error:
        encode(str(error)[:100])
        return core.leave(source, now_ns)
