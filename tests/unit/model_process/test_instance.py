"""Calls of `execute` with many requests: whatever is wrong with one, each is answered and counted once.

Triton, the dispatcher and the engine are fakes here; tests/server/test_each_request.py has the real ones.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend.config.model_config import ModelConfig, warm_up_calls
from backend.config.parameters import Parameters
from backend.model_process.metrics import Metrics
from backend.model_process.request import Pending
from backend.scheduler.messages import DeviceLoad, Reject
from backend.tensors import BY_CONFIG, TensorSpec
from backend.trial.messages import Trial
from predictor.workload import ModelProfile
from tests.fakes.builders import load
from tests.fakes.fake_model import eventually

X = TensorSpec("x", BY_CONFIG["TYPE_FP32"], (4,), optional=False)
CONFIG = ModelConfig("m", "1", Path("model.onnx"), 8, Parameters(), None, (X,), (X,), {})
STRICT = ModelConfig("m", "1", Path("model.onnx"), 8, Parameters(slo_ns=1, max_queue_size=2), None, (X,), (X,), {})

PROFILE = ModelProfile((1,), (load(1.0, 0.1),))
IMPORT_TRITON = [f"backend.model_process.{name}" for name in ("exporter", "shared_memory", "responder", "instance")]


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class TritonSender:
    """Closed by the first attempt, as the real one. fault: what that raises."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.attempts = 0
        self.fault: Exception | None = None

    def send(self, response: Any, flags: int) -> None:
        assert flags == 1
        self.attempts += 1
        assert self.attempts == 1, "a second response for one request"
        if self.fault:
            raise self.fault
        self.sent.append(response.error or response.tensors)


class TritonRequest:
    def __init__(self, id_: str = "", fault: Exception | None = None, parameters: str = "") -> None:
        self.sender, self._id, self._fault, self._parameters = TritonSender(), id_, fault, parameters

    def get_response_sender(self) -> TritonSender:
        return self.sender

    def request_id(self) -> str:
        return self._id

    def inputs(self) -> list[Tensor]:
        if self._fault:
            raise self._fault
        return [Tensor("x", np.zeros((1, 4), np.float32))]

    def parameters(self) -> str:
        return self._parameters

    def timeout(self) -> int:
        return 0

    def requested_output_names(self) -> list[str]:
        return ["y"]


class Dispatcher:
    """Keeps what it is given. fault: what `submit` raises, once it has queued them."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.waiting: list[Pending] = []
        self.empty = True
        """As if all that it was given ran already."""
        self.fault: Exception | None = None

    def __len__(self) -> int:
        return 0 if self.empty else len(self.waiting)

    connected, under_way = True, 0

    @property
    def loads(self) -> SimpleQueue[DeviceLoad]:
        return SimpleQueue()

    def ask(self, *_: int) -> bool:
        return False

    def gauges(self) -> dict[str, float]:
        return {}

    def submit(self, requests: list[Pending]) -> None:
        self.waiting += requests
        if self.fault:
            raise self.fault

    def cancel(self, request: Pending) -> bool:
        if request not in self.waiting:
            return False
        self.waiting.remove(request)
        return True

    def waiting_since(self, *_: Any) -> list[Pending]:
        return []

    def close(self) -> list[Pending]:
        return self.waiting


def triton() -> ModuleType:
    """`triton_python_backend_utils` as far as answers go."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor = Tensor
    module.TritonError = lambda sentence, code: (sentence, code)
    for code in ("INVALID_ARG", "UNAVAILABLE", "INTERNAL", "CANCELLED"):
        setattr(module.TritonError, code, code)
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    module.InferenceResponse = lambda tensors=None, error=None: SimpleNamespace(tensors=tensors, error=error)
    return module  # type: ignore[no-any-return]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes the `Instance` of a configuration."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton())
    for name in IMPORT_TRITON:
        sys.modules.pop(name, None)
    module = importlib.import_module("backend.model_process.instance")
    exporter = SimpleNamespace(step=lambda _calls: False, flush=lambda: None)
    monkeypatch.setattr(module, "Dispatcher", Dispatcher)
    monkeypatch.setattr(module, "Exporter", lambda *_, **__: exporter)
    monkeypatch.setattr(module, "profile_at_load", lambda *_: SimpleNamespace(profile=PROFILE, group=None))
    made: list[Any] = []

    def one(config: ModelConfig = CONFIG, **options: Any) -> Any:
        engine = SimpleNamespace(close=lambda: None, lost=None)
        made.append(module.Instance(config, engine, Trial(), **options))
        return made[-1]

    yield one
    for instance in made:
        instance.close()
    for name in IMPORT_TRITON:
        sys.modules.pop(name, None)


def outcomes(metrics: Metrics) -> Counter[str]:
    counted = {s: value for s, value in metrics.values() if s.name == "isochrone_requests_total" and value}
    return Counter({dict(series.labels)["outcome"]: int(value) for series, value in counted.items()})


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (MemoryError("input 'x' is too large"), ("[request id: bad] model 'm': input 'x' is too large", "UNAVAILABLE")),
        (MemoryError(), ("[request id: bad] model 'm': no memory is left to read the request", "UNAVAILABLE")),
        (
            RuntimeError("a bug"),
            ("[request id: bad] model 'm': the request could not be read: RuntimeError('a bug')", "INTERNAL"),
        ),
    ],
)
def test_one_of_eight_that_cannot_be_read(fault: Exception, expected: Any, make: Callable[..., Any]) -> None:
    instance, bad = make(), TritonRequest("bad", fault)
    good = [TritonRequest() for _ in range(7)]
    instance.execute([*good[:3], bad, *good[3:]])
    eventually(lambda: bad.sender.sent)
    assert bad.sender.sent == [expected]
    assert len(instance._dispatcher.waiting) == 7
    assert outcomes(instance._metrics) == {"failed": 1}


def test_a_queue_that_raises(make: Callable[..., Any]) -> None:
    """Requests that it had queued are cancelled; those that run all the same have had their answer."""
    instance, requests = make(), [TritonRequest() for _ in range(3)]
    instance._dispatcher.fault = OSError("no socket")
    instance.execute(requests)
    eventually(lambda: outcomes(instance._metrics) == {"failed": 3})
    expected = ("model 'm': the request could not be queued: OSError('no socket')", "INTERNAL")
    assert [request.sender.sent for request in requests] == [[expected]] * 3
    assert instance._dispatcher.waiting == []


def test_a_second_answer_to_a_request_is_dropped(make: Callable[..., Any]) -> None:
    instance, request = make(), TritonRequest()
    instance.execute([request])
    (pending,) = instance._dispatcher.waiting
    for _ in range(3):
        instance._responder.refuse(pending.sender, "no", "INTERNAL", "failed")
    instance.close()
    assert request.sender.sent == [("no", "INTERNAL")]
    assert outcomes(instance._metrics) == {"failed": 1}


def test_an_answer_that_triton_does_not_take_has_failed(make: Callable[..., Any]) -> None:
    """Triton answers the client itself where it had taken the answer."""
    instance, request = make(), TritonRequest()
    instance.execute([request])
    (pending,) = instance._dispatcher.waiting
    request.sender.fault = RuntimeError("gone")
    instance._responder.send(pending, [("y", np.zeros(4))])
    eventually(lambda: outcomes(instance._metrics) == {"failed": 1})
    assert request.sender.attempts == 1


def test_warm_up_requests_come_first_and_carry_no_deadline(make: Callable[..., Any]) -> None:
    instance = make(STRICT, warm_ups=2)
    for _ in range(2):
        instance.execute([TritonRequest() for _ in range(3)])  # more than its queue holds
    instance.execute([TritonRequest() for _ in range(3)])
    deadlines = [request.deadline_ns for request in instance._dispatcher.waiting]
    assert deadlines[:6] == [None] * 6
    assert len(deadlines) == 8
    assert None not in deadlines[6:]
    eventually(lambda: outcomes(instance._metrics) == {"rejected": 1})


@pytest.mark.parametrize(
    ("samples", "calls"),
    [
        ([], 0),
        ([{"batch_size": 1}], 1),
        ([{"batch_size": 4, "count": 0}], 1),
        ([{"batch_size": 4, "count": 3}, {"batch_size": 1}], 4),
        ([{"batch_size": 0, "count": 3}, {"count": 2}], 0),
    ],
)
def test_calls_of_a_warm_up(samples: list[dict[str, int]], calls: int) -> None:
    assert warm_up_calls({"model_warmup": samples}) == calls
    assert warm_up_calls({}) == 0


def test_a_model_is_ready_until_its_engine_is_lost_or_it_is_closed(make: Callable[..., Any]) -> None:
    instance = make()
    assert instance.ready
    instance._engines[0].lost = "the engine process died, and its file changed"
    assert not instance.ready
    instance._engines[0].lost = None  # it is back
    assert instance.ready
    instance.close()
    assert not instance.ready


def test_gauges_are_read_from_the_dispatcher_until_the_model_is_closed(make: Callable[..., Any]) -> None:
    instance = make()
    assert instance._metrics.read_gauges == instance._dispatcher.gauges
    instance._dispatcher.gauges = lambda: {"isochrone_running_batches": 1}
    instance.close()
    assert {value for _, value in instance._metrics.gauges()} == {0}


class TwoDevices:
    """An instance on two equal devices. metrics: of each."""

    def __init__(self, make: Callable[..., Any], config: ModelConfig = CONFIG, **options: Any) -> None:
        self.closed: list[str] = []
        self.engine = SimpleNamespace(close=lambda: self.closed.append("second"), lost=None)
        self.instance = make(config, others=[(config, self.engine)], **options)
        self.first, self.second = (member.dispatcher for member in self.instance._dispatcher._members)
        self.metrics = [m.dispatcher.args[4] for m in self.instance._dispatcher._members]


def test_requests_of_a_model_on_two_devices_are_on_one_each(make: Callable[..., Any]) -> None:
    two = TwoDevices(make)
    two.instance.execute([TritonRequest() for _ in range(6)])
    ids = [[request.id for request in each.waiting] for each in (two.first, two.second)]
    assert ids == [[1, 3, 5], [2, 4, 6]]


def test_warm_up_reaches_each_device(make: Callable[..., Any]) -> None:
    two = TwoDevices(make, STRICT, warm_ups=2)
    for _ in range(2):
        two.instance.execute([TritonRequest()])
    assert [len(each.waiting) for each in (two.first, two.second)] == [1, 1]


def test_the_queue_limit_is_over_all_devices(make: Callable[..., Any]) -> None:
    two = TwoDevices(make, STRICT)
    two.first.empty = two.second.empty = False
    requests = [TritonRequest() for _ in range(3)]
    two.instance.execute(requests[:2])
    two.instance.execute(requests[2:])
    eventually(lambda: requests[2].sender.sent)
    assert "2 requests are waiting already, which is its max_queue_size" in requests[2].sender.sent[0][0]
    assert [len(each.waiting) for each in (two.first, two.second)] == [1, 1]


def test_a_device_whose_queue_raises_fails_the_call_and_keeps_nothing(make: Callable[..., Any]) -> None:
    two, requests = TwoDevices(make), [TritonRequest() for _ in range(4)]
    two.second.fault = OSError("no socket")
    two.instance.execute(requests)
    eventually(lambda: all(request.sender.sent for request in requests))
    assert two.first.waiting == two.second.waiting == []


def test_answers_count_on_the_device_that_gave_them(make: Callable[..., Any]) -> None:
    two = TwoDevices(make)
    two.instance.execute([TritonRequest() for _ in range(3)])
    for dispatcher in (two.first, two.second):
        for request in dispatcher.waiting:
            runner = dispatcher.args[3]
            runner.reject(request, Reject(1, request.id, 9, 1))
    eventually(lambda: sum(sum(outcomes(each).values()) for each in two.metrics) == 3)
    assert [outcomes(each) for each in two.metrics] == [{"rejected": 2}, {"rejected": 1}]


def test_a_model_is_ready_while_one_device_serves_and_unloading_closes_all(make: Callable[..., Any]) -> None:
    two, requests = TwoDevices(make), [TritonRequest() for _ in range(4)]
    two.engine.lost = "gone"
    assert two.instance.ready
    two.instance._engines[0].lost = "gone too"
    assert not two.instance.ready
    two.instance._engines[0].lost = two.engine.lost = None
    two.instance.execute(requests)
    two.instance.close()
    assert [request.sender.sent for request in requests] == [[("the model is being unloaded", "UNAVAILABLE")]] * 4
    assert two.closed == ["second"]
    assert all(each.read_gauges is dict for each in two.metrics)
