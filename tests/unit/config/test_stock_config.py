"""Keys of config.pbtxt: each has a row in the table, and one that is set and not honoured a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2

from backend.config.parameters import read_parameters
from backend.config.stock_config import KEYS, PARAMETERS, check_stock_config, is_first_instance, without_effect
from backend.errors import ConfigError

Config = dict[str, Any]
NEWER = {"model_metrics"}
"""Keys of later versions of Triton than the client that the tests have."""

BARE: Config = {
    "name": "bare",
    "platform": "",
    "backend": "isochrone",
    "runtime": "model.py",
    "version_policy": {"latest": {"num_versions": 1}},
    "max_batch_size": 8,
    "input": [
        {
            "name": "x",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NONE",
            "dims": [4],
            "is_shape_tensor": False,
            "allow_ragged_batch": False,
            "optional": False,
            "is_non_linear_format_io": False,
        }
    ],
    "output": [
        {
            "name": "y",
            "data_type": "TYPE_FP32",
            "dims": [4],
            "label_filename": "",
            "is_shape_tensor": False,
            "is_non_linear_format_io": False,
        }
    ],
    "batch_input": [],
    "batch_output": [],
    "optimization": {
        "priority": "PRIORITY_DEFAULT",
        "input_pinned_memory": {"enable": True},
        "output_pinned_memory": {"enable": True},
        "gather_kernel_buffer_threshold": 0,
        "eager_batching": False,
    },
    "dynamic_batching": {
        "preferred_batch_size": [8],
        "max_queue_delay_microseconds": 0,
        "preserve_ordering": False,
        "priority_levels": 0,
        "default_priority_level": 0,
        "priority_queue_policy": {},
    },
    "instance_group": [
        {
            "name": "bare",
            "kind": "KIND_CPU",
            "count": 1,
            "gpus": [],
            "secondary_devices": [],
            "profile": [],
            "passive": False,
            "host_policy": "",
        }
    ],
    "default_model_filename": "",
    "cc_model_filenames": {},
    "metric_tags": {},
    "parameters": {},
    "model_warmup": [],
}
"""Configuration that tritonserver 2.51 makes of a bare config.pbtxt by the time that a model is loaded."""


def fields(message: Any, above: str = "") -> Iterator[str]:
    """Paths of a message's fields, down to those that have a row, or have no fields of their own."""
    for field in message.fields:
        path = f"{above}.{field.name}" if above else field.name
        below = field.message_type
        if path in KEYS or below is None or below.GetOptions().map_entry:
            yield path
        else:
            yield from fields(below, path)


def with_(section: str, **values: Any) -> Config:
    """BARE with something more in a section, or in each of its items."""
    stated = BARE.get(section, {})
    changed = [{**item, **values} for item in stated] if isinstance(stated, list) else {**stated, **values}
    return {**BARE, section: changed}


def test_every_field_of_tritons_model_configuration_has_a_row_and_no_row_is_for_none() -> None:
    assert set(fields(model_config_pb2.ModelConfig.DESCRIPTOR)) == set(KEYS) - NEWER


def test_a_bare_configuration_asks_for_nothing() -> None:
    check_stock_config(BARE)
    assert without_effect(BARE) == []


@pytest.mark.parametrize("key", [*KEYS.values(), *PARAMETERS.values()])
def test_a_key_that_is_not_honoured_has_a_sentence(key: Any) -> None:
    assert key.sentence or key.effect == "honoured"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {**BARE, "platform": "onnxruntime_onnx"},
            'platform is "onnxruntime_onnx", which has no effect',
        ),
        (with_("optimization", priority="PRIORITY_MAX"), "optimization priority is PRIORITY_MAX, which has no effect"),
        (with_("optimization", cuda={"graphs": True}), "optimization cuda graphs has no effect"),
        (with_("optimization", input_pinned_memory={"enable": False}), "input_pinned_memory has no effect"),
        (with_("optimization", gather_kernel_buffer_threshold=3), "gather_kernel_buffer_threshold has no effect"),
        (with_("optimization", eager_batching=True), "eager_batching has no effect"),
        (
            with_(
                "optimization",
                execution_accelerators={
                    "gpu_execution_accelerator": [
                        {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}},
                        {"name": "cuda"},
                    ]
                },
            ),
            "gpu_execution_accelerator 'tensorrt, cuda' has no effect: a model.onnx runs in ONNX Runtime on CUDA; "
            "for TensorRT make a plan with `isochrone build` instead",
        ),
        (
            with_("optimization", execution_accelerators={"cpu_execution_accelerator": [{"name": "openvino"}]}),
            "cpu_execution_accelerator 'openvino' has no effect",
        ),
        (with_("dynamic_batching", preferred_batch_size=[4, 8]), "preferred_batch_size in dynamic_batching has no"),
        (with_("instance_group", count=4), "instance_group count 4 starts as many processes"),
        (with_("instance_group", kind="KIND_MODEL"), "instance_group kind KIND_MODEL has no effect"),
        (with_("instance_group", rate_limiter={"resources": [], "priority": 2}), "rate_limiter has no effect"),
        (with_("instance_group", profile=["0", "1"]), "instance_group profile 0, 1 has no effect"),
        (with_("instance_group", host_policy="numa0"), 'instance_group host_policy "numa0" has no effect'),
        ({**BARE, "metric_tags": {"team": "a"}}, "metric_tags has no effect on isochrone's own metrics"),
        ({**BARE, "of_next_year": {"a": 1}}, "'of_next_year' in config.pbtxt is not known to this version"),
        (with_("optimization", of_next_year=1), "'optimization.of_next_year' in config.pbtxt is not known"),
    ],
)
def test_a_key_without_effect_is_reported(config: Config, says: str) -> None:
    check_stock_config(config)
    (sentence,) = without_effect(config)
    assert says in sentence


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (with_("dynamic_batching", preserve_ordering=True), "preserve_ordering in dynamic_batching keeps answers back"),
        (
            with_("input", allow_ragged_batch=True),
            "input 'x': allow_ragged_batch is not supported; leave it out",
        ),
        (with_("output", is_non_linear_format_io=True), "output 'y': is_non_linear_format_io is not supported; build"),
        (
            {**BARE, "batch_input": [{"kind": "BATCH_ELEMENT_COUNT", "target_name": ["z"]}]},
            "batch_input is not supported: a batch is made of whole rows",
        ),
        ({**BARE, "batch_output": [{"target_name": ["y"]}]}, "batch_output is not supported: each request gets"),
        (with_("instance_group", passive=True), "passive in instance_group is not supported"),
        (
            with_("instance_group", secondary_devices=[{"kind": "KIND_NVDLA", "device_id": "0"}]),
            "secondary_devices in instance_group are not supported; build the plan for the GPU",
        ),
        ({**BARE, "cc_model_filenames": {"7.5": "t4.plan"}}, "cc_model_filenames is not supported: name the file"),
        (
            {**BARE, "parameters": {"TRITON_BATCH_STRATEGY_PATH": {"string_value": "b.so"}}},
            "parameter 'TRITON_BATCH_STRATEGY_PATH' is not supported: the scheduler forms batches",
        ),
    ],
)
def test_a_key_that_cannot_be_honoured_is_refused(config: Config, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_stock_config(config)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("intra_op_thread_count", "4", True),
        ("inter_op_thread_count", "2", True),
        ("execution_mode", "0", False),
        ("execution_mode", "1", True),
        ("enable_mem_arena", "0", False),
        ("memory.enable_memory_arena_shrinkage", "cpu:0", True),
        ("session.use_device_allocator_for_initializers", "0", False),
        ("session.use_device_allocator_for_initializers", "1", True),
        ("share_session_between_instances", "true", True),
        ("share_session_between_instances", "false", False),
        ("gpu_mem_limit", "4294967296", True),
        ("execution_context_allocation_strategy", "STATIC", True),
        ("EXECUTION_ENV_PATH", "env.tar.gz", False),
    ],
)
def test_a_parameter_of_a_stock_backend(name: str, value: str, told: bool) -> None:
    parameters = {name: {"string_value": value}}
    assert read_parameters(parameters) == read_parameters({})
    sentences = without_effect({**BARE, "parameters": parameters})
    assert len(sentences) == told
    assert all(sentence.startswith(f"parameter '{name}' has no effect: ") for sentence in sentences)


def test_a_sentence_for_several_tensors_or_groups_comes_once() -> None:
    group = {**BARE["instance_group"][0], "host_policy": "numa0"}
    assert len(without_effect({**BARE, "instance_group": [group, {**group, "name": "other"}]})) == 1


def test_one_instance_speaks_for_all() -> None:
    config: Config = {"instance_group": [{"name": "m_0", "count": 2}, {"name": "m_1", "count": 1}]}
    assert [name for name in ("m_0_0", "m_0_1", "m_1_0") if is_first_instance(config, name)] == ["m_0_0"]


PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "coming-from.md").read_text()


def test_the_page_has_each_key_with_its_effect_and_no_other() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| (honoured|no effect|refused) \|", PAGE, re.MULTILINE)
    documented = {key: becomes for keys, becomes in rows for key in re.findall(r"`([^`]+)`", keys)}
    table = {**KEYS, **PARAMETERS}
    assert documented == {name: key.effect for name, key in table.items()}
    assert len(re.findall(r"^\| `", PAGE, re.MULTILINE)) == len(rows)
