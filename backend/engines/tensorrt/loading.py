"""Opens a `model.plan` with the real TensorRT and CUDA, neither of which is imported before.

Reading a plan's inputs and outputs needs neither where `isochrone build` left its facts beside the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from backend.engines.protocol import EngineOptions, ModelSpecs, check_file
from backend.engines.tensorrt.engine import TensorRtEngine
from backend.engines.tensorrt.plan_facts import check_facts, read_facts
from backend.engines.tensorrt.plan_layout import largest_batch, specs
from backend.engines.tensorrt.plan_memory import MemoryBudget, check_budget
from backend.engines.tensorrt.plan_runtime import LoadedPlan, OptimizationProfile, PlanTensor
from backend.errors import ConfigError

if TYPE_CHECKING:
    from backend.engines.gpu.cuda_device import CudaDevice


def open_plan(file: Path, options: EngineOptions) -> TensorRtEngine:
    """Load a plan on a GPU. Raises IsochroneError, also where TensorRT, the driver or the GPU are missing."""
    check_file(file)
    device = _device(options.device_id)
    if options.device_id is None:
        raise ConfigError(f"'{file}' needs a GPU, but this instance is KIND_CPU; instance_group needs kind: KIND_GPU")
    with ExitStack() as undone:
        plan = _load(file, device)
        undone.callback(plan.close)
        engine = TensorRtEngine(plan, device, file, options)
        undone.pop_all()
    return engine


def read_plan_specs(file: Path, device_id: int | None) -> ModelSpecs:
    """Inputs and outputs by the facts beside the plan, else by the plan itself, loaded for it. Raises ConfigError."""
    check_file(file)
    if facts := read_facts(file):
        return _specs(facts.tensors, facts.profiles)
    plan = _load(file, _device(device_id))
    try:
        return _specs(plan.tensors, plan.profiles)
    finally:
        plan.close()


def _specs(tensors: Sequence[PlanTensor], profiles: Sequence[OptimizationProfile]) -> ModelSpecs:
    return ModelSpecs(specs(tensors, inputs=True), specs(tensors, inputs=False), largest_batch(tensors, profiles))


def _device(index: int | None) -> CudaDevice:
    """Open a GPU, None: any. Errors name what is missing in the order in which it would be installed."""
    from backend.engines.gpu.cuda_device import CudaDevice  # noqa: PLC0415 - imports CUDA
    from backend.engines.tensorrt import plan  # noqa: F401, PLC0415 - imports TensorRT

    return CudaDevice(index or 0)


def _load(file: Path, device: CudaDevice) -> LoadedPlan:
    from backend.engines.tensorrt.plan import VERSION, TensorRtPlan  # noqa: PLC0415 - imports TensorRT

    if facts := read_facts(file):
        check_facts(facts, file, tensorrt=VERSION, gpu=device.name())
    check_budget(MemoryBudget(file.stat().st_size, 0, 0), file, device.index, device.memory())
    return TensorRtPlan(file)
