"""Keeps a model open in its device's engine process: a thread waits for that process to die, then opens it again."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, suppress

from backend.device_process import connect_or_start
from backend.engine_process.client.session import ModelSession
from backend.engine_process.client.watch import HangWatch
from backend.engine_process.wire.channel import Channel, ChannelError
from backend.engine_process.wire.messages import PROTOCOL, ModelOpened, ModelRefused, OpenModel, decode_opened
from backend.errors import ConfigError, EngineLostError, IsochroneError, ServerError
from backend.runtime_dir import meeting_point

CONNECT_S = 15.0
BACK_WITHIN_S = 60.0
"""Time that a batch waits for a lost engine process to be back with its model."""
_TOLD_AFTER_S = 5.0
"""A failure that may pass, as where no descriptor is left for a moment, is told to batches once it lasts: until then
they wait."""
_OPEN_TRIES = 3
"""A process without connections may end just then, and another model may crash it while ours is loaded."""
_AGAIN_S = 0.5
_log = logging.getLogger("isochrone")


class EngineConnection:
    """Keeps the model open in an engine process as long as the model is loaded."""

    def __init__(self, device: str, model: OpenModel) -> None:
        self._device, self._model = device, model
        self._changed = threading.Condition()
        self._opened: ModelOpened | None = None
        self._session: ModelSession | None = None
        self._failure: IsochroneError | None = None
        """Reason why the model cannot be opened again."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="isochrone-engine-link", daemon=True)

    def open(self) -> ModelOpened:
        """Open the model. Raises ConfigError where it cannot be loaded, ServerError where no engine process answers."""
        self._session = self._open()
        self._opened = self._session.opened
        self._thread.start()
        return self._opened

    def session(self) -> ModelSession:
        """Present session. Raises EngineLostError where there is none within `BACK_WITHIN_S`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._session is not None or self._failure is not None or self._closing.is_set(),
                BACK_WITHIN_S,
            )
            if self._closing.is_set():
                raise EngineLostError("the model is being unloaded")
            if self._session is not None:
                return self._session
            why = self._failure or f"it is not back after {BACK_WITHIN_S:g} s"
        raise EngineLostError(f"the engine process of device '{self._device}' died, and the model is lost: {why}")

    @property
    def failure(self) -> str | None:
        """Reason why the model could not be opened again, the last time that this was tried; None for the first while
        of a reason that may pass.
        """
        failure = self._failure
        return None if failure is None else str(failure)

    @property
    def away(self) -> bool:
        """True while the model is open nowhere."""
        return self._session is None

    def lost(self, session: ModelSession) -> None:
        """Report that the engine process of a session is gone."""
        with self._changed:
            if self._session is session:
                self._session = None
        session.hang_up()

    def close(self) -> None:
        """Close the connections, by which the engine process releases the model."""
        self._closing.set()
        with self._changed:
            if self._session is not None:
                self._session.hang_up()
            self._changed.notify_all()
        self._thread.join(timeout=5.0)

    def _keep(self) -> None:
        session = self._session
        while session is not None:
            session.wait_for_end()
            self.lost(session)
            session.close()
            session = self._reopen()

    def _reopen(self) -> ModelSession | None:
        """Open the model again, however long that takes; None where it is closed meanwhile."""
        if not self._closing.is_set():
            _log.warning("isochrone: the engine process of device '%s' is gone; it is started again", self._device)
        began_s = time.monotonic()
        while not self._closing.is_set():
            session, failure = None, None
            try:
                session = self._open()
            except IsochroneError as error:
                lasts = isinstance(error, ConfigError) or time.monotonic() - began_s >= _TOLD_AFTER_S
                failure = error if lasts else None
            with self._changed:
                self._session, self._failure = session, failure
                self._changed.notify_all()
            if session is None:
                self._closing.wait(_AGAIN_S)
            elif self._closing.is_set():  # before it could hang up this one
                session.close()
            else:
                return session
        return None

    def _open(self) -> ModelSession:
        point = meeting_point(self._device, "engine process", PROTOCOL)
        for _ in range(_OPEN_TRIES):
            with ExitStack() as undone:
                channel = Channel(connect_or_start(point, CONNECT_S))
                undone.callback(channel.close)
                # Second, so that it watches no other process than the one that the model is opened in.
                watch = HangWatch(connect_or_start(point, CONNECT_S))
                undone.callback(watch.close)
                with suppress(ConnectionError):
                    session = ModelSession(channel, watch, self._ask(channel))
                    undone.pop_all()
                    return session
        raise ServerError(
            f"the engine process ended each time it was to load '{self._model.file}'; its log is '{point.log}'"
        )

    def _ask(self, channel: Channel) -> ModelOpened:
        reply: ModelOpened | ModelRefused
        channel.send(self._model)
        try:
            reply, _ = channel.receive(decode_opened)
        except ChannelError as error:
            raise ServerError(f"the engine process of device '{self._device}' is not understood: {error}") from error
        if isinstance(reply, ModelRefused):
            raise ConfigError(reply.reason)
        if self._opened is not None and _model_of(reply) != _model_of(self._opened):
            raise ConfigError(f"'{self._model.file}' is not what it was when it was loaded; load the model again")
        return reply


def _model_of(opened: ModelOpened) -> tuple[object, ...]:
    """Identity of the model without how it runs, which may differ: a CUDA graph may not be available this time."""
    return opened.file_stamp, opened.inputs, opened.outputs
