"""Builds a plan from an ONNX file with TensorRT 10 or 11. Importing this module needs its builder and parser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.engines.tensorrt.importing import import_tensorrt, release_of
from backend.engines.tensorrt.plan import LOG, shape_of, started
from backend.engines.tensorrt.plan_runtime import OptimizationProfile
from backend.errors import ConfigError

if TYPE_CHECKING:
    import tensorrt as trt
else:
    trt = import_tensorrt()

RELEASE = release_of(trt)
if RELEASE < (10, 0):
    raise ConfigError(f"`isochrone build` needs TensorRT 10 or newer, but this is {trt.__version__}")
if "lean" in trt.__name__:
    raise ConfigError(f"`isochrone build` needs the whole of TensorRT, but {trt.__name__} can only run plans")


@dataclass(frozen=True)
class BuiltPlan:
    """plan: content of its file. timings: the cache for later builds. reused: True where the given one was valid."""

    plan: bytes
    timings: bytes
    reused: bool


def build(
    onnx: Path, profiles: Sequence[OptimizationProfile], *, fp16: bool, workspace_bytes: int | None, timings: bytes
) -> BuiltPlan:
    """Build a plan. fp16: lower precision where that is faster. Raises ConfigError with TensorRT's reason."""
    if fp16 and RELEASE >= (11, 0):
        raise ConfigError(
            f"--precision fp16 is gone since TensorRT 11, this is {trt.__version__}: convert the model first"
        )
    builder = started(trt.Builder)
    network = builder.create_network(0 if fp16 else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(network, onnx)
    config = builder.create_builder_config()
    if fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    if workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    if open_inputs := _open_inputs(network):
        for profile in profiles:
            _add_profile(builder, config, profile, open_inputs)
    reused = _use_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ConfigError(f"TensorRT {trt.__version__} cannot build a plan from '{onnx}': {LOG.reason()}")
    return BuiltPlan(_bytes(plan), _bytes(config.get_timing_cache().serialize()), reused)


def _parse(network: trt.INetworkDefinition, onnx: Path) -> None:
    parser = trt.OnnxParser(network, LOG)
    if not parser.parse_from_file(str(onnx)):
        errors: list[trt.ParserError] = [parser.get_error(index) for index in range(parser.num_errors)]
        why = errors[0].desc() if errors else LOG.reason()
        raise ConfigError(f"TensorRT {trt.__version__} cannot read '{onnx}': {why}")


def _open_inputs(network: trt.INetworkDefinition) -> list[str]:
    """Inputs with open dimensions: the others take no bounds."""
    inputs: list[trt.ITensor] = [network.get_input(index) for index in range(network.num_inputs)]
    return [tensor.name for tensor in inputs if -1 in shape_of(tensor.shape)]


def _add_profile(
    builder: trt.Builder, config: trt.IBuilderConfig, facts: OptimizationProfile, open_inputs: Sequence[str]
) -> None:
    profile = builder.create_optimization_profile()
    for name in open_inputs:
        shapes = (trt.Dims(facts.smallest[name]), trt.Dims(facts.optimum[name]), trt.Dims(facts.largest[name]))
        profile.set_shape(name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise ConfigError(f"TensorRT refuses a profile up to {dict(facts.largest)}: {LOG.reason()}")


def _use_timings(config: trt.IBuilderConfig, timings: bytes) -> bool:
    """Set the timing cache; False where it is of another GPU or release, and an empty one is set instead."""
    if timings and config.set_timing_cache(config.create_timing_cache(timings), False):
        return True
    LOG.take()
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return False


def _bytes(memory: Any) -> bytes:
    """Bytes of an IHostMemory, which is a buffer without being typed as one."""
    return bytes(memory)
