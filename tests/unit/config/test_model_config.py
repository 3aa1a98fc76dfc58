"""Keys missing in config.pbtxt are filled in from the model, contradictions are refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.config.model_config import (
    ModelConfig,
    check_tensors,
    complete,
    may_batch,
    model_file,
    read_engine_config,
    read_model_config,
)
from backend.engines.protocol import ModelSpecs
from backend.errors import ConfigError
from backend.tensors import BY_CONFIG, TensorSpec

Config = dict[str, Any]


def tensor(name: str, *shape: int, datatype: str = "FP32", optional: bool = False) -> TensorSpec:
    return TensorSpec(name, BY_CONFIG[f"TYPE_{datatype}"], shape, optional)


IMAGE = tensor("image", -1, 3, -1, -1)
SCORES = tensor("scores", -1, 1000)


def completed(config: Config, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Config:
    """As for a model whose answers batching does not change."""
    complete(config, inputs, outputs, 8 if may_batch(config, inputs, outputs) else 0)
    return config


def stated(name: str, *dims: int, datatype: str = "FP32", **more: object) -> Config:
    return {"name": name, "data_type": f"TYPE_{datatype}", "dims": list(dims), **more}


def read(config: Config, inputs: list[TensorSpec], outputs: list[TensorSpec], gpu: int | None = None) -> ModelConfig:
    asked = read_engine_config({"name": "m", **config}, "3", Path("m/3/model.onnx"), gpu)
    return read_model_config(asked, config, ModelSpecs(tuple(inputs), tuple(outputs)))


def refused(config: Config, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> str:
    with pytest.raises(ConfigError) as error:
        read(config, inputs, outputs)
    return str(error.value)


# Completion


def test_a_model_that_batches_is_filled_in_from_nothing() -> None:
    assert completed({"name": "m"}, [IMAGE], [SCORES]) == {
        "name": "m",
        "max_batch_size": 8,
        "input": [stated("image", 3, -1, -1)],
        "output": [stated("scores", 1000)],
        "dynamic_batching": {},
    }


def test_a_model_with_fixed_shapes_does_not_batch() -> None:
    fixed = tensor("image", 1, 3, 224, 224)
    assert completed({"max_batch_size": 0}, [fixed], [SCORES]) == {
        "max_batch_size": 0,
        "input": [stated("image", 1, 3, 224, 224)],
        "output": [stated("scores", -1, 1000)],
    }


def test_a_scalar_output_keeps_a_model_from_batching() -> None:
    config = completed({}, [IMAGE], [SCORES, tensor("loss")])
    assert config.get("max_batch_size", 0) == 0
    assert config["output"][1] == stated("loss", -1)


def test_full_shapes_in_the_configuration_mean_no_batching() -> None:
    config = completed({"input": [stated("image", -1, 3, 224, 224)]}, [IMAGE], [SCORES])
    assert config.get("max_batch_size", 0) == 0
    assert config["output"] == [stated("scores", -1, 1000)]


def test_shapes_without_the_batch_dimension_mean_batching() -> None:
    config = completed({"input": [stated("image", 3, 224, 224)]}, [IMAGE], [SCORES])
    assert config["max_batch_size"] == 8
    assert config["input"] == [stated("image", 3, 224, 224)]


def test_keys_that_the_user_set_stay() -> None:
    config = {
        "max_batch_size": 4,
        "input": [stated("image", 3, 224, 224)],
        "output": [stated("scores", 10)],
        "dynamic_batching": {"preferred_batch_size": [4]},
    }
    assert completed(dict(config), [IMAGE], [SCORES]) == config


def test_a_named_tensor_is_completed() -> None:
    config = completed(
        {
            "max_batch_size": 4,
            "input": [{"name": "image"}],
            "output": [{"name": "scores", "data_type": "TYPE_INVALID"}],
        },
        [IMAGE],
        [SCORES],
    )
    assert config["input"] == [stated("image", 3, -1, -1)]
    assert config["output"] == [stated("scores", 1000)]


def test_a_scalar_per_request_has_one_dimension_in_triton() -> None:
    config = completed({"max_batch_size": 4}, [tensor("x", -1)], [tensor("y", -1)])
    assert (config["input"], config["output"]) == ([stated("x", 1)], [stated("y", -1)])


def test_an_input_with_a_default_is_left_out_and_does_not_decide_on_batching() -> None:
    threshold = tensor("threshold", 1, optional=True)
    config = completed({}, [IMAGE, threshold], [SCORES])
    assert config["max_batch_size"] == 8
    assert [t["name"] for t in config["input"]] == ["image"]


def test_of_the_outputs_only_those_that_are_named_are_served() -> None:
    config = completed({"output": [{"name": "scores"}]}, [IMAGE], [SCORES, tensor("boxes", -1, 4)])
    assert config["output"] == [stated("scores", 1000)]
    assert [o.name for o in read(config, [IMAGE], [SCORES, tensor("boxes", -1, 4)]).outputs] == ["scores"]


@pytest.mark.parametrize("key", ["sequence_batching", "ensemble_scheduling", "dynamic_batching"])
def test_another_scheduler_of_triton_is_left_for_the_check(key: str) -> None:
    config = completed({"max_batch_size": 4, key: {"x": 1}}, [IMAGE], [SCORES])
    assert {k: v for k, v in config.items() if k.endswith(("batching", "scheduling"))} == {key: {"x": 1}}


def test_a_completed_configuration_is_accepted() -> None:
    for inputs, outputs in (
        ([IMAGE], [SCORES]),
        ([tensor("x", -1)], [tensor("y", -1)]),
        ([tensor("x")], [tensor("y")]),
        ([tensor("x", 2, 2)], [tensor("y", -1, -1, datatype="INT64")]),
        ([tensor("x", -1, datatype="STRING"), tensor("k", optional=True)], [tensor("y", -1, 3)]),
    ):
        config = completed({"name": "m"}, inputs, outputs)
        check_tensors(config, ModelSpecs(tuple(inputs), tuple(outputs)))
        read(config, inputs, outputs)


# What is served


def test_shapes_are_served_without_the_batch_dimension() -> None:
    config = read(completed({"max_batch_size": 4}, [IMAGE], [SCORES]), [IMAGE], [SCORES])
    assert (config.name, config.version, config.max_batch_size) == ("m", "3", 4)
    assert config.inputs == (tensor("image", 3, -1, -1),)
    assert config.outputs == (tensor("scores", 1000),)
    assert config.reshaped == {}
    assert config.parameters.priority == 1


@pytest.mark.parametrize(("gpu", "device"), [(None, "cpu"), (0, "gpu-0"), (3, "gpu-3")])
def test_a_device_has_a_name(gpu: int | None, device: str) -> None:
    assert read(completed({}, [IMAGE], [SCORES]), [IMAGE], [SCORES], gpu).device == device


def test_a_dimension_that_is_dynamic_on_one_side_is_accepted() -> None:
    config = completed(
        {"max_batch_size": 4, "input": [stated("image", 3, 224, -1)], "output": [stated("scores", -1)]},
        [IMAGE],
        [SCORES],
    )
    assert read(config, [IMAGE], [SCORES]).inputs == (tensor("image", 3, -1, -1),)


def test_a_reshape_is_compared_with_the_model() -> None:
    config = completed(
        {
            "max_batch_size": 4,
            "input": [stated("x", 1, datatype="INT64", reshape={"shape": []})],
            "output": [stated("scores", 10, 100, reshape={"shape": [1000]})],
        },
        [tensor("x", -1, datatype="INT64")],
        [SCORES],
    )
    served = read(config, [tensor("x", -1, datatype="INT64")], [SCORES])
    assert served.inputs == (tensor("x", datatype="INT64"),)
    assert served.reshaped == {"scores": (10, 100)}


def test_an_output_without_dimensions_is_given_the_one_that_the_user_states() -> None:
    one_per_row = [tensor("y", -1)]
    assert read(completed({"max_batch_size": 4}, [IMAGE], one_per_row), [IMAGE], one_per_row).reshaped == {}
    config = completed({"max_batch_size": 4, "output": [stated("y", 1)]}, [IMAGE], one_per_row)
    assert read(config, [IMAGE], one_per_row).reshaped == {"y": (1,)}


def test_an_input_with_a_default_may_be_optional() -> None:
    threshold = tensor("threshold", -1, optional=True)
    config = completed({"input": [{"name": "threshold", "optional": True}]}, [IMAGE, threshold], [SCORES])
    assert {t.name: t.optional for t in read(config, [IMAGE, threshold], [SCORES]).inputs} == {
        "threshold": True,
        "image": False,
    }


# What contradicts

_GOOD = {"max_batch_size": 4, "input": [stated("image", 3, -1, -1)], "output": [stated("scores", 1000)]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"input": [stated("image", 3, -1, -1), stated("image", 3, -1, -1)]},
            "config.pbtxt names input 'image' twice",
        ),
        ({"output": [stated("scores", 1000), stated("scores")]}, "config.pbtxt names output 'scores' twice"),
        (
            {"dynamic_batching": {"priority_levels": 2}},
            "priority_levels in dynamic_batching leaves requests stuck in Triton's queue; "
            "use the parameter 'priority' and the request parameter 'priority_class' instead",
        ),
        (
            {"dynamic_batching": {"default_priority_level": "1"}},
            "priority_levels in dynamic_batching leaves requests stuck in Triton's queue; "
            "use the parameter 'priority' and the request parameter 'priority_class' instead",
        ),
        (
            {"dynamic_batching": {"default_queue_policy": {"max_queue_size": 3}}},
            "a queue policy in dynamic_batching leaves requests stuck in Triton's queue; "
            "use the parameters 'slo_ms', 'on_miss' and 'max_queue_size' instead",
        ),
        (
            {"dynamic_batching": {"priority_queue_policy": {"1": {}}}},
            "a queue policy in dynamic_batching leaves requests stuck in Triton's queue; "
            "use the parameters 'slo_ms', 'on_miss' and 'max_queue_size' instead",
        ),
        (
            {"dynamic_batching": {"max_queue_delay_microseconds": "100"}},
            "max_queue_delay_microseconds in dynamic_batching is 100: requests would wait in Triton's queue whatever "
            "their deadlines; leave it out, the scheduler forms batches of what waits",
        ),
        (
            {"response_cache": {"enable": True}},
            "response_cache is not supported: it would answer later requests with the refusal of an earlier one; "
            "leave it out",
        ),
        (
            {"sequence_batching": {"oldest": {}}},
            "sequence_batching is not supported: isochrone serves models without state; make the state an input and an "
            "output, which the client carries from request to request",
        ),
        (
            {"model_transaction_policy": {"decoupled": True}},
            "model_transaction_policy decoupled is not supported: each request has one answer; leave it out",
        ),
        ({"input": []}, "config.pbtxt lacks input 'image', which the model needs"),
        (
            {"input": [stated("img", 3, -1, -1)]},
            "config.pbtxt names input 'img', but the model has 'image'",
        ),
        (
            {"output": [stated("probs", 1000)]},
            "config.pbtxt names output 'probs', but the model has 'scores'",
        ),
        (
            {"input": [stated("image", 3, -1, -1, datatype="FP16")]},
            "input 'image' is TYPE_FP16 in config.pbtxt, but TYPE_FP32 in the model",
        ),
        (
            {"output": [stated("scores", 1000, datatype="BF16")]},
            "output 'scores' is TYPE_BF16 (a type that cannot be served) in config.pbtxt, but TYPE_FP32 in the model",
        ),
        (
            {"input": [stated("image", 3, -1, -1, allow_ragged_batch=True)]},
            "input 'image': allow_ragged_batch is not supported; leave it out, requests of different shapes go in "
            "different batches",
        ),
        (
            {"output": [stated("scores", 1000, is_shape_tensor=True)]},
            "output 'scores': is_shape_tensor is not supported; build the plan without shape tensors",
        ),
        (
            {"input": [stated("image", 3, -1, -1, optional=True)]},
            "input 'image' is optional in config.pbtxt, but the model has no default for it",
        ),
        (
            {"input": [stated("image", 1, -1, -1)]},
            "input 'image' has dims [1, -1, -1] in config.pbtxt, but [3, -1, -1] in the model "
            "(without the batch dimension)",
        ),
        (
            {"output": [stated("scores", 1000, 1)]},
            "output 'scores' has dims [1000, 1] in config.pbtxt, but [1000] in the model (without the batch dimension)",
        ),
        (
            {"output": [stated("scores", 1000, reshape={"shape": [10, 100]})]},
            "output 'scores' has dims [10, 100] in config.pbtxt, but [1000] in the model (without the batch dimension)",
        ),
        (
            {"max_batch_size": 0},
            "input 'image' has dims [3, -1, -1] in config.pbtxt, but [-1, 3, -1, -1] in the model",
        ),
        (
            {"parameters": {"slo_ms": {"string_value": "soon"}}},
            "parameter 'slo_ms' is \"soon\"; it must be a number of milliseconds above 0, at most 1e9",
        ),
    ],
)
def test_a_contradiction_is_refused(change: Config, sentence: str) -> None:
    read(_GOOD, [IMAGE], [SCORES])
    assert refused({**_GOOD, **change}, [IMAGE], [SCORES]) == sentence


def test_batching_needs_a_dynamic_first_dimension() -> None:
    fixed = tensor("scores", 1, 1000)
    assert refused(_GOOD, [IMAGE], [fixed]) == (
        "max_batch_size is above 0, but output 'scores' of the model has shape [1, 1000] "
        "without a dynamic first dimension; use max_batch_size: 0"
    )


def test_a_model_without_inputs_is_named_so() -> None:
    assert refused(_GOOD, [], [SCORES]) == "config.pbtxt names input 'image', but the model has none"


def test_empty_schedulers_are_as_none() -> None:
    config = {**_GOOD, "dynamic_batching": {}, "model_transaction_policy": {"decoupled": False}}
    read({**config, "sequence_batching": None}, [IMAGE], [SCORES])


# The file


def test_the_file_is_the_named_one_else_the_one_that_is_there(tmp_path: Path) -> None:
    assert model_file(tmp_path, {"default_model_filename": "net.onnx"}) == tmp_path / "net.onnx"
    assert model_file(tmp_path, {"default_model_filename": ""}) == tmp_path / "model.onnx"
    (tmp_path / "model.plan").touch()
    assert model_file(tmp_path, {}) == tmp_path / "model.plan"
    (tmp_path / "model.onnx").touch()
    assert model_file(tmp_path, {}) == tmp_path / "model.onnx"
