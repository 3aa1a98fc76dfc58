"""Lanes of the engine process: a thread for each, which runs the batches of all models on that lane one by one."""

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
from backend.linux.low_priority import LowPriority
from backend.linux.starvation_guard import StarvationGuard

_CORES_MAX = 1 << 16
LOST = 3
"""Exit status where the GPU is lost to the process, which CUDA says must then be ended."""
_log = logging.getLogger("isochrone.engines")
_guard = StarvationGuard()
_lanes: list[int] = []
"""Numbers of the lanes so far; more lanes than cores share them."""


class ModelLane:
    """One model on one lane: its connection, its engine, and the shared regions of its tensors."""

    def __init__(self, lane: int, channel: Channel, held: EngineHandle) -> None:
        self._lane, self.channel, self._held = lane, channel, held
        self._inputs, self._outputs = RegionReader(), RegionWriter()

    def receive(self) -> RunBatch:
        """Next batch. Raises ConnectionError where the other end is closed, ChannelError where it sent no batch."""
        run, region = self.channel.receive(decode_run)
        if run.core is not None and not 0 <= run.core < _CORES_MAX:
            if region is not None:
                os.close(region)
            raise ChannelError(f"core {run.core} cannot be")
        if region is not None:
            try:
                self._inputs.map(region)
            except (OSError, ValueError) as error:
                raise ChannelError(f"the region of the inputs cannot be mapped: {error}") from error
        return run

    def answer(self, run: RunBatch, priority: ExecutionPriority) -> None:
        """Run a batch and send its outputs, or why it failed. Raises ConnectionError where the other end is closed.

        Where the GPU is lost to this process, it ends: its successor can use the GPU, and runs the batch again.
        """
        region = None
        reply: BatchFinished | BatchFailed
        try:
            feeds = {name: [array] for name, array in self._inputs.arrays(run.inputs).items()}
            ran = self._held.engine.run(self._lane, feeds, run.outputs, priority)
            outputs = {name: [array] for name, array in zip(run.outputs, ran.outputs, strict=True)}
            tensors, region = self._outputs.pack(outputs)
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
        """Release the engine: the model is unloaded or its process is gone."""
        self.channel.close()
        self._held.release()


class LaneThread:
    """Thread that runs the batches of one lane. on_cpu: its priority is lowered while it executes them."""

    def __init__(self, lane: int, *, on_cpu: bool) -> None:
        self._on_cpu, self._cores = on_cpu, len(cores())
        self._models: dict[int, ModelLane] = {}
        self._ready = select.epoll()
        _lanes.append(lane)
        threading.Thread(target=self._run, name=f"isochrone-lane-{lane}", daemon=True).start()

    def add(self, model: ModelLane) -> None:
        """Serve another model until it hangs up. Called on other threads, as epoll allows while this one waits."""
        descriptor = model.channel.fileno()
        self._models[descriptor] = model
        self._ready.register(descriptor, select.EPOLLIN)

    def _run(self) -> None:
        priority: ExecutionPriority = ORDINARY_PRIORITY
        if self._on_cpu:
            priority = LowPriority(preemptible=False)
            _guard.watch(priority, lambda: -(-len(_lanes) // self._cores))
        while True:
            for descriptor, _ in self._ready.poll():
                self._serve(descriptor, priority)

    def _serve(self, descriptor: int, priority: ExecutionPriority) -> None:
        model = self._models[descriptor]
        try:
            run = model.receive()
            if isinstance(priority, LowPriority):
                priority.move_to(run.core)
                _guard.wake()
            model.answer(run, priority)
        except (ConnectionError, ChannelError) as error:
            if isinstance(error, ChannelError):
                _log.error("a model's connection is closed: %s", error)
            self._ready.unregister(descriptor)
            del self._models[descriptor]
            model.close()
