"""Chooses a model's engine and where on the device its batches run."""

from __future__ import annotations

from pathlib import Path

from backend.config.model_config import EngineConfig
from backend.device.mps import limit_multiprocessors
from backend.engine_process.client.engine import SharedEngine
from backend.engines.onnxruntime.cpu_engine import OnnxEngine
from backend.engines.onnxruntime.session import read_specs
from backend.engines.placement import in_engine_process
from backend.engines.protocol import AS_USUAL, Engine, EngineOptions, ModelSpecs, OnnxOptions
from backend.errors import ConfigError
from backend.linux.cpu_topology import lane_cores, may_pin, width

GPU_LANES = 2


def open_engine(config: EngineConfig) -> Engine:
    """Load the model file with the engine and in the process that the configuration asks for. Raises IsochroneError."""
    parameters, file = config.parameters, config.model_file
    engine = engine_of(file)
    if parameters.engine not in ("auto", engine):
        made = "make a plan with `isochrone build`" if engine == "onnxruntime" else 'use "auto" or "tensorrt"'
        raise ConfigError(f"parameter 'engine' is \"{parameters.engine}\", but the model file is '{file}'; {made}")
    if engine == "tensorrt" and config.onnx.op_libraries:
        raise ConfigError(
            f"op_library_filename in model_operations has operators for a model.onnx, but the model file is '{file}'; "
            "leave it out"
        )
    options = config.options(lanes_of(config))
    shared = in_engine_process(config)
    if parameters.mps_percent is not None:
        if config.device_id is None:
            raise ConfigError(
                f"parameter 'mps_percent' is \"{parameters.mps_percent}\", but this instance is not on a GPU"
            )
        if shared:
            raise ConfigError(
                f"parameter 'mps_percent' is \"{parameters.mps_percent}\", but the engine runs in one process with "
                "others, which have no shares; start NVIDIA's MPS, or set 'engine_process' to \"own\""
            )
        limit_multiprocessors(parameters.mps_percent)  # before CUDA starts in this process
    if shared:
        return SharedEngine(config, engine, options)
    return open_here(engine, file, options)


def open_here(engine: str, file: Path, options: EngineOptions) -> Engine:
    """Load a model file in this process. Raises IsochroneError."""
    if engine == "tensorrt":
        from backend.engines.tensorrt.loading import open_plan  # noqa: PLC0415 - a server without plans needs none of it

        return open_plan(file, options)
    if options.device_id is None:
        return OnnxEngine(file, lane_cores(options.lanes), options.onnx, pinned=may_pin())
    from backend.engines.onnxruntime.cuda_loading import open_onnx_on_gpu  # noqa: PLC0415 - nor one without a GPU

    return open_onnx_on_gpu(file, options)


def engine_of(file: Path) -> str:
    """The name of the engine that runs a model file."""
    return "tensorrt" if is_plan(file) else "onnxruntime"


def is_plan(file: Path) -> bool:
    """Whether TensorRT runs it; anything else is ONNX."""
    return file.suffix == ".plan"


def read_model_specs(file: Path, device_id: int | None, asked: OnnxOptions = AS_USUAL) -> ModelSpecs:
    """Inputs and outputs of a model file, without preparing it to run where that can be. Raises ConfigError.

    asked: of ONNX Runtime, by the user.
    """
    if not is_plan(file):
        return read_specs(file, asked)
    from backend.engines.tensorrt.loading import read_plan_specs  # noqa: PLC0415 - as above

    return read_plan_specs(file, device_id)


def specs_of(file: Path, engine: Engine, asked: OnnxOptions = AS_USUAL) -> ModelSpecs:
    """What an open model's file declares: by the one reading of it, however its engine has changed the graph since."""
    return ModelSpecs(engine.inputs, engine.outputs) if is_plan(file) else read_specs(file, asked)


def lanes_of(config: EngineConfig) -> int:
    """Concurrent batches; where the configuration leaves it open, on CPU one for each core's worth of time."""
    return config.parameters.device_lanes or (width() if config.device_id is None else GPU_LANES)


def pinned_cores(config: EngineConfig) -> list[int] | None:
    """Where the threads of the lanes stay, None where lanes are not cores."""
    if config.device_id is not None or not may_pin():
        return None
    return list(dict.fromkeys(cores[0] for cores in lane_cores(lanes_of(config))))


def preemptible_lanes(config: EngineConfig) -> int:
    """How many lanes, at most, the kernel can let stand still for others: those that have a core, of engines here."""
    return width() if config.device_id is None and may_pin() and not in_engine_process(config) else 0
