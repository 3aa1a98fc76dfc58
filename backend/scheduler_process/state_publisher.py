"""Sends a device's snapshots to subscribers over TCP, on a thread of its own: none of them can delay a decision.

The scheduler's thread leaves its newest snapshot in a mailbox of one slot and goes on. No socket here ever blocks, and
what a subscriber may make this thread do, or hold, is bounded: connections, bytes of a hello, one line that it has not
read yet. Whatever one does wrong ends its connection only.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from contextlib import suppress

from backend.fleet.snapshot import MAX_HELLO_BYTES, DeviceSnapshot, Refused, decode_hello, encode
from backend.scheduler_process.state_address import StateAddress

SUBSCRIBERS_MAX = 64
HELLO_S = 5.0
"""Time that a connection has for its first line."""
BLOCKED_S = 1.0
"""A subscriber whose buffers stay full for so long is dropped."""
_RETRY_S = 2.0
"""Between two attempts to listen."""
_ACCEPT_EVERY_S, _ACCEPT_MAX = 0.02, 8
"""So many connections at once, and then none for a moment: a flood of them must not keep Python's lock busy."""
_FRESH_S = 0.5
"""A new subscriber gets the newest snapshot at once, unless it is older."""
_RECEIVE_BYTES = MAX_HELLO_BYTES + 1
_log = logging.getLogger("isochrone.scheduler")


class _Subscriber:
    """One connection. hello: what came so far, None once it was accepted; unsent: the rest of a line."""

    def __init__(self, connection: socket.socket, now_s: float) -> None:
        self.connection = connection
        self.hello: bytes | None = b""
        self.unsent: memoryview | None = None
        self.since_s = now_s
        """When it connected, or when its buffers became full."""

    def send(self, line: bytes | memoryview, now_s: float) -> None:
        """Send as much as its buffers take, and keep the rest. Raises OSError where it is gone."""
        try:
            sent = self.connection.send(line)
        except BlockingIOError:
            sent = 0
        if sent == len(line):
            self.unsent = None
            return
        if self.unsent is None or sent:
            self.since_s = now_s
        self.unsent = memoryview(line)[sent:]

    def overdue(self, now_s: float) -> bool:
        """True where its hello does not come, or it does not read."""
        if self.hello is not None:
            return now_s - self.since_s > HELLO_S
        return self.unsent is not None and now_s - self.since_s > BLOCKED_S


class StatePublisher:
    """Listens, and sends every snapshot that is offered to all subscribers that can take it."""

    def __init__(self, address: StateAddress) -> None:
        self._address = address
        self.subscribers = 0
        """Of those that were accepted; while there are none, snapshots need not be made."""
        self.port: int | None = None
        """That it listens on; None while it cannot."""
        self._offered: DeviceSnapshot | None = None
        self._line, self._line_s = b"", 0.0
        self._subscribers: dict[int, _Subscriber] = {}
        self._listener: socket.socket | None = None
        self._retry_s = self._accept_s = 0.0
        self._resting = False
        """No connection is accepted until `_accept_s`."""
        self._logged = ""
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="isochrone-state", daemon=True)

    def start(self) -> None:
        """Start the thread; it listens as soon as it can."""
        self._thread.start()

    def offer(self, snapshot: DeviceSnapshot) -> None:
        """Replace what was offered before, in a few microseconds."""
        self._offered = snapshot
        self._wake()

    def close(self) -> None:
        """Close all connections."""
        self._closing = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)

    def _wake(self) -> None:
        with suppress(OSError):  # it is woken already, or closed
            self._waker.send(b"\0")

    def _run(self) -> None:
        while not self._closing:
            try:
                self._step()
            except Exception:  # a bug here costs subscribers a moment, not the scheduler
                _log.exception("the device's state could not be published")
                time.sleep(_RETRY_S)
        for subscriber in list(self._subscribers.values()):
            self._drop(subscriber)
        if self._listener is not None:
            self._listener.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _step(self) -> None:
        self._listen()
        for key, events in self._selector.select(self._patience_s()):
            if key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
            elif key.fileobj is self._listener:
                self._accept()
            else:
                self._serve(self._subscribers[key.data], events)
        snapshot, self._offered = self._offered, None
        if snapshot is not None:
            self._publish(snapshot)
        now_s = time.monotonic()
        for subscriber in [each for each in self._subscribers.values() if each.overdue(now_s)]:
            if subscriber.hello is not None:
                self._refuse(subscriber, f"no message came within {HELLO_S:g} s")
            else:
                self._drop(subscriber)

    def _patience_s(self) -> float:
        now_s = time.monotonic()
        if self._listener is None:
            return max(0.0, self._retry_s - now_s)
        if self._resting:
            return max(0.0, self._accept_s - now_s)
        return 0.25 if self._subscribers else 60.0

    # The listening socket

    def _listen(self) -> None:
        now_s = time.monotonic()
        if self._listener is None:
            if now_s >= self._retry_s:
                self._open()
                self._retry_s = now_s + _RETRY_S
        elif self._resting and now_s >= self._accept_s:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._resting = False

    def _open(self) -> None:
        address = self._address
        try:
            family, kind, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setblocking(False)
                listener.bind(where)
                listener.listen(SUBSCRIBERS_MAX)
            except OSError:
                listener.close()
                raise
        except OSError as error:
            sentence = f"the device's state cannot be published at {address}: {error.strerror or error}"
            if sentence != self._logged:  # once: it is tried again
                self._logged = sentence
                _log.warning("%s; it is tried again every %g s", sentence, _RETRY_S)
            return
        self._listener, self.port, self._logged = listener, listener.getsockname()[1], ""
        self._selector.register(listener, selectors.EVENT_READ)
        _log.info("the device's state is published at %s", address)

    def _accept(self) -> None:
        assert self._listener is not None
        rest_s = _ACCEPT_EVERY_S
        for _ in range(_ACCEPT_MAX):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # as where no descriptor is left
                _log.warning("a subscriber could not be accepted: %s", error.strerror)
                rest_s = _RETRY_S
                break
            self._welcome(connection)
        self._accept_s, self._resting = time.monotonic() + rest_s, True
        self._selector.unregister(self._listener)

    def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        subscriber = _Subscriber(connection, time.monotonic())
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._subscribers[connection.fileno()] = subscriber
        self._selector.register(connection, selectors.EVENT_READ, connection.fileno())
        if len(self._subscribers) > SUBSCRIBERS_MAX:
            self._refuse(subscriber, f"{SUBSCRIBERS_MAX} subscribers are connected, which is the most")

    # A subscriber

    def _serve(self, subscriber: _Subscriber, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                received = subscriber.connection.recv(_RECEIVE_BYTES)
                if not received or subscriber.hello is None:  # it left, or says what no subscriber says
                    self._drop(subscriber)
                    return
                self._greet(subscriber, received)
            elif events & selectors.EVENT_WRITE and subscriber.unsent is not None:
                self._send(subscriber, subscriber.unsent)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(subscriber)

    def _greet(self, subscriber: _Subscriber, received: bytes) -> None:
        assert subscriber.hello is not None
        subscriber.hello += received
        line, ended, more = subscriber.hello.partition(b"\n")
        if not ended and len(line) <= MAX_HELLO_BYTES:
            return
        try:
            token = decode_hello(line).token
        except ValueError as error:
            self._refuse(subscriber, str(error))
            return
        if not self._address.admits(token):
            self._refuse(subscriber, "the token is not the one that ISOCHRONE_STATE_TOKEN has here")
        elif more:
            self._drop(subscriber)
        else:
            subscriber.hello = None
            self.subscribers += 1
            if self._line and time.monotonic() - self._line_s < _FRESH_S:
                self._send(subscriber, self._line)

    def _publish(self, snapshot: DeviceSnapshot) -> None:
        self._line, self._line_s = encode(snapshot), time.monotonic()
        for subscriber in list(self._subscribers.values()):
            if subscriber.hello is None and subscriber.unsent is None:  # else it is still at an older one
                with suppress(OSError):
                    self._send(subscriber, self._line)
                    continue
                self._drop(subscriber)

    def _send(self, subscriber: _Subscriber, line: bytes | memoryview) -> None:
        subscriber.send(line, time.monotonic())
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if subscriber.unsent is not None else 0)
        self._selector.modify(subscriber.connection, events, subscriber.connection.fileno())

    def _refuse(self, subscriber: _Subscriber, reason: str) -> None:
        with suppress(OSError):
            subscriber.connection.send(encode(Refused(reason)))
            subscriber.connection.shutdown(socket.SHUT_WR)
        self._drop(subscriber)

    def _drop(self, subscriber: _Subscriber) -> None:
        self.subscribers -= subscriber.hello is None
        del self._subscribers[subscriber.connection.fileno()]
        self._selector.unregister(subscriber.connection)
        subscriber.connection.close()
