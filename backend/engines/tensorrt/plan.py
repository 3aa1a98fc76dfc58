"""A plan by TensorRT's name-based API, 8.5 to 11: one call each. Importing this module needs TensorRT."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backend.engines.gpu.device import Address, Shape, Stream
from backend.engines.tensorrt.importing import import_tensorrt, release_of
from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.errors import ConfigError, EngineError
from backend.tensors import BY_CONFIG, Datatype

if TYPE_CHECKING:
    import tensorrt as trt
else:
    trt = import_tensorrt()

T = TypeVar("T")
VERSION: str = trt.__version__
RELEASE = release_of(trt)
"""Major and minor. Where releases differ the newer name comes first; all later ones have it, 11 has only that."""
_DATATYPES = {
    trt.DataType.FLOAT: "TYPE_FP32",
    trt.DataType.HALF: "TYPE_FP16",
    trt.DataType.INT8: "TYPE_INT8",
    trt.DataType.INT32: "TYPE_INT32",
    trt.DataType.BOOL: "TYPE_BOOL",
}
if RELEASE >= (8, 6):
    _DATATYPES[trt.DataType.UINT8] = "TYPE_UINT8"
if RELEASE >= (10, 0):
    _DATATYPES[trt.DataType.INT64] = "TYPE_INT64"


class TensorRtLog(trt.ILogger):  # type: ignore[misc,unused-ignore]  # Any where TensorRT is not installed
    """Keeps the first error of each thread until it is taken: TensorRT's calls return only that they failed."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._kept = threading.local()

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        """Called by TensorRT, also from within its calls."""
        serious = severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
        if serious and not hasattr(self._kept, "first"):
            self._kept.first = message.strip().split("\n", 1)[0]

    def take(self) -> str | None:
        """First error of this thread since the last call, None without one."""
        first: str | None = getattr(self._kept, "first", None)
        self._kept.__dict__.clear()
        return first

    def reason(self) -> str:
        """First error of this thread since the last call, after a call that failed."""
        return self.take() or "TensorRT does not say why"


LOG = TensorRtLog()
"""The one logger that TensorRT expects per process."""


def started(begin: Callable[[TensorRtLog], T]) -> T:
    """Create a root object of TensorRT, its runtime or builder. Raises ConfigError where it cannot use the GPU."""
    LOG.take()
    begun = begin(LOG)
    if why := LOG.take():
        # The object is null then: the process would crash as Python used or freed it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(begun))
        raise ConfigError(f"TensorRT {VERSION} cannot use the GPU: {why}")
    return begun


class TensorRtPlan:
    """See `LoadedPlan`. The calling thread's device is the plan's. Raises ConfigError."""

    def __init__(self, file: Path) -> None:
        self.version = VERSION
        self.shares_profiles = RELEASE >= (10, 0)
        self._file = file
        content = file.read_bytes()
        self.weights_bytes = len(content)
        self._runtime = started(trt.Runtime)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise ConfigError(f"TensorRT {VERSION} cannot load '{file}': {LOG.reason()}")
        self._engine: trt.ICudaEngine | None = engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.tensors = tuple(_tensor(engine, name, file) for name in names)
        self.profiles = tuple(
            _profile(engine, index, self.tensors) for index in range(engine.num_optimization_profiles)
        )
        self.activation_bytes = _activation_bytes(engine)

    def again(self) -> TensorRtPlan:
        """See `LoadedPlan.again`."""
        return TensorRtPlan(self._file)

    def context(self, profile: int, stream: Stream) -> TensorRtContext:
        """See `LoadedPlan.context`."""
        assert self._engine is not None, "context after close"
        LOG.take()
        context = _bare_context(self._engine)
        if context is None:
            raise EngineError(f"TensorRT cannot make an execution context: {LOG.reason()}")
        if not context.set_optimization_profile_async(profile, stream):
            raise EngineError(f"TensorRT cannot use profile {profile}: {LOG.reason()}")
        return TensorRtContext(context)

    def close(self) -> None:
        """See `LoadedPlan.close`."""
        self._engine = None


class TensorRtContext:
    """See `PlanContext`."""

    def __init__(self, context: trt.IExecutionContext) -> None:
        self._context = context

    def set_memory(self, address: Address) -> None:
        self._context.device_memory = address

    def set_shape(self, name: str, shape: Shape) -> None:
        LOG.take()
        if not self._context.set_input_shape(name, shape):
            raise EngineError(f"TensorRT refuses shape {list(shape)} for input '{name}': {LOG.reason()}")

    def shape(self, name: str) -> Shape:
        return shape_of(self._context.get_tensor_shape(name))

    def set_address(self, name: str, address: Address) -> None:
        LOG.take()
        if not self._context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT refuses the memory of '{name}': {LOG.reason()}")

    def enqueue(self, stream: Stream) -> None:
        LOG.take()
        if not self._context.execute_async_v3(stream):
            raise EngineError(f"the model's run failed: {LOG.reason()}")


def _bare_context(engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
    """Create a context without memory of its own: the contexts of a lane share the lane's."""
    if RELEASE >= (10, 0):
        return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    return engine.create_execution_context_without_device_memory()


def _activation_bytes(engine: trt.ICudaEngine) -> int:
    if RELEASE >= (10, 1):
        return int(engine.device_memory_size_v2)
    return int(engine.device_memory_size)


def _tensor(engine: trt.ICudaEngine, name: str, file: Path) -> PlanTensor:
    is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
    kind = "input" if is_input else "output"
    if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise ConfigError(f"{kind} '{name}' of '{file}' is a shape tensor, which cannot be served")
    layout = engine.get_tensor_format_desc(name)  # in words: the lean runtime has no names for formats
    if "kLINEAR" not in layout:
        raise ConfigError(f"{kind} '{name}' of '{file}' is laid out as {layout}; build the plan with linear tensors")
    return PlanTensor(name, _datatype(engine, name, kind, file), shape_of(engine.get_tensor_shape(name)), is_input)


def _datatype(engine: trt.ICudaEngine, name: str, kind: str, file: Path) -> Datatype:
    datatype = engine.get_tensor_dtype(name)
    if datatype not in _DATATYPES:
        known = ", ".join(sorted(_DATATYPES.values()))
        raise ConfigError(
            f"{kind} '{name}' of '{file}' has type {datatype}, which cannot be served; types that can: {known}"
        )
    return BY_CONFIG[_DATATYPES[datatype]]


def _profile(engine: trt.ICudaEngine, index: int, tensors: tuple[PlanTensor, ...]) -> OptimizationProfile:
    # TensorRT's order is the smallest shape, the optimum and the largest.
    bounds = {t.name: engine.get_tensor_profile_shape(t.name, index) for t in tensors if t.is_input}
    return OptimizationProfile(*({name: shape_of(shapes[i]) for name, shapes in bounds.items()} for i in range(3)))


def shape_of(dims: Any) -> Shape:
    """Shape from a `Dims`, which is a sequence without being typed as one."""
    return tuple(int(dimension) for dimension in dims)
