"""config.pbtxt of a model with an input and an output: Triton's fields and this backend's parameters."""

from __future__ import annotations

from pathlib import Path

from backend.config.model_config import (
    complete,
    first_gpu,
    may_batch,
    read_engine_config,
    read_model_config,
    warm_up_calls,
)
from backend.config.model_config import model_file as file_of_model
from backend.config.stock_config import without_effect
from backend.engines.protocol import ModelSpecs
from backend.errors import ConfigError
from backend.profiling.repository import read_config
from backend.tensors import Datatype, TensorSpec
from tests.fuzz.files import file_of

FORMAT = "text"
_MODEL = ModelSpecs(
    (TensorSpec("x", Datatype.FP32, (-1, 4)), TensorSpec("mask", Datatype.INT64, (-1,), optional=True)),
    (TensorSpec("y", Datatype.FP32, (-1, 2)), TensorSpec("label", Datatype.STRING, (-1,))),
)


def check(data: bytes) -> None:
    """A configuration, or `ConfigError`."""
    try:
        config = read_config(file_of("config.pbtxt", data))
        config["name"] = "m"
        file = file_of_model(Path("/nowhere/m/1"), config)
        read_engine_config(config, "1", file, first_gpu(config))
        may_batch(config, _MODEL.inputs, _MODEL.outputs)
        complete(config, _MODEL.inputs, _MODEL.outputs)
        engine = read_engine_config(config, "1", file, first_gpu(config))
        read_model_config(engine, config, _MODEL)
        warm_up_calls(config)
        without_effect(config)
    except ConfigError as error:
        assert str(error)
