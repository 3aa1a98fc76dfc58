"""The scheduler's process: sockets and the clock around the pure core. One process per device and runtime folder.

Each connection is one source. Whatever a connection does wrong ends that connection only. Each call of the core that
may change it is written to the event log, where there is one, and nothing else is: replay repeats these calls.
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

from backend.device_process import LOOK_S, DeviceListener, only_listener
from backend.errors import IsochroneError
from backend.linux.cpu_topology import core_budget
from backend.linux.raised_priority import raise_session_priority
from backend.runtime_dir import MeetingPoint, meeting_point
from backend.scheduler.core import ProtocolError, Scheduler
from backend.scheduler.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
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
    refusal_of_another_protocol,
)
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.scheduler_process.event_file import Entry, Handled, Left, Saved, Trained, Woken
from backend.scheduler_process.event_log import EventLog, event_log_of_environment
from backend.scheduler_process.online_trainer import OnlineTrainer
from backend.scheduler_process.reporting import DeviceReporter, reporter_of_environment
from backend.scheduler_process.sample_log import SampleLog, sample_log_of_environment, sample_of_batch
from backend.scheduler_process.scheduler_factory import SchedulerFactory, scheduler_factory
from predictor.features import CoRunner

SOURCES_MAX = 768
"""Connections at a time, within the usual limit of 1024 descriptors."""
WRONG = (ProtocolError, msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
"""Errors by which a message ends its connection. The last two: of one nested without end, and of numbers whose
difference no message can carry."""
_SEND_BUFFER_BYTES = 1 << 21
_REFUSALS_MAX = 256
_LOOK_S = 0.5
_REJECT_WITHIN_NS = 10_000_000
"""So long a late request waits for an event to be rejected with: being woken for it costs the models time."""
_log = logging.getLogger("isochrone.scheduler")


class SchedulerProcess:
    """Serves one device on a listening SEQPACKET socket until nobody was connected for `linger_s`."""

    def __init__(
        self,
        point: MeetingPoint,
        listener: DeviceListener,
        lanes: int,
        linger_s: float | None,
        samples: SampleLog | None,
        make_scheduler: SchedulerFactory = Scheduler,
        events: EventLog | None = None,
        reporter: DeviceReporter | None = None,
    ) -> None:
        self._device = point.device
        self._listener = listener
        self._linger_s = linger_s
        self._lanes = lanes
        self._samples, self._events = samples, events
        self._reporter = reporter or DeviceReporter(point.device)
        self._trainer = OnlineTrainer(point.state, lambda: self._record(Saved()))
        self._scheduler = make_scheduler(
            lanes,
            None if samples is None else self._sample,
            self._trainer.predictor,
            self._trainer.bound,
            transfers=self._trainer.transfers,
            cores=cores_of(point.device),
        )
        if events is not None:
            events.checkpoint(self._scheduler, time.monotonic_ns())
        self._selector = selectors.DefaultSelector()
        self._accepts_on: socket.socket | None = None
        """None while there is no descriptor for another connection."""
        self._listen()
        self._look_s = time.monotonic() + LOOK_S
        self._connections: dict[int, socket.socket] = {}
        self._joined: set[int] = set()
        """Those that took part; one that was refused does not make this process linger."""
        self._refused: set[str] = set()
        """Refusals of models of other releases, each logged once: they ask again and again."""
        self._sources = 0
        self._idle_since = time.monotonic()

    def run(self) -> None:
        """Serve until idle for too long, or until another process has this one's place."""
        while not self._expired() and self._in_place():
            ready = self._selector.select(self._patience_s())
            for key, _ in ready:
                if key.fileobj is self._accepts_on:
                    self._accept()
                else:
                    self._receive(key.data)
                    self._train()
            if not ready and self._checkpoint_due():
                assert self._events is not None
                self._events.checkpoint(self._scheduler, time.monotonic_ns())
            elif self._scheduler.wake_after_ns(_REJECT_WITHIN_NS) < time.monotonic_ns():
                self._wake()
            now_ns = time.monotonic_ns()
            for source, report in self._reporter.overdue(self._scheduler, now_ns):
                self._send(source, report)
            self._reporter.publish(self._scheduler, now_ns)

    def close(self) -> None:
        """Keep what was learned."""
        self._reporter.close()
        self._trainer.close()

    def _record(self, entry: Entry) -> None:
        if self._events is not None:
            self._events.put(entry)

    def _checkpoint_due(self) -> bool:
        return self._events is not None and self._events.checkpoint_due(time.monotonic_ns())

    def _train(self) -> None:
        self._record(Trained())
        try:
            self._trainer.train(self._scheduler)
        except Exception:  # a bug in a learner costs the batches that it was given, not the scheduler
            _log.exception("what ended could not be learned from")

    def _wake(self) -> None:
        now_ns = time.monotonic_ns()
        commands = self._scheduler.wake(now_ns)
        took_ns = time.monotonic_ns() - now_ns
        self._record(Woken(now_ns, tuple(commands)))
        self._deliver(commands, took_ns)

    def _patience_s(self) -> float:
        """Time to wait for an event; 0 where the scheduler is to be woken without one, or something else is due."""
        if self._checkpoint_due():
            return 0.0
        due_ns = min(self._scheduler.wake_after_ns(_REJECT_WITHIN_NS), self._reporter.due_ns)
        left_ns = due_ns - time.monotonic_ns()
        return min(_LOOK_S, max(0.0, left_ns / 1e9))

    def _expired(self) -> bool:
        if self._joined:
            self._idle_since = time.monotonic()
        if self._linger_s is None or self._connections:
            return False
        return time.monotonic() - self._idle_since > self._linger_s

    def _in_place(self) -> bool:
        """Look now and then; False where another process is the device's scheduler by now."""
        now_s = time.monotonic()
        if now_s < self._look_s:
            return True
        self._look_s = now_s + LOOK_S
        if not self._listener.in_place() and not self._listener.take_place():
            _log.warning("another process is the scheduler of device '%s' by now, so this one ends", self._device)
            return False
        if self._accepts_on is not self._listener.socket:
            self._listen()
        return True

    def _listen(self) -> None:
        if self._accepts_on is not None:
            self._selector.unregister(self._accepts_on)
        self._accepts_on = self._listener.socket
        self._accepts_on.setblocking(False)
        self._selector.register(self._accepts_on, selectors.EVENT_READ)

    def _accept(self) -> None:
        try:
            connection = self._listener.accept()
        except OSError:  # until the next look: what waits would wake this loop without end
            self._selector.unregister(self._listener.socket)
            self._accepts_on = None
            return
        if connection is None:
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._sources += 1
        self._connections[self._sources] = connection
        self._selector.register(connection, selectors.EVENT_READ, self._sources)
        if len(self._connections) > SOURCES_MAX:
            why = f"{SOURCES_MAX} models' processes are connected, which is the most"
            self._refuse(self._sources, why)

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
        except WRONG as error:
            if (other := refusal_of_another_protocol(packet)) is None:
                self._refuse(source, str(error))
            else:
                self._refuse_release(source, other)

    def _refuse(self, source: int, why: str) -> None:
        self._send(source, Refused(why, PROTOCOL))
        self._drop(source, why)

    def _refuse_release(self, source: int, why: str) -> None:
        """Refuse a model of another release, which serves without this scheduler and asks again now and then."""
        if why not in self._refused and len(self._refused) < _REFUSALS_MAX:
            self._refused.add(why)
            _log.warning("a connection is refused: %s; the model launches in order of arrival", why)
        self._send(source, Refused(why, PROTOCOL))
        self._drop(source, None)

    def _handle(self, source: int, packet: bytes) -> None:
        now_ns = time.monotonic_ns()
        event = decode_event(packet)
        try:
            commands = self._scheduler.handle(source, event, now_ns)
        except Exception as error:
            self._record(Handled(now_ns, source, event, (), str(error)))
            raise
        took_ns = time.monotonic_ns() - now_ns
        if not isinstance(event, Ping):  # which changes nothing, and may be sent hundreds of times a second
            self._record(Handled(now_ns, source, event, tuple(commands)))
            self._reporter.note(self._scheduler, source, event)
        if isinstance(event, Join):
            _log.info("source %d: %s version %s joined", source, event.model, event.version)
            self._joined.add(source)
            self._send(source, Welcome(source, self._lanes))
        elif isinstance(event, Ping):
            pong = Decided((), took_ns, load=self._reporter.load(self._scheduler, source, event, now_ns))
            self._send(source, self._reporter.with_report(pong, self._scheduler, source, now_ns))
        self._deliver(commands, took_ns)
        if self._samples is not None and (lost := self._samples.take_lost(source)):
            self._send(source, Decided((), took_ns, lost))

    def _deliver(self, commands: list[Command], took_ns: int) -> None:
        by_source: dict[int, list[Command]] = {}
        for command in commands:
            by_source.setdefault(command.source, []).append(command)
        now_ns = time.monotonic_ns()
        for source, own in by_source.items():
            for i in range(0, len(own), 256):
                decided = Decided(tuple(own[i : i + 256]), took_ns)
                self._send(source, self._reporter.with_report(decided, self._scheduler, source, now_ns))

    def _sample(self, source: Source, batch: RunningBatch, finish: Finish, co_runners: list[CoRunner]) -> None:
        assert self._samples is not None
        self._samples.put(source.id, sample_of_batch(source, batch, finish, co_runners, self._device, self._lanes))

    def _send(self, source: int, reply: Reply) -> None:
        connection = self._connections.get(source)
        if connection is None:
            return
        try:
            connection.send(encode(reply))
        except (OSError, OverflowError) as error:
            # Gone, or so far behind that its buffer is full, or a number that fits no message: it must start afresh.
            self._drop(source, f"cannot be reached: {error}")

    def _drop(self, source: int, why: str | None) -> None:
        """why: logged; None: that was done."""
        connection = self._connections.pop(source, None)
        if connection is None:
            return
        if why is not None:
            _log.info("source %d left: %s", source, why)
        if source in self._joined:
            self._joined.discard(source)
            self._idle_since = time.monotonic()  # of one that was stopped meanwhile as well
        self._selector.unregister(connection)
        connection.close()
        now_ns = time.monotonic_ns()
        commands = self._scheduler.leave(source, now_ns)
        took_ns = time.monotonic_ns() - now_ns
        self._record(Left(now_ns, source, tuple(commands)))
        self._reporter.left(source)
        self._deliver(commands, took_ns)
        if not self._connections:
            self._trainer.save()


def cores_of(device: str) -> int | None:
    """The number of cores that a device's lanes are spread over; None: its lanes are no cores."""
    return core_budget() if device == "cpu" else None


def serve(point: MeetingPoint, lanes: int, linger_s: float | None) -> None:
    """Run the device's scheduler here; returns at once where one runs already. Raises ConfigError."""
    make_scheduler = scheduler_factory()
    with only_listener(point) as listener:
        if listener is None:
            return
        samples = sample_log_of_environment(point.device)
        events = event_log_of_environment(point.device, lanes, cores_of(point.device))
        reporter = reporter_of_environment(point.device)
        process = SchedulerProcess(point, listener, lanes, linger_s, samples, make_scheduler, events, reporter)
        try:
            process.run()
        finally:
            process.close()
            for log in (samples, events):
                if log is not None:
                    log.close()


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
    except IsochroneError as error:
        _log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
