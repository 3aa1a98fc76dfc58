"""Loads model files in this process: which engine runs a file, and what it takes and gives."""

from __future__ import annotations

from pathlib import Path

from backend.engines.emulated.engine import EmulatedEngine
from backend.engines.emulated.spec import is_emulated, read_spec
from backend.engines.onnxruntime.cpu_engine import OnnxCpuEngine
from backend.engines.onnxruntime.session import read_specs
from backend.engines.protocol import DEFAULT_ONNX_OPTIONS, Engine, EngineOptions, ModelSpecs, OnnxOptions
from backend.linux.cpu_topology import lane_cores, may_pin


def load_engine(file: Path, options: EngineOptions) -> Engine:
    """Load a model file in this process. Raises IsochroneError."""
    if is_emulated(file):
        return EmulatedEngine(file, options)
    if is_plan(file):
        from backend.engines.tensorrt.loading import open_plan  # noqa: PLC0415 - a server without plans needs none of it

        return open_plan(file, options)
    if options.device_id is None:
        return OnnxCpuEngine(file, lane_cores(options.lanes), options.onnx, pinned=may_pin())
    from backend.engines.onnxruntime.cuda_loading import open_onnx_on_gpu  # noqa: PLC0415 - nor one without a GPU

    return open_onnx_on_gpu(file, options)


def engine_of(file: Path) -> str:
    """Name of the engine that runs a model file."""
    if is_emulated(file):
        return "emulated"
    return "tensorrt" if is_plan(file) else "onnxruntime"


def is_plan(file: Path) -> bool:
    """True for a file that TensorRT runs."""
    return file.suffix == ".plan"


def read_model_specs(file: Path, device_id: int | None, onnx_options: OnnxOptions = DEFAULT_ONNX_OPTIONS) -> ModelSpecs:
    """Inputs and outputs of a model file, without preparing it to run where that is possible. Raises ConfigError."""
    if is_emulated(file):
        return read_spec(file).specs
    if not is_plan(file):
        return read_specs(file, onnx_options)
    from backend.engines.tensorrt.loading import read_plan_specs  # noqa: PLC0415 - as above

    return read_plan_specs(file, device_id)


def specs_of(file: Path, engine: Engine, onnx_options: OnnxOptions = DEFAULT_ONNX_OPTIONS) -> ModelSpecs:
    """Inputs and outputs that an open model's file declares, however its engine has changed the graph since."""
    return (
        read_specs(file, onnx_options)
        if engine_of(file) == "onnxruntime"
        else ModelSpecs(engine.inputs, engine.outputs)
    )
