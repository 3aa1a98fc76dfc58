"""Triton's model configuration, checked against the model file: what is missing is filled in, what contradicts fails.

Works on the dictionary that Triton hands to Python; knows nothing of the stub's classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from backend.config.onnx_options import read_onnx_options
from backend.config.parameters import Parameters, read_parameters
from backend.config.stock_config import check_stock_config
from backend.engines.emulated.dilation import time_dilation
from backend.engines.emulated.spec import NAME as EMULATED
from backend.engines.emulated.spec import is_emulated, read_spec
from backend.engines.protocol import DEFAULT_ONNX_OPTIONS, EngineOptions, ModelSpecs, OnnxOptions
from backend.errors import ConfigError
from backend.tensors import BY_CONFIG, TensorSpec

DEFAULT_MAX_BATCH_SIZE = 8
"""Rows that batches grow to where config.pbtxt sets no limit."""
ANY_ROWS = 1 << 20
"""`max_batch_size` filled in where config.pbtxt says nothing and batching changes no answer. Triton refuses requests of
more rows, and the user set no limit: one of more than `DEFAULT_MAX_BATCH_SIZE` runs in a batch of its own."""

AS_IT_COMES = (-1,)
"""`dims` filled in for an output without dimensions of its own, or of which even their number is open."""


@dataclass(frozen=True)
class EngineConfig:
    """Configuration of a model's engine. device_id: the GPU of a KIND_GPU instance, None on CPU.

    max_batch_size: rows that batches grow to, 0 where the model does not batch. onnx: what is asked of ONNX
    Runtime. emulated: the name of the emulated device that the model file is for, and time_dilation: its real time per
    time of its own.
    """

    name: str
    version: str
    model_file: Path
    max_batch_size: int
    parameters: Parameters
    device_id: int | None
    onnx: OnnxOptions = field(default=DEFAULT_ONNX_OPTIONS, kw_only=True)
    emulated: str | None = field(default=None, kw_only=True)
    time_dilation: float = field(default=1.0, kw_only=True)

    @property
    def on_cpu(self) -> bool:
        """True where its batches share the CPU."""
        return self.device == "cpu"

    @property
    def device(self) -> str:
        """Name of the device that its batches share."""
        if self.emulated is not None:
            return self.emulated
        return "cpu" if self.device_id is None else f"gpu-{self.device_id}"

    def options(self, lanes: int) -> EngineOptions:
        """Options to open its engine with, for that many lanes."""
        asked = self.parameters
        return EngineOptions(
            *(self.device_id, lanes, self.max_batch_size, asked.priority, self.onnx, self.time_dilation),
            *(asked.mps_percent, self.emulated),
        )


@dataclass(frozen=True)
class ModelConfig(EngineConfig):
    """A model as it will be served. Shapes are per request, without the batch dimension; −1 is dynamic.

    reshaped: of outputs that clients see in other dimensions than the model's, those dimensions.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reshaped: Mapping[str, tuple[int, ...]]


def model_file(version_directory: Path, config: Mapping[str, Any]) -> Path:
    """Model file to load: `default_model_filename`, else the parameter `engine`'s, else the first there is of
    `model.onnx`, `model.plan` and `model.emulated.json`.
    """
    named = config.get("default_model_filename")
    if named:
        return version_directory / str(named)
    onnx, plan = version_directory / "model.onnx", version_directory / "model.plan"
    engine = config.get("parameters", {}).get("engine", {}).get("string_value", "auto").strip()
    auto = engine == "auto" and not onnx.exists()
    if plan.exists() and (engine == "tensorrt" or auto):
        return plan
    emulated = version_directory / EMULATED
    return emulated if engine == "emulated" or (auto and emulated.exists()) else onnx


def first_gpu(config: Mapping[str, Any]) -> int | None:
    """GPU of the first KIND_GPU instance group, None on CPU."""
    for group in config.get("instance_group", ()):
        if group.get("kind") == "KIND_GPU":
            return int(next(iter(group.get("gpus", ())), 0))
    return None


def warm_up_calls(config: Mapping[str, Any]) -> int:
    """Number of calls of `execute` before an instance is ready. config: Triton's model configuration.

    Triton sends the requests of `model_warmup` first, and marks them in no way: a call per sample and its `count`, one
    after the other, with as many requests of one row as its `batch_size`.
    """
    samples = [sample for sample in config.get("model_warmup", ()) if int(sample.get("batch_size", 0)) > 0]
    return sum(max(1, int(sample.get("count", 0))) for sample in samples)


def complete(
    config: dict[str, Any],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch_size: int = 0,
) -> None:
    """Fill in inputs, outputs, `max_batch_size` and dynamic batching in place, where config.pbtxt leaves them out.

    max_batch_size: where config.pbtxt has none. Raises ConfigError where something must be said there.
    """
    if config.get("max_batch_size", 0) == 0 and max_batch_size > 0:
        config["max_batch_size"] = max_batch_size
    batching = config.get("max_batch_size", 0) > 0
    _check_ranks(config.setdefault("input", []), inputs)
    _complete_tensors(config["input"], inputs, batching, without_dims=(1,))
    stated = config.setdefault("output", [])
    names = {tensor["name"] for tensor in stated}  # some outputs named: the others are not served
    _complete_tensors(stated, [spec for spec in outputs if spec.name in names or not names], batching, AS_IT_COMES)
    if batching and not any(key in config for key in ("dynamic_batching", "sequence_batching", "ensemble_scheduling")):
        # Not to form batches, the scheduler does that: Triton then hands over all that came in with one call.
        config["dynamic_batching"] = {}


def may_batch(config: Mapping[str, Any], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """True where the first dimension may be a batch's: all have a dynamic one, and no full shape is spelt out.

    Whether rows may share a batch is another matter: see `backend.trial`. Of an input with a number per row Triton
    would ask clients for [rows, 1] then, which is not the model's own shape.
    """
    dynamic = all(spec.shape[:1] == (-1,) for spec in outputs if spec.ranked)
    if not dynamic or not may_have_rows(inputs) or any(len(spec.shape) == 1 for spec in inputs if not spec.optional):
        return False
    rank = {spec.name: len(spec.shape) for spec in (*inputs, *outputs) if spec.ranked}
    stated = [*config.get("input", ()), *config.get("output", ())]
    return all(len(t["dims"]) < rank[t["name"]] for t in stated if t.get("dims") and t["name"] in rank)


def may_have_rows(inputs: Sequence[TensorSpec]) -> bool:
    """True where every required input has a dynamic first dimension."""
    required = [spec for spec in inputs if not spec.optional]
    return bool(required) and all(spec.shape[:1] == (-1,) for spec in required)


def _complete_tensors(
    stated: list[dict[str, Any]], specs: Sequence[TensorSpec], batching: bool, without_dims: tuple[int, ...]
) -> None:
    """without_dims: what a tensor without dimensions of its own has in config.pbtxt, as Triton wants at least one."""
    by_name = {tensor["name"]: tensor for tensor in stated}
    for spec in specs:
        tensor = by_name.get(spec.name)
        if tensor is None:
            if spec.optional:
                continue  # a default that the user did not ask to override
            tensor = {"name": spec.name}
            stated.append(tensor)
        if tensor.get("data_type", "TYPE_INVALID") == "TYPE_INVALID":
            tensor["data_type"] = spec.datatype.config
        if not tensor.get("dims"):
            tensor["dims"] = list(spec.shape[1:] if batching else spec.shape) or list(without_dims)


def _check_ranks(stated: Sequence[Mapping[str, Any]], inputs: Sequence[TensorSpec]) -> None:
    open_ = {spec.name for spec in inputs if not spec.ranked and not spec.optional}
    for name in open_.difference(tensor["name"] for tensor in stated if tensor.get("dims")):
        raise ConfigError(
            f"the model leaves open how many dimensions input '{name}' has; give its dims in config.pbtxt"
        )


def read_engine_config(config: Mapping[str, Any], version: str, file: Path, device_id: int | None) -> EngineConfig:
    """Read what does not depend on the model file. Raises ConfigError on values that cannot be used."""
    check_stock_config(config)
    stated = int(config.get("max_batch_size", 0))
    max_batch_size = DEFAULT_MAX_BATCH_SIZE if stated == ANY_ROWS else stated
    parameters = read_parameters(config.get("parameters", {}))
    onnx = read_onnx_options(config, file)
    read = partial(EngineConfig, str(config["name"]), version, file, max_batch_size, parameters, onnx=onnx)
    if is_emulated(file):  # wherever Triton puts its instances
        return read(None, emulated=read_spec(file).device.name, time_dilation=time_dilation())
    return read(device_id)


def read_model_config(engine: EngineConfig, config: Mapping[str, Any], model: ModelSpecs) -> ModelConfig:
    """Configuration as served. Raises ConfigError on what contradicts the model."""
    batching, outputs = engine.max_batch_size > 0, model.outputs
    return ModelConfig(
        **vars(engine),
        inputs=_served("input", config["input"], model.inputs, batching),
        outputs=_served("output", config["output"], outputs, batching, model.unserved),
        reshaped=_reshaped(config["output"], outputs, batching),
    )


def check_tensors(config: Mapping[str, Any], model: ModelSpecs) -> None:
    """Refuse inputs and outputs that contradict the model. Raises ConfigError."""
    batching = int(config.get("max_batch_size", 0)) > 0
    _served("input", config["input"], model.inputs, batching)
    _served("output", config["output"], model.outputs, batching, model.unserved)


def _served(
    kind: str,
    stated: Sequence[Mapping[str, Any]],
    specs: Sequence[TensorSpec],
    batching: bool,
    unserved: Mapping[str, str] = MappingProxyType({}),
) -> tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in specs}
    names = [tensor["name"] for tensor in stated]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"config.pbtxt names {kind} '{twice}' twice")
    for name in (tensor["name"] for tensor in stated if tensor["name"] in unserved):
        raise ConfigError(f"config.pbtxt names {kind} '{name}', but in the model it is {unserved[name]}")
    served = tuple(_checked(kind, tensor, by_name, batching) for tensor in stated)
    missing = [s.name for s in specs if kind == "input" and not s.optional and s.name not in {t.name for t in served}]
    if missing:
        raise ConfigError(f"config.pbtxt lacks input '{missing[0]}', which the model needs")
    return served


def _checked(kind: str, tensor: Mapping[str, Any], by_name: Mapping[str, TensorSpec], batching: bool) -> TensorSpec:
    name = str(tensor["name"])
    spec = by_name.get(name)
    if spec is None:
        raise ConfigError(f"config.pbtxt names {kind} '{name}', but the model has {_names(by_name)}")
    if tensor["data_type"] != spec.datatype.config:
        known = "" if tensor["data_type"] in BY_CONFIG else " (a type that cannot be served)"
        raise ConfigError(
            f"{kind} '{name}' is {tensor['data_type']}{known} in config.pbtxt, but {spec.datatype.config} in the model"
        )
    optional = bool(tensor.get("optional"))
    if optional and not spec.optional:
        raise ConfigError(f"input '{name}' is optional in config.pbtxt, but the model has no default for it")
    reshape = tensor.get("reshape")
    dims = tuple(int(d) for d in (reshape.get("shape", ()) if reshape else tensor["dims"]))
    if not spec.ranked:
        return TensorSpec(name, spec.datatype, dims if kind == "input" else (), optional, ranked=kind == "input")
    if batching and spec.shape[:1] != (-1,):
        raise ConfigError(
            f"max_batch_size is above 0, but {kind} '{name}' of the model has shape {list(spec.shape)} "
            "without a dynamic first dimension; use max_batch_size: 0"
        )
    shape = spec.shape[1:] if batching else spec.shape
    if not _compatible(dims, shape):
        raise ConfigError(
            f"{kind} '{name}' has dims {list(dims)} in config.pbtxt, but {list(shape)} in the model"
            + (" (without the batch dimension)" if batching else "")
        )
    return TensorSpec(name, spec.datatype, shape, optional)


def _reshaped(
    stated: Sequence[Mapping[str, Any]], specs: Sequence[TensorSpec], batching: bool
) -> dict[str, tuple[int, ...]]:
    """A scalar per request and an output with `reshape`; Triton leaves it to backends to give these their `dims`."""
    scalars = {spec.name for spec in specs if spec.ranked and len(spec.shape) == batching}
    dims = {str(tensor["name"]): tuple(int(d) for d in tensor["dims"]) for tensor in stated}
    reshaped = {str(tensor["name"]) for tensor in stated if tensor.get("reshape")}
    return {n: d for n, d in dims.items() if n in reshaped or (n in scalars and d != AS_IT_COMES)}


def _compatible(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if not shape:  # a scalar per request: Triton wants at least one dimension
        return dims in ((), (1,), AS_IT_COMES)
    return len(dims) == len(shape) and all(a == b or -1 in (a, b) for a, b in zip(dims, shape, strict=True))


def _names(names: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
