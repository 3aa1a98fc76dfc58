"""The lanes of the engine process: a thread for each, which runs the batches of every model on that lane in turn."""

from __future__ import annotations

import logging
import os
import select
import threading

from backend.engine_process.store import EngineHandle
from backend.engine_process.wire.channel import Channel, ChannelError
from backend.engine_process.wire.messages import BatchFailed, BatchFinished, RunBatch, decode_run
from backend.engine_process.wire.regions import RegionReader, RegionWriter
from backend.errors import EngineError
from backend.linux.cpu_topology import cores
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.linux.low_priority import Aside
from backend.linux.starvation_guard import Guard

LOST = 3
"""Exit status: the GPU is lost to the process, which CUDA says must be ended then."""
_log = logging.getLogger("isochrone.engines")
_guard = Guard()
_lanes: list[int] = []
"""Those that there are: more than cores take turns on them."""


class ModelLane:
    """One model on one lane: its connection, its engine, and the regions where its tensors lie."""

    def __init__(self, lane: int, channel: Channel, held: EngineHandle) -> None:
        self._lane, self.channel, self._held = lane, channel, held
        self._inbox, self._outbox = RegionReader(), RegionWriter()

    def receive(self) -> RunBatch:
        """The next batch. Raises ConnectionError or ProtocolError where there is none."""
        run, region = self.channel.receive(decode_run)
        if region is not None:
            self._inbox.map(region)
        return run

    def answer(self, run: RunBatch, executing: ExecutionPriority) -> None:
        """Run it and say what came of it. Raises ConnectionError where nobody listens any more.

        Where the GPU is lost to this process, it ends: the next one has it again, and what runs here is run there anew.
        """
        region = None
        reply: BatchFinished | BatchFailed
        try:
            feeds = {name: [array] for name, array in self._inbox.arrays(run.inputs).items()}
            ran = self._held.engine.run(self._lane, feeds, run.outputs, executing)
            outputs = {name: [array] for name, array in zip(run.outputs, ran.outputs, strict=True)}
            tensors, region = self._outbox.pack(outputs)
            reply = BatchFinished(tensors, ran.exec_ns, ran.transfer_in_ns, ran.transfer_out_ns)
        except EngineError as error:
            if self._held.engine.lost:
                _log.error("the engine process ends, and is started again: %s", error)
                os._exit(LOST)
            reply = BatchFailed(str(error))
        except Exception as error:  # as in the model's own process: its requests are answered and its lane goes on
            _log.exception("a batch could not be run")
            reply = BatchFailed(str(error) or repr(error))
        self.channel.send(reply, region)

    def close(self) -> None:
        """The model is unloaded or its process is gone."""
        self.channel.close()
        self._held.release()


class LaneThread:
    """Batches of one lane, one at a time. on_cpu: the lane is a core, and gives way to what hands requests about."""

    def __init__(self, lane: int, *, on_cpu: bool) -> None:
        self._on_cpu, self._cores = on_cpu, len(cores())
        self._models: dict[int, ModelLane] = {}
        self._ready = select.epoll()
        _lanes.append(lane)
        threading.Thread(target=self._run, name=f"isochrone-lane-{lane}", daemon=True).start()

    def add(self, model: ModelLane) -> None:
        """Serve this model too, until it hangs up. For other threads; epoll lets them add while this one waits."""
        descriptor = model.channel.fileno()
        self._models[descriptor] = model
        self._ready.register(descriptor, select.EPOLLIN)

    def _run(self) -> None:
        executing: ExecutionPriority = ORDINARY_PRIORITY
        if self._on_cpu:
            executing = Aside(behind=False)
            _guard.watch(executing, lambda: -(-len(_lanes) // self._cores))
        while True:
            for descriptor, _ in self._ready.poll():
                self._serve(descriptor, executing)

    def _serve(self, descriptor: int, executing: ExecutionPriority) -> None:
        model = self._models[descriptor]
        try:
            run = model.receive()
            if isinstance(executing, Aside):
                executing.settle(run.core)
                _guard.notice()
            model.answer(run, executing)
        except (ConnectionError, ChannelError) as error:
            if isinstance(error, ChannelError):
                _log.error("a model's process is sent away: %s", error)
            self._ready.unregister(descriptor)
            del self._models[descriptor]
            model.close()
