"""Engine process: accepts models' processes, opens their models, and gives their lanes to the lanes' threads.

One process per device and runtime folder. A connection's error ends that connection only.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from backend.device_process import LOOK_S, DeviceListener, only_listener
from backend.engine_process import heap
from backend.engine_process.lanes import LaneThread, ModelLane
from backend.engine_process.store import EngineHandle, EngineStore, file_stamp
from backend.engine_process.wire.channel import Channel, ChannelError
from backend.engine_process.wire.messages import (
    PROTOCOL,
    AddLane,
    EnginePing,
    EnginePong,
    ModelOpened,
    ModelRefused,
    OpenModel,
    decode_request,
)
from backend.engines.loading import load_engine
from backend.errors import IsochroneError, ServerError
from backend.runtime_dir import MeetingPoint, meeting_point

_LANES_MAX = 1024
_CONNECTIONS_MAX = 2048
_log = logging.getLogger("isochrone.engines")


class EngineProcess:
    """Serves one device on a listening SEQPACKET socket, until it had no connection for `linger_s` (None: for ever)."""

    def __init__(self, device: str, listener: DeviceListener, linger_s: float | None, store: EngineStore) -> None:
        self._on_cpu = device == "cpu"
        self._listener, self._linger_s, self._store = listener, linger_s, store
        self._lock = threading.Lock()
        self._connections = 0
        self._idle_since = time.monotonic()
        self._lanes: dict[int, LaneThread] = {}

    def run(self) -> None:
        """Accept connections until idle for too long, or until another process has this one's place."""
        look_s = time.monotonic()
        while not self._expired():
            if time.monotonic() >= look_s:
                if not self._listener.in_place() and not self._listener.take_place():
                    _log.warning("another process has the device's engines by now, so this one ends")
                    return
                look_s = time.monotonic() + LOOK_S
            self._listener.socket.settimeout(LOOK_S)
            try:
                connection = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                time.sleep(LOOK_S)
                continue
            if connection is None:
                continue
            if self._connections >= _CONNECTIONS_MAX:
                _log.error("a connection is refused: %d are open, which is the most", _CONNECTIONS_MAX)
                connection.close()
                continue
            self._count(+1)
            # A thread each: loading takes long and must not delay others.
            threading.Thread(target=self._serve, args=(Channel(connection),), daemon=True).start()

    def _expired(self) -> bool:
        with self._lock:
            idle_s = 0.0 if self._connections else time.monotonic() - self._idle_since
        return self._linger_s is not None and idle_s > self._linger_s

    def _count(self, change: int) -> None:
        with self._lock:
            self._connections += change
            self._idle_since = time.monotonic()

    # On a connection's thread

    def _serve(self, channel: Channel) -> None:
        try:
            first, _ = channel.receive(decode_request)
            if isinstance(first, EnginePing):
                _answer_pings(channel)
            held = self._open(channel, first)
            if held is None:
                return
            try:
                while True:
                    self._add_lane(channel, held)
            finally:
                held.release()
        except ConnectionError:
            pass
        except ChannelError as error:
            _log.error("a model's connection is closed: %s", error)
        finally:
            channel.close()
            self._count(-1)

    def _open(self, channel: Channel, request: OpenModel | AddLane) -> EngineHandle | None:
        """Open the model that the first message names and answer; None where that is refused."""
        try:
            held, opened = self._load(request)
        except IsochroneError as error:
            channel.send(ModelRefused(str(error)))
            return None
        except Exception as error:
            _log.exception("a model could not be loaded")
            channel.send(ModelRefused(f"the engine process cannot load it: {error!r}"))
            return None
        try:
            channel.send(opened)
        except BaseException:
            held.release()
            raise
        return held

    def _load(self, request: OpenModel | AddLane) -> tuple[EngineHandle, ModelOpened]:
        if not isinstance(request, OpenModel) or request.protocol != PROTOCOL:
            raise ServerError(f"the engine process speaks protocol {PROTOCOL}, and does not understand {request}")
        stamp = file_stamp(Path(request.file))  # taken before loading: a file that changes meanwhile differs from it
        held = self._store.acquire(request)
        engine = held.engine
        return held, ModelOpened(engine.identity, stamp, engine.inputs, engine.outputs)

    def _add_lane(self, channel: Channel, held: EngineHandle) -> None:
        request, descriptor = channel.receive(decode_request)
        if not isinstance(request, AddLane) or descriptor is None or not 0 <= request.lane < _LANES_MAX:
            if descriptor is not None:
                os.close(descriptor)
            raise ChannelError(f"not a lane of a model that is open: {request!r}")
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError as error:
            os.close(descriptor)
            raise ChannelError(f"a lane's descriptor is no socket: {error.strerror}") from error
        with self._lock:
            thread = self._lanes.get(request.lane)
            if thread is None:
                thread = self._lanes[request.lane] = LaneThread(request.lane, on_cpu=self._on_cpu)
        thread.add(ModelLane(request.lane, Channel(connection), held.again()))


def _answer_pings(channel: Channel) -> NoReturn:
    """Answer pings until the other end is closed, which raises ConnectionError."""
    while True:
        channel.send(EnginePong())
        request, _ = channel.receive(decode_request)
        if not isinstance(request, EnginePing):
            raise ChannelError(f"not a ping: {request!r}")


def serve(point: MeetingPoint, linger_s: float | None) -> None:
    """Serve the device's engines; returns at once where another process does."""
    with only_listener(point) as listener:
        if listener is not None:
            store = EngineStore(load_engine, in_turn=point.device != "cpu")
            EngineProcess(point.device, listener, linger_s, store).run()


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.engine_process.process --device cpu`"""
    parser = argparse.ArgumentParser(description="Isochrone's engine process of one device.")
    parser.add_argument("--device", required=True)
    parser.add_argument("--linger-s", type=float, default=None, help="end after so long without a connection")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    # Signals of a terminal, such as Ctrl-C, go to the group of the tritonserver that started this process; that server
    # still drains then, and others may use these engines.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getsid(0) != os.getpid():
        os.setpgid(0, 0)
    heap.limit_to_one()
    # A model has three descriptors per lane here; the usual limit of 1024 is meant for programs that use select().
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    try:
        serve(meeting_point(options.device, "engine process", PROTOCOL), options.linger_s)
    except IsochroneError as error:
        _log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
