"""A plan is read through TensorRT's real Python classes; only what a loaded plan would answer is made up.

That the calls exist as they are made is shown in test_nvidia_calls.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from backend.engines.gpu.device import Address, Stream
from backend.engines.tensorrt.importing import NAMES, import_tensorrt
from backend.engines.tensorrt.plan import LOG, TensorRtPlan
from backend.engines.tensorrt.plan_runtime import OptimizationProfile
from backend.errors import ConfigError, EngineError

trt: Any = import_tensorrt()
ERROR = trt.ILogger.Severity.ERROR


class Loaded:
    """As much of an ICudaEngine as is read from it."""

    num_optimization_profiles = 2
    device_memory_size_v2 = device_memory_size = 12345

    def __init__(self, **changed: Any) -> None:
        self.tensors: dict[str, dict[str, Any]] = {
            "x": {"mode": trt.TensorIOMode.INPUT, "type": trt.DataType.HALF, "shape": (-1, 3)},
            "y": {"mode": trt.TensorIOMode.OUTPUT, "type": trt.DataType.INT64, "shape": (-1,)},
        }
        self.tensors["x"] |= changed
        self.num_io_tensors = len(self.tensors)
        self.made: list[RecordedContext] = []
        self.has_room = True

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self.tensors[name]["mode"]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.tensors[name]["type"]

    def get_tensor_shape(self, name: str) -> Any:
        return trt.Dims(self.tensors[name]["shape"])

    def get_tensor_location(self, name: str) -> Any:
        return self.tensors[name].get("location", trt.TensorLocation.DEVICE)

    def get_tensor_format_desc(self, name: str) -> str:
        return str(self.tensors[name].get("format", "Row major linear FP16 format (kLINEAR)"))

    def get_tensor_profile_shape(self, name: str, index: int) -> list[Any]:
        assert name == "x"
        return [trt.Dims((low, 3)) for low in ((1, 4, 4), (5, 8, 8))[index]]

    def create_execution_context(self, strategy: Any) -> RecordedContext | None:
        assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.has_room:
            LOG.log(ERROR, "Error Code 2: OutOfMemory (Requested size was 99 bytes.)\nmore")
            return None
        self.made.append(RecordedContext())
        return self.made[-1]


class RecordedContext:
    """As much of an IExecutionContext as is asked of it; says no to what is in `refuses`."""

    def __init__(self) -> None:
        self.refuses: set[str] = set()
        self.device_memory = 0
        self.calls: list[tuple[Any, ...]] = []

    def _answer(self, *call: Any) -> bool:
        self.calls.append(call)
        if call[0] in self.refuses:
            LOG.log(ERROR, f"no {call[0]}")
        return call[0] not in self.refuses

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        return self._answer("profile", index, stream)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return self._answer("shape", name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._answer("address", name, address)

    def get_tensor_shape(self, name: str) -> Any:
        return trt.Dims((4, len(name)))

    def execute_async_v3(self, stream: int) -> bool:
        return self._answer("run", stream)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "model.plan"
    file.write_bytes(b"plan")
    return file


def loads(monkeypatch: pytest.MonkeyPatch, loaded: Loaded | None) -> None:
    class Runtime:
        def __init__(self, logger: Any) -> None:
            assert logger is LOG

        def deserialize_cuda_engine(self, plan: bytes) -> Loaded | None:
            assert plan == b"plan"
            if loaded is None:
                LOG.log(ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: stream was truncated\n")
            return loaded

    monkeypatch.setattr(trt, "Runtime", Runtime)


def test_what_a_plan_holds(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    loads(monkeypatch, Loaded())
    plan = TensorRtPlan(file)
    assert [(t.name, t.datatype.config, t.shape, t.is_input) for t in plan.tensors] == [
        ("x", "TYPE_FP16", (-1, 3), True),
        ("y", "TYPE_INT64", (-1,), False),
    ]
    assert plan.profiles == (
        OptimizationProfile({"x": (1, 3)}, {"x": (4, 3)}, {"x": (4, 3)}),
        OptimizationProfile({"x": (5, 3)}, {"x": (8, 3)}, {"x": (8, 3)}),
    )
    assert (plan.version, plan.activation_bytes) == (trt.__version__, 12345)


def test_a_context(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    loaded = Loaded()
    loads(monkeypatch, loaded)
    context = TensorRtPlan(file).context(1, Stream(7))
    context.set_memory(Address(4096))
    context.set_shape("x", (4, 3))
    context.set_address("x", Address(512))
    context.enqueue(Stream(7))
    assert context.shape("ab") == (4, 2)
    [made] = loaded.made
    assert made.device_memory == 4096
    assert made.calls == [("profile", 1, 7), ("shape", "x", (4, 3)), ("address", "x", 512), ("run", 7)]


@pytest.mark.parametrize(
    ("refuses", "says"),
    [
        ("profile", "TensorRT cannot use profile 0: no profile"),
        ("shape", "TensorRT refuses shape [9, 9] for input 'x': no shape"),
        ("address", "TensorRT refuses the memory of 'x': no address"),
        ("run", "the model's run failed: no run"),
    ],
)
def test_a_refusal_is_told_with_its_reason(
    refuses: str, says: str, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    loaded = Loaded()
    loads(monkeypatch, loaded)
    monkeypatch.setattr(RecordedContext, "_answer", _refusing(refuses))
    with pytest.raises(EngineError) as refused:
        context = TensorRtPlan(file).context(0, Stream(7))
        context.set_shape("x", (9, 9))
        context.set_address("x", Address(1))
        context.enqueue(Stream(7))
    assert str(refused.value) == says


def _refusing(what: str) -> Any:
    def answer(_: RecordedContext, *call: Any) -> bool:
        if call[0] == what:
            LOG.log(ERROR, f"no {what}")
        return bool(call[0] != what)

    return answer


def test_no_memory_for_a_context(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    loaded = Loaded()
    loaded.has_room = False
    loads(monkeypatch, loaded)
    with pytest.raises(
        EngineError,
        match=r"^TensorRT cannot make an execution context: Error Code 2: OutOfMemory \(Requested.*bytes\.\)$",
    ):
        TensorRtPlan(file).context(0, Stream(7))


def test_a_truncated_plan(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    loads(monkeypatch, None)
    with pytest.raises(ConfigError) as refused:
        TensorRtPlan(file)
    assert str(refused.value) == (
        f"TensorRT {trt.__version__} cannot load '{file}': "
        "IRuntime::deserializeCudaEngine: Error Code 1: stream was truncated"
    )


def test_an_error_of_before_is_not_taken_for_the_reason(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    loaded = Loaded()
    loads(monkeypatch, loaded)
    context = TensorRtPlan(file).context(0, Stream(7))
    loaded.made[0].refuses |= {"shape", "address", "run"}
    calls: tuple[tuple[Callable[[], None], str], ...] = (
        (lambda: context.set_shape("x", (9, 9)), "no shape"),
        (lambda: context.set_address("x", Address(1)), "no address"),
        (lambda: context.enqueue(Stream(7)), "no run"),
    )
    for call, says in calls:
        LOG.log(ERROR, "long over")
        with pytest.raises(EngineError, match=says):
            call()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"location": trt.TensorLocation.HOST}, "input 'x' of '{file}' is a shape tensor, which cannot be served"),
        (
            {"type": trt.DataType.BF16},
            "input 'x' of '{file}' has type DataType.BF16, which cannot be served; types that",
        ),
        (
            {"format": "Channel major FP16 format (kHWC8)"},
            "input 'x' of '{file}' is laid out as Channel major FP16 format (kHWC8); build the plan with linear",
        ),
    ],
)
def test_a_tensor_that_cannot_be_served(
    changed: Mapping[str, Any], says: str, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    loads(monkeypatch, Loaded(**changed))
    with pytest.raises(ConfigError) as refused:
        TensorRtPlan(file)
    assert str(refused.value).startswith(says.format(file=file))


def test_a_reason_is_told_once() -> None:
    LOG.take()
    LOG.log(trt.ILogger.Severity.WARNING, "only a warning")
    LOG.log(ERROR, "the cause\nand more")
    LOG.log(ERROR, "what followed")
    assert LOG.take() == "the cause"
    assert LOG.take() is None
    assert LOG.reason() == "TensorRT does not say why"


# Which TensorRT


def test_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as refused:
        import_tensorrt()
    assert str(refused.value) == (
        "a plan needs TensorRT, which is not installed here; pip install tensorrt in the version that built the plan"
    )


def test_a_tensorrt_whose_libraries_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        if name != "tensorrt_bindings":  # of the whole TensorRT, installed here without it
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ConfigError, match=r"^a plan needs TensorRT, which cannot be imported here \(tensorrt_bindings: lib"
    ):
        import_tensorrt()


def test_a_tensorrt_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    old.__version__ = "8.4.3.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(ConfigError, match=r"^a plan needs TensorRT 8.5 or newer, but this is 8.4.3.1$"):
        import_tensorrt()
