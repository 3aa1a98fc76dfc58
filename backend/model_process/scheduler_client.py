"""A model's connection to its device's scheduler: sends events, receives commands, reconnects after a loss.

Knows nothing of requests or tensors. Callbacks run on the link's own thread.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from backend.errors import ConfigError, IsochroneError, ServerError
from backend.linux import hang_detector
from backend.linux.hang_detector import HangDetector
from backend.linux.raised_priority import raise_priority
from backend.scheduler.messages import (
    MAX_MESSAGE_BYTES,
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
from backend.scheduler_process.start import connect_or_spawn

SILENCE_S = 0.25
"""After so long without a word while something is due, the scheduler is asked whether it lives."""
ANSWER_WAITS = 4
"""A scheduler that has not answered the question after so many waits more is given up: the model launches by itself.
Waits are counted, not time: where the whole machine stood still it is one wait, however long, and the scheduler then
has its turn before the next is over."""
FIRST_CONNECT_S = 15.0
_RECONNECT_S = 1.0
_RETRY_S, _REFUSED_S = 0.2, 5.0
_log = logging.getLogger("isochrone")


@dataclass(frozen=True)
class Callbacks:
    """decided: commands came. lost: launch by yourself from now on. restored: connected, tell your state again.
    due: whether an answer is waited for, so that silence means something.
    """

    decided: Callable[[Decided], None]
    lost: Callable[[], None]
    restored: Callable[[], None]
    due: Callable[[], bool]


class SchedulerLink:
    """One connection at a time, for the life of a model's process."""

    def __init__(self, device: str, lanes: int, join: Join, callbacks: Callbacks) -> None:
        self._device, self._wanted_lanes, self._join, self._callbacks = device, lanes, join, callbacks
        self._send_lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="isochrone-link", daemon=True)
        self._socket: socket.socket | None = None
        self._hang_detector = HangDetector("scheduler")
        self.lanes = 0
        """Of the device, as its scheduler says."""

    def open(self) -> None:
        """Connect for the first time. Raises ServerError or ConfigError, each a sentence for the load's log."""
        self._socket = self._shake_hands(FIRST_CONNECT_S)
        self._thread.start()

    def send(self, event: Event) -> bool:
        """False where nobody is connected or the connection broke: then `lost` follows."""
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
        """Batches grow to at most so many rows from now on, with each later scheduler too."""
        self._join = replace(self._join, max_batch_size=max_batch_size)
        self.send(Limit(max_batch_size))

    def close(self) -> None:
        """Say nothing more; the scheduler forgets this model as the connection closes."""
        self._closing.set()
        with self._send_lock:
            if self._socket is not None:
                self._hang_up(self._socket)
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        raise_priority()
        while not self._closing.is_set():
            connection = self._socket
            assert connection is not None
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
                self._callbacks.lost()
                self._reconnect()
        if self._socket is not None:  # restored while closing
            self._socket.close()

    def _listen(self, connection: socket.socket) -> None:
        """Until the scheduler is gone, silent where it should answer, or speaks nonsense."""
        unanswered = 0
        connection.settimeout(SILENCE_S)
        while not self._closing.is_set():
            try:
                packet = connection.recv(MAX_MESSAGE_BYTES)
            except TimeoutError:
                if not unanswered and not self._callbacks.due():
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
            if not packet or not self._take(packet):
                return

    def _take(self, packet: bytes) -> bool:
        try:
            reply = decode_reply(packet)
        except msgspec.MsgspecError:
            return False
        if not isinstance(reply, Decided):
            return False
        try:
            self._callbacks.decided(reply)
        except Exception:  # a bug of ours must not leave the model without a link: reconnecting tells all again
            _log.exception("isochrone: a decision could not be carried out")
            return False
        return True

    def _reconnect(self) -> None:
        said = ""
        while not self._closing.is_set():
            join = self._join
            try:
                connection = self._shake_hands(_RECONNECT_S)
            except IsochroneError as error:
                refused = isinstance(error, ConfigError)
                if refused and str(error) != said:  # once: it may last as long as another model is loaded
                    said = str(error)
                    _log.warning("isochrone: model '%s' launches without its scheduler: %s", self._join.model, said)
                self._closing.wait(_REFUSED_S if refused else _RETRY_S)
                continue
            with self._send_lock:
                self._socket = connection
            if self._join is not join:  # it was limited meanwhile, and may have joined without
                self.send(Limit(self._join.max_batch_size))
            self._callbacks.restored()
            return

    def _shake_hands(self, timeout_s: float) -> socket.socket:
        """Raises ServerError where no scheduler answers, ConfigError where it refuses this model."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.01, deadline - time.monotonic())
            connection = connect_or_spawn(self._device, self._wanted_lanes, left_s)
            connection.settimeout(min(left_s, hang_detector.WAIT_S))
            why = "ends as soon as it is met"
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
        """None: it ended just then, as one without connections does; the next one is met at the same place.

        Raises TimeoutError where it says nothing.
        """
        try:
            connection.send(encode(self._join))
            packet = connection.recv(MAX_MESSAGE_BYTES)
            return decode_reply(packet) if packet else None
        except ConnectionError:
            return None
        except TimeoutError:
            raise
        except (OSError, msgspec.MsgspecError) as error:
            connection.close()
            raise ServerError(f"the scheduler of device '{self._device}' does not answer: {error}") from error

    def _hang_up(self, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
