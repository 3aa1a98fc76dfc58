"""Messages between a model's process and the device scheduler: frozen, typed, metadata only, never tensors.

Events go to the scheduler, commands come back. Times are CLOCK_MONOTONIC nanoseconds of the one machine.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from predictor.workload import ModelProfile

PROTOCOL = 5
"""Raised when a message changes its meaning; a scheduler of another protocol is not spoken to.

Of all protocols alike, so that releases can tell each other: `Join` begins with its tag, the protocol and the model's
name, and `Refused` with its tag, the reason and the protocol.
"""
MAX_MESSAGE_BYTES = 1 << 17
"""Of one packet in either direction; senders split what could grow beyond it."""
INTERFERENCE_MODELS_MAX = 64
"""Models in `Decided.interference`, from the scheduler's start on; beyond them nothing is counted any more."""
NOT_EXPLAINED = "not explained"
"""In place of a model there: execution beyond solo that no co-runner explains."""

_NUMBER_MAX = 1 << 62
_NAME_CHARS_MAX = 256
Ns = Annotated[int, msgspec.Meta(ge=-_NUMBER_MAX, le=_NUMBER_MAX)]
"""Nanoseconds of an event: of two the difference fits a message."""
Bytes = Annotated[int, msgspec.Meta(le=_NUMBER_MAX)]


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages: encoded as a tagged array."""


class Request(Message, frozen=True):
    """One waiting request. `rows` of the batch dimension; requests of one `group` may share a batch, and its latency is
    learned by itself. More rows than `Join.max_batch_size` run in a batch of their own.
    """

    id: int
    rows: int
    arrival_ns: Ns
    deadline_ns: Ns | None
    priority: int
    group: int = 0


class AdoptedBatch(Message, frozen=True):
    """A batch that a process launched by itself; `batch` is negative. lane, preempts: see `Launch`."""

    batch: int
    rows: int
    lane: int
    preempts: bool = False


class BatchTimes(Message, frozen=True):
    """Forecast times of a batch in nanoseconds.

    solo_ns: execution alone on the device, as learned; predicted_ns, bound_ns: its execution beside its co-runners and
    the upper bound of that; h2d_ns, d2h_ns: its inputs and outputs on their way to the device and back.
    """

    solo_ns: int
    predicted_ns: int
    bound_ns: int
    h2d_ns: int = 0
    d2h_ns: int = 0


# Events


class Join(Message, frozen=True, tag="join"):
    """A model's process is ready to launch batches; its first message on a connection.

    max_batch_size: batches grow to at most so many rows; 0: the model does not batch.
    lanes: what its configuration asks of the device, None where it leaves that open. rejects: `on_miss: reject`.
    preemptible_lanes: on a device of at most so many lanes its batches can preempt others, and be suspended for them;
    see `Launch`. profiled_group: the group that the profile was measured with; None: the profile is a guess.
    slo_ns, machine: for those outside who ask; the model's default objective, and the device's hardware in JSON, a
    `backend.fleet.snapshot.MachineFacts`. loading: it is measured and takes no requests yet, so nobody outside is told.
    """

    protocol: int
    model: str
    version: str
    max_batch_size: int
    lanes: int | None
    profile: ModelProfile
    interference_aware: bool = True
    rejects: bool = False
    preemptible_lanes: int = 0
    profiled_group: int | None = 0
    slo_ns: int | None = None
    machine: str = ""
    loading: bool = False


class Limit(Message, frozen=True, tag="limit"):
    """From now on batches grow to at most so many rows: replaces `Join.max_batch_size`."""

    max_batch_size: int


class Arrive(Message, frozen=True, tag="arrive"):
    """Requests were queued, oldest first."""

    requests: tuple[Request, ...]


class Cancel(Message, frozen=True, tag="cancel"):
    """Waiting requests were given up; one that was launched meanwhile is left alone."""

    requests: tuple[int, ...]


class Finish(Message, frozen=True, tag="finish"):
    """A batch left its lane. `exec_ns`: measured execution without transfers, None where the run failed.

    h2d_ns, d2h_ns: measured transfers of its inputs before it and its outputs after it; h2d_bytes, d2h_bytes: their
    sizes. All 0 where nothing was moved, or the engine cannot tell its transfers apart.
    """

    batch: int
    exec_ns: Ns | None
    h2d_ns: Ns = 0
    d2h_ns: Ns = 0
    h2d_bytes: Bytes = 0
    d2h_bytes: Bytes = 0


class Adopt(Message, frozen=True, tag="adopt"):
    """After a reconnect: batches that run already."""

    batches: tuple[AdoptedBatch, ...]


class Take(Message, frozen=True, tag="take"):
    """The lease was used: this request runs alone in a batch that its process numbered, below 0 and anew each time."""

    batch: int
    request: Request


class Return(Message, frozen=True, tag="return"):
    """Answer to `Recall`, where the lease was still there."""

    lease: int


class Ping(Message, frozen=True, tag="ping"):
    """Answered by `Decided` without commands: the scheduler is alive.

    asks: above 0: the answer has a `DeviceLoad`, with this number. priority: the class of the request that it is for.
    """

    asks: int = 0
    priority: int = 1


Event = Join | Limit | Arrive | Cancel | Finish | Adopt | Take | Return | Ping

# Commands


class Launch(Message, frozen=True, tag="launch"):
    """Run these requests as one batch on this lane, now. preempts: the batch on that lane is suspended
    meanwhile. holds: how often this model's next batch was held since its last launch.
    """

    source: int
    batch: int
    lane: int
    preempts: bool
    requests: tuple[int, ...]
    times: BatchTimes
    decision: Literal["launch", "split"]
    holds: int


class Preempted(Message, frozen=True, tag="preempted"):
    """Your batch is suspended until another one, which preempts it on its lane, has ended."""

    source: int
    batch: int


class Reject(Message, frozen=True, tag="reject"):
    """Answer UNAVAILABLE: it would be `predicted_ns` from arrival to answer where `allowed_ns` are left to it."""

    source: int
    request: int
    predicted_ns: int
    allowed_ns: int


class Lease(Message, frozen=True, tag="lease"):
    """Decided in advance, on an idle device: launch your next request on this lane without asking, and so each later
    one that finds none of yours waiting or running, until recalled. `Arrive` gives it up; a later lease replaces it.

    arrivals: `Arrive` events of yours that this was decided after; where you sent more, it was given up already.
    rows, group: of the requests that it is for.
    """

    source: int
    lease: int
    arrivals: int
    lane: int
    rows: int
    group: int
    times: BatchTimes


class Recall(Message, frozen=True, tag="recall"):
    """Another model wants the device: use the lease no more, and confirm that (`Return`)."""

    source: int
    lease: int


Command = Launch | Preempted | Reject | Lease | Recall


# Replies: what travels from the scheduler to a model's process


class Welcome(Message, frozen=True, tag="welcome"):
    """Answer to `Join`: this source takes part, on a device with this many lanes."""

    source: int
    lanes: int


class Refused(Message, frozen=True, tag="refused"):
    """Answer to `Join` or to an event that cannot be; the connection is closed after it.

    protocol: the scheduler's; 0: of one that is too old to say.
    """

    reason: str
    protocol: int = 0


class DeviceLoad(Message, frozen=True):
    """Forecast for the next request of a model on this device, behind what waits there in its class and higher ones.

    asks: of the `Ping` that it answers; at_ns: when it was true. starts_ns: from then until a lane is free for it;
    solo_ns: (rows, latency alone with transfers), ascending, as learned; slowdown: beside what runs now.
    """

    asks: int
    at_ns: int
    starts_ns: int
    solo_ns: tuple[tuple[int, int], ...]
    slowdown: float


class Decided(Message, frozen=True, tag="decided"):
    """Commands for one process and how long they took to decide; how many of its samples were lost since the last.

    backlog_ns: its part of the predicted time until the device has done all its work; None: as told before.
    interference: nanoseconds that its batches suffered since it was told last, by who caused it; see
    `backend.scheduler.interference`. load: where a `Ping` asked for it.
    """

    commands: tuple[Command, ...]
    took_ns: int
    samples_lost: int = 0
    backlog_ns: int | None = None
    interference: tuple[tuple[str, int], ...] = ()
    load: DeviceLoad | None = None


Reply = Welcome | Refused | Decided

encode = msgspec.msgpack.Encoder().encode
decode_event = msgspec.msgpack.Decoder(Event).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
_decode_anything = msgspec.msgpack.Decoder().decode


def refusal_of_another_protocol(packet: bytes) -> str | None:
    """A sentence where this is a `Join` of another protocol, whatever else is in it, else None."""
    try:
        match _decode_anything(packet):
            case ["join", int() as protocol, str() as model, *_] if protocol != PROTOCOL:
                return (
                    f"model '{model[:_NAME_CHARS_MAX]}' speaks protocol {protocol}, this scheduler {PROTOCOL}: "
                    "they are of different releases of Isochrone"
                )
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return None
