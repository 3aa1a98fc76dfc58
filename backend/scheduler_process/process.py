"""The scheduler's process: sockets and the clock around the pure core. One process per device and runtime folder.

Each connection is one source. Whatever a connection does wrong ends that connection only.
"""

from __future__ import annotations

import argparse
import logging
import selectors
import signal
import socket
import sys
import time

import msgspec

from backend.device_process import only_listener
from backend.errors import ConfigError
from backend.linux.cpu_topology import core_budget
from backend.linux.raised_priority import raise_session_priority
from backend.runtime_dir import MeetingPoint, meeting_point
from backend.scheduler.core import ProtocolError, Scheduler
from backend.scheduler.messages import (
    MAX_MESSAGE_BYTES,
    Command,
    Decided,
    Finish,
    Join,
    Ping,
    Refused,
    Reply,
    Welcome,
    decode_event,
    encode,
)
from backend.scheduler.state import Running, Source
from backend.scheduler_process.online_trainer import Tutor
from backend.scheduler_process.sample_log import SampleLog, sample_log_of_environment, sample_of_batch
from backend.scheduler_process.scheduler_factory import MakeScheduler, scheduler_of_environment
from predictor.features import Neighbour

_SEND_BUFFER_BYTES = 1 << 21
_LOOK_S = 0.5
_REJECT_WITHIN_NS = 10_000_000
"""So long a late request waits for an event to be rejected with: being woken for it costs the models time."""
_log = logging.getLogger("isochrone.scheduler")


class SchedulerProcess:
    """Serves one device on a listening SEQPACKET socket until nobody was connected for `linger_s`."""

    def __init__(
        self,
        point: MeetingPoint,
        listener: socket.socket,
        lanes: int,
        linger_s: float | None,
        samples: SampleLog | None,
        make_scheduler: MakeScheduler = Scheduler,
    ) -> None:
        self._device = point.device
        self._listener = listener
        self._linger_s = linger_s
        self._lanes = lanes
        self._samples = samples
        self._tutor = Tutor(point.state)
        self._scheduler = make_scheduler(
            lanes,
            None if samples is None else self._sample,
            self._tutor.predictor,
            self._tutor.bound,
            transfers=self._tutor.transfers,
            cores=core_budget() if point.device == "cpu" else None,
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._connections: dict[int, socket.socket] = {}
        self._sources = 0
        self._idle_since = time.monotonic()

    def run(self) -> None:
        """Until idle for too long."""
        while not self._expired():
            for key, _ in self._selector.select(self._patience_s()):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._receive(key.data)
                    self._teach()
            if self._patience_s() == 0.0:
                now_ns = time.monotonic_ns()
                self._deliver(self._scheduler.reject(now_ns), time.monotonic_ns() - now_ns)

    def close(self) -> None:
        """Keep what was learned."""
        self._tutor.close()

    def _teach(self) -> None:
        try:
            self._tutor.teach(self._scheduler)
        except Exception:  # a bug in a learner costs what it was told, not the scheduler
            _log.exception("what ended could not be learned from")

    def _patience_s(self) -> float:
        """How long to wait for an event; 0 where what is late has waited for one long enough."""
        left_ns = self._scheduler.reject_after_ns + _REJECT_WITHIN_NS - time.monotonic_ns()
        return min(_LOOK_S, max(0.0, left_ns / 1e9))

    def _expired(self) -> bool:
        if self._connections:
            self._idle_since = time.monotonic()
        return self._linger_s is not None and time.monotonic() - self._idle_since > self._linger_s

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._sources += 1
        self._connections[self._sources] = connection
        self._selector.register(connection, selectors.EVENT_READ, self._sources)

    def _receive(self, source: int) -> None:
        connection = self._connections.get(source)
        if connection is None:  # dropped earlier in this round
            return
        try:
            packet = connection.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(source, str(error))
            return
        if not packet:
            self._drop(source, "closed")
            return
        try:
            self._handle(source, packet)
        except (ProtocolError, msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
            # The last two: a message nested without end, numbers whose difference no message can carry.
            self._send(source, Refused(str(error)))
            self._drop(source, str(error))

    def _handle(self, source: int, packet: bytes) -> None:
        now_ns = time.monotonic_ns()
        event = decode_event(packet)
        commands = self._scheduler.handle(source, event, now_ns)
        took_ns = time.monotonic_ns() - now_ns
        if isinstance(event, Join):
            _log.info("source %d: %s version %s joined", source, event.model, event.version)
            self._send(source, Welcome(source, self._lanes))
        elif isinstance(event, Ping):
            self._send(source, Decided((), took_ns))
        self._deliver(commands, took_ns)
        if self._samples is not None and (lost := self._samples.take_lost(source)):
            self._send(source, Decided((), took_ns, lost))

    def _deliver(self, commands: list[Command], took_ns: int) -> None:
        by_source: dict[int, list[Command]] = {}
        for command in commands:
            by_source.setdefault(command.source, []).append(command)
        for source, own in by_source.items():
            for i in range(0, len(own), 256):
                self._send(source, Decided(tuple(own[i : i + 256]), took_ns))

    def _sample(self, source: Source, batch: Running, took: Finish, beside: list[Neighbour]) -> None:
        assert self._samples is not None
        self._samples.put(source.id, sample_of_batch(source, batch, took, beside, self._device))

    def _send(self, source: int, reply: Reply) -> None:
        connection = self._connections.get(source)
        if connection is None:
            return
        try:
            connection.send(encode(reply))
        except OSError as error:  # gone, or so far behind that its buffer is full: either way it must start afresh
            self._drop(source, f"cannot be reached: {error}")

    def _drop(self, source: int, why: str) -> None:
        connection = self._connections.pop(source, None)
        if connection is None:
            return
        _log.info("source %d left: %s", source, why)
        self._selector.unregister(connection)
        connection.close()
        now_ns = time.monotonic_ns()
        self._deliver(self._scheduler.leave(source, now_ns), time.monotonic_ns() - now_ns)
        if not self._connections:
            self._tutor.save()


def serve(point: MeetingPoint, lanes: int, linger_s: float | None) -> None:
    """Run the device's scheduler here; returns at once where one runs already. Raises ConfigError."""
    make_scheduler = scheduler_of_environment()
    with only_listener(point) as listener:
        if listener is None:
            return
        listener.setblocking(False)
        samples = sample_log_of_environment(point.device)
        process = SchedulerProcess(point, listener, lanes, linger_s, samples, make_scheduler)
        try:
            process.run()
        finally:
            process.close()
            if samples is not None:
                samples.close()


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.scheduler_process.process --device cpu --lanes 2`"""
    parser = argparse.ArgumentParser(description="Isochrone's scheduler of one device.")
    parser.add_argument("--device", required=True)
    parser.add_argument("--lanes", type=int, required=True)
    parser.add_argument("--linger-s", type=float, default=None, help="end after so long without a connection")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server still drains then
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if not raise_session_priority():
        _log.info(
            "decisions may wait for a time slice of what executes: this process may not go before it; "
            "give the server CAP_SYS_NICE or an RLIMIT_NICE of 40 (docker run --ulimit nice=40)"
        )
    try:
        serve(meeting_point(options.device), options.lanes, options.linger_s)
    except ConfigError as error:
        _log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
