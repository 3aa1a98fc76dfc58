"""A lane of the engine process: where its thread runs, and that whatever a model does it goes on to the next."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import numpy as np
import pytest
from msgspec.structs import replace

from backend.engine_process.client import session as client_session
from backend.engine_process.lanes import LOST, LaneThread, ModelLane
from backend.engine_process.store import EngineStore
from backend.engine_process.wire.channel import Channel
from backend.engine_process.wire.messages import (
    PROTOCOL,
    BatchFailed,
    BatchFinished,
    ModelRefused,
    OpenModel,
    RunBatch,
    TensorPlace,
    decode_finished,
)
from backend.engines.protocol import BatchResult, EngineOptions
from backend.errors import EngineError
from backend.linux.cpu_topology import cores
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.tensors import Feeds, TensorSpec
from tests.fakes.fake_model import PATIENCE_S, eventually

RUN = RunBatch(None, (), ("y",))


class ScriptedEngine:
    """Does what the test says in place of a run."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    identity = "made up"
    lost: str | None = None

    def __init__(self) -> None:
        self.work: Callable[[], object] = lambda: None
        self.closed = False

    def run(
        self,
        lane: int,
        feeds: Feeds,
        outputs: Sequence[str],
        priority: ExecutionPriority = ORDINARY_PRIORITY,
        *,
        exclusive: bool = False,  # noqa: ARG002
    ) -> BatchResult:
        assert (lane, feeds, tuple(outputs)) == (3, {}, ("y",))
        with priority:
            self.work()
        return BatchResult([np.ones(1, np.float32)], 7, 5, 3)

    def close(self) -> None:
        self.closed = True


OPEN = OpenModel(PROTOCOL, "/nowhere/model", EngineOptions(None, 2, 8))


class ServedLane:
    """A lane's thread with one model, and the other end of its connection."""

    def __init__(self, *, on_cpu: bool) -> None:
        self.engine = ScriptedEngine()
        held = EngineStore(lambda *_: self.engine).acquire(OPEN)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(ours)
        LaneThread(3, on_cpu=on_cpu).add(ModelLane(3, Channel(theirs), held))

    def ask(self, run: RunBatch = RUN) -> BatchFinished | BatchFailed:
        self.channel.send(run)
        reply: BatchFinished | BatchFailed
        reply, descriptor = self.channel.receive(decode_finished)
        if descriptor is not None:
            os.close(descriptor)
        return reply


@pytest.fixture
def lane() -> Iterator[ServedLane]:
    made = ServedLane(on_cpu=True)
    yield made
    made.channel.close()
    eventually(lambda: made.engine.closed)


@pytest.mark.parametrize(("in_turn", "at_once"), [(True, 1), (False, 2)])
def test_models_are_opened_in_turn_where_it_matters(in_turn: bool, at_once: int) -> None:
    opening, most, second = [0], [0], threading.Event()

    def open_one(*_: object) -> ScriptedEngine:
        opening[0] += 1
        most.append(opening[0])
        if opening[0] == 2:
            second.set()
        second.wait(0.2 if in_turn else PATIENCE_S)
        opening[0] -= 1
        return ScriptedEngine()

    store = EngineStore(open_one, in_turn=in_turn)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(store.acquire, (OPEN, replace(OPEN, file="/nowhere/another"))))
    assert max(most) == at_once


def test_a_batch_runs_on_the_core_that_it_names(lane: ServedLane) -> None:
    seen: list[set[int]] = []
    lane.engine.work = lambda: seen.append(os.sched_getaffinity(0))
    for core in (cores()[0], cores()[-1], None, cores()[0]):
        lane.ask(RunBatch(core, (), ("y",)))
    assert seen == [{cores()[0]}, {cores()[-1]}, set(cores()), {cores()[0]}]


def test_what_a_batch_took_comes_back_to_the_model(lane: ServedLane) -> None:
    ran = client_session.LaneConnection(lane.channel).run(None, {}, ["y"])
    assert (ran.exec_ns, ran.transfer_in_ns, ran.transfer_out_ns) == (7, 5, 3)


@pytest.mark.parametrize("core", [-1, 1 << 16, 1 << 40])
def test_a_core_that_cannot_be_ends_that_connection_only(lane: ServedLane, core: int) -> None:
    lane.channel.send(RunBatch(core, (), ("y",)))
    with pytest.raises(ConnectionError):
        lane.channel.receive(decode_finished)
    eventually(lambda: lane.engine.closed)


@pytest.mark.parametrize(("on_cpu", "niceness"), [(True, 10), (False, 0)])
def test_lanes_that_are_cores_give_way(on_cpu: bool, niceness: int) -> None:
    made = ServedLane(on_cpu=on_cpu)
    seen: list[int] = []
    made.engine.work = lambda: seen.append(os.getpriority(os.PRIO_PROCESS, 0))
    made.ask()
    made.channel.close()
    assert seen == [os.getpriority(os.PRIO_PROCESS, os.getpid()) if niceness == 0 else niceness]


@pytest.mark.parametrize("error", [EngineError("no luck"), RuntimeError("no luck"), MemoryError("no luck")])
def test_a_run_that_raises_is_told_and_the_next_one_runs(lane: ServedLane, error: Exception) -> None:
    def fail() -> None:
        raise error

    lane.engine.work = fail
    assert lane.ask() == BatchFailed("no luck")
    lane.engine.work = lambda: None
    assert lane.ask() == BatchFinished((TensorPlace("y", "<f4", (1,), 0, 4),), 7, 5, 3)


def test_a_process_that_the_gpu_is_lost_to_ends_and_answers_nothing(
    lane: ServedLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's process then runs the batch anew in the next one: see test_shared_engine.py."""
    ended: list[int] = []

    def end(status: int) -> NoReturn:
        ended.append(status)
        raise ConnectionError  # nobody is left

    def fail() -> None:
        lane.engine.lost = "cudaErrorIllegalAddress"
        raise EngineError("GPU 0: running a batch failed: cudaErrorIllegalAddress")

    monkeypatch.setattr(os, "_exit", end)
    lane.engine.work = fail
    with pytest.raises(ConnectionError):
        lane.ask()
    assert ended == [LOST]


def test_a_tensor_that_lies_nowhere_fails_its_batch_alone(lane: ServedLane) -> None:
    told = lane.ask(RunBatch(None, (TensorPlace("x", "<f4", (1,), 0, 4),), ("y",)))
    assert told == BatchFailed("a tensor's place in shared memory cannot be: there is no region")
    assert isinstance(lane.ask(), BatchFinished)


def test_a_model_that_talks_nonsense_is_dropped(lane: ServedLane) -> None:
    lane.channel.send(ModelRefused("this is not for a lane"))
    with pytest.raises(ConnectionError):
        lane.channel.receive(decode_finished)
    eventually(lambda: lane.engine.closed)
