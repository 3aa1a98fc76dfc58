"""A model's connection to its device's scheduler: sends events, receives commands, reconnects after a loss.

Knows nothing of tensors. The client's own thread calls the `Listener`.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Protocol

import msgspec
from msgspec.structs import replace

from backend.device_process import connect_or_start
from backend.errors import ConfigError, IsochroneError, OtherReleaseError, ServerError
from backend.linux import hang_detector
from backend.linux.hang_detector import HangDetector
from backend.linux.raised_priority import raise_priority
from backend.runtime_dir import meeting_point
from backend.scheduler.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    Decided,
    Event,
    Join,
    Limit,
    Ping,
    Refused,
    Reply,
    Welcome,
    decode_reply,
    encode,
)

SILENCE_S = 0.25
"""Silence after which the scheduler is pinged, while a decision is awaited."""
ANSWER_WAITS = 4
"""A scheduler that has not answered the ping after so many waits more counts as lost: the model launches by itself.
Waits are counted, not time: where the whole machine was suspended it is one wait, however long, and the scheduler runs
again before the next is over."""
FIRST_CONNECT_S = 15.0
_RECONNECT_S = 1.0
_RETRY_S, _REFUSED_S = 0.2, 5.0
_log = logging.getLogger("isochrone")


class Listener(Protocol):
    """Receiver of the scheduler's decisions: the dispatcher."""

    def decided(self, decided: Decided) -> None:
        """Carry out the commands."""

    def lost(self) -> None:
        """Launch without a scheduler from now on."""

    def restored(self) -> None:
        """Send the state again: there is a scheduler that knows nothing."""

    def awaits_decision(self) -> bool:
        """True where silence of the scheduler would mean something."""


class SchedulerClient:
    """Holds one connection at a time, for the life of a model's process."""

    def __init__(self, device: str, lanes: int, join: Join, listener: Listener) -> None:
        self._device, self._wanted_lanes, self._join, self._listener = device, lanes, join, listener
        self._send_lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="isochrone-scheduler-client", daemon=True)
        self._socket: socket.socket | None = None
        self._hang_detector = HangDetector("scheduler")
        self._logged = ""
        """Refusal that was logged last: it may last as long as another model is loaded."""
        self.lanes = 0
        """Lanes of the device, as its scheduler says."""

    def open(self) -> None:
        """Connect for the first time. Raises ServerError or ConfigError.

        Where the scheduler is of another release the model begins without one, and asks again now and then.
        """
        try:
            self._socket = self._connect(FIRST_CONNECT_S)
        except OtherReleaseError as error:
            self._log_refusal(error)
            self.lanes = self._wanted_lanes
            self._listener.lost()
        self._thread.start()

    def send(self, event: Event) -> bool:
        """Send an event; False where there is no connection or it broke: then `lost` follows."""
        packet = encode(event)
        with self._send_lock:
            connection = self._socket
            if connection is None:
                return False
            try:
                connection.send(packet)
            except OSError:
                self._hang_up(connection)
                return False
        return True

    def limit(self, max_batch_size: int) -> None:
        """Limit the rows of batches from now on, with each later scheduler too."""
        self._join = replace(self._join, max_batch_size=max_batch_size)
        self.send(Limit(max_batch_size))

    def close(self) -> None:
        """Disconnect; the scheduler forgets this model then."""
        self._closing.set()
        with self._send_lock:
            if self._socket is not None:
                self._hang_up(self._socket)
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        raise_priority()
        while not self._closing.is_set():
            if self._socket is not None:
                self._follow(self._socket)
            if not self._closing.is_set():
                self._reconnect()
        if self._socket is not None:  # restored while closing
            self._socket.close()

    def _follow(self, connection: socket.socket) -> None:
        """Listen to the end of a connection, and launch without a scheduler then."""
        self._listen(connection)
        with self._send_lock:
            self._socket = None
        connection.close()
        if not self._closing.is_set():
            _log.warning(
                "isochrone: model '%s' has lost the scheduler of device '%s' and launches in order of arrival "
                "until there is one again",
                *(self._join.model, self._device),
            )
            self._logged = ""
            self._listener.lost()

    def _listen(self, connection: socket.socket) -> None:
        """Receive until the scheduler is gone, does not answer, or sends what cannot be decoded."""
        unanswered = 0
        connection.settimeout(SILENCE_S)
        while not self._closing.is_set():
            try:
                packet = connection.recv(MAX_MESSAGE_BYTES)
            except TimeoutError:
                if not unanswered and not self._listener.awaits_decision():
                    continue
                unanswered += 1
                if unanswered == 1:
                    self.send(Ping())
                elif unanswered > ANSWER_WAITS:
                    return
                continue
            except OSError:
                return
            unanswered = 0
            if not packet or not self._handle(packet):
                return

    def _handle(self, packet: bytes) -> bool:
        try:
            reply = decode_reply(packet)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        if not isinstance(reply, Decided):
            return False
        try:
            self._listener.decided(reply)
        except Exception:  # a bug of ours must not leave the model without a scheduler: reconnecting sends all again
            _log.exception("isochrone: a decision could not be carried out")
            return False
        return True

    def _reconnect(self) -> None:
        while not self._closing.is_set():
            join = self._join
            try:
                connection = self._connect(_RECONNECT_S)
            except IsochroneError as error:
                refused = isinstance(error, ConfigError | OtherReleaseError)
                if refused:
                    self._log_refusal(error)
                self._closing.wait(_REFUSED_S if refused else _RETRY_S)
                continue
            with self._send_lock:
                self._socket = connection
            if self._join is not join:  # it was limited meanwhile, and may have joined without
                self.send(Limit(self._join.max_batch_size))
            self._listener.restored()
            return

    def _log_refusal(self, error: IsochroneError) -> None:
        if str(error) != self._logged:
            self._logged = str(error)
            _log.warning("isochrone: model '%s' launches without its scheduler: %s", self._join.model, error)

    def _connect(self, timeout_s: float) -> socket.socket:
        """Connect and join.

        Raises ServerError where no scheduler answers, OtherReleaseError where it is of another release, ConfigError
        where it refuses this model.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.01, deadline - time.monotonic())
            connection = connect_or_start(meeting_point(self._device), left_s, "--lanes", str(self._wanted_lanes))
            connection.settimeout(min(left_s, hang_detector.WAIT_S))
            why = "ends as soon as it is connected to"
            try:
                reply = self._ask_to_join(connection)
                self._hang_detector.answered()
            except TimeoutError:
                reply, why = None, "does not answer"
                if self._hang_detector.hangs_after_wait(connection):
                    self._hang_detector.kill()
            if isinstance(reply, Welcome) and self.lanes in (0, reply.lanes):
                self.lanes = self._wanted_lanes = reply.lanes  # so a new scheduler gets what this one had
                return connection
            connection.close()
            if isinstance(reply, Refused) and reply.protocol != PROTOCOL:
                raise OtherReleaseError(
                    f"the scheduler of device '{self._device}' is of another release of Isochrone, which speaks "
                    f"{f'protocol {reply.protocol}' if reply.protocol else 'an earlier protocol'}, this model's "
                    f"process {PROTOCOL}; it said: {reply.reason}"
                )
            if reply is not None:
                raise ConfigError(self._refusal(reply))
            if time.monotonic() > deadline:
                raise ServerError(f"the scheduler of device '{self._device}' {why}")
            self._closing.wait(0.01)

    def _refusal(self, reply: Reply) -> str:
        if isinstance(reply, Refused):
            return reply.reason
        if isinstance(reply, Welcome):
            return f"this device's scheduler runs {reply.lanes} lanes now, where the model was loaded for {self.lanes}"
        return f"the scheduler answered {reply!r}"

    def _ask_to_join(self, connection: socket.socket) -> Reply | None:
        """Answer to `Join`; None where the scheduler just ended, as one without connections does.

        Raises TimeoutError where it does not answer.
        """
        try:
            connection.send(encode(self._join))
            packet = connection.recv(MAX_MESSAGE_BYTES)
            return decode_reply(packet) if packet else None
        except ConnectionError:
            return None
        except TimeoutError:
            raise
        except OSError as error:
            connection.close()
            raise ServerError(f"the scheduler of device '{self._device}' does not answer: {error}") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            connection.close()
            raise OtherReleaseError(
                f"the scheduler of device '{self._device}' answers what this release does not understand: {error}"
            ) from error

    def _hang_up(self, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
