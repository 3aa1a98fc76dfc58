"""Configurations written for Triton's own backends, on a real server: honoured, told of in the log, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tritonclient.grpc as triton_grpc
from onnx import TensorProto, helper
from onnxruntime_extensions import get_library_path

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, eventually, load, metrics, remember_profile, request
from tests.server.harness import IR_VERSION, mlp, mlp_answer, write_model

BARE = 'backend: "isochrone"\n'
BATCHED = BARE + "max_batch_size: 8\n"
LIBRARY = get_library_path()
MODEL = mlp(width=4)
X = np.array([[1, 2, 3, 4]], np.float32)
NO_EFFECT = re.compile(r"isochrone: model '(\w+)': (.*)")


def library(name: str) -> str:
    return BATCHED + f'model_operations {{ op_library_filename: "{name}" }}\n'


def upper() -> onnx.ModelProto:
    """`x` [batch, 1] text → `y`, by an operator that ONNX Runtime does not have."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, ["batch", 1]) for name in ("x", "y"))
    node = helper.make_node("StringUpper", ["x"], ["y"], domain="ai.onnx.contrib")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    body = helper.make_graph([node], "test", [x], [y])
    return helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION)


class Stock(NamedTuple):
    """told: beginnings of the lines that the log has of the model, in any order."""

    config: str
    told: tuple[str, ...] = ()


SERVED = {
    "bare": Stock(BATCHED),
    # As the README of Triton's ONNX Runtime backend has it
    "onnx_options": Stock(
        BATCHED
        + """
        optimization { graph: { level: 1 } }
        parameters { key: "intra_op_thread_count" value: { string_value: "0" } }
        parameters { key: "execution_mode" value: { string_value: "0" } }
        parameters { key: "inter_op_thread_count" value: { string_value: "0" } }
        parameters { key: "enable_mem_arena" value: { string_value: "0" } }
        parameters { key: "enable_mem_pattern" value: { string_value: "0" } }
        parameters { key: "memory.enable_memory_arena_shrinkage" value: { string_value: "cpu:0" } }
        """,
        (
            "parameter 'intra_op_thread_count' has no effect: a batch has as many threads as its lane has cores",
            "parameter 'inter_op_thread_count' has no effect: a batch has as many threads as its lane has cores",
            "parameter 'memory.enable_memory_arena_shrinkage' has no effect: ",
        ),
    ),
    "onnx_on_cuda": Stock(
        BATCHED
        + """
        platform: "onnxruntime_onnx"
        parameters { key: "cudnn_conv_algo_search" value: { string_value: "0" } }
        parameters { key: "gpu_mem_limit" value: { string_value: "4294967200" } }
        optimization { execution_accelerators { gpu_execution_accelerator: [ {
            name: "tensorrt"
            parameters { key: "precision_mode" value: "FP16" }
            parameters { key: "max_workspace_size_bytes" value: "1073741824" }
        } ] } }
        """,
        (
            'platform is "onnxruntime_onnx", which has no effect beside backend',
            "parameter 'cudnn_conv_algo_search' has no effect: ",
            "parameter 'gpu_mem_limit' has no effect: ",
            "optimization gpu_execution_accelerator 'tensorrt' has no effect: ",
        ),
    ),
    "openvino": Stock(
        BATCHED + 'optimization { execution_accelerators { cpu_execution_accelerator: [ { name: "openvino" } ] } }\n',
        ("optimization cpu_execution_accelerator 'openvino' has no effect: ",),
    ),
    # As written for a TensorRT plan; the profile passes Triton's check because of the platform
    "tensorrt": Stock(
        BATCHED
        + """
        platform: "tensorrt_plan"
        instance_group [ { count: 1 kind: KIND_CPU profile: [ "1" ] rate_limiter { priority: 2 } host_policy: "h" } ]
        optimization { priority: PRIORITY_MAX eager_batching: true gather_kernel_buffer_threshold: 4
                       input_pinned_memory { enable: false } cuda { graphs: true output_copy_stream: true } }
        parameters { key: "execution_context_allocation_strategy" value: { string_value: "STATIC" } }
        """,
        (
            'platform is "tensorrt_plan", which has no effect beside backend',
            "instance_group profile 1 has no effect: ",
            "instance_group rate_limiter has no effect on what is executed",
            'instance_group host_policy "h" has no effect: ',
            "optimization priority is PRIORITY_MAX, which has no effect; use the parameter 'priority' instead",
            "optimization eager_batching has no effect: ",
            "optimization gather_kernel_buffer_threshold has no effect: ",
            "optimization input_pinned_memory has no effect: ",
            "optimization cuda graphs has no effect: ",
            "optimization cuda output_copy_stream has no effect: ",
            "parameter 'execution_context_allocation_strategy' has no effect: ",
        ),
    ),
    "preferred": Stock(
        BATCHED + "dynamic_batching { preferred_batch_size: [ 4, 8 ] }\n",
        ("preferred_batch_size in dynamic_batching has no effect: ",),
    ),
    "usual_batching": Stock(BATCHED + "dynamic_batching { }\n"),
    "instances": Stock(
        BATCHED + "instance_group [ { count: 2 kind: KIND_CPU } ]\n",
        ("instance_group count 2 starts as many processes, each with the model, which share the same lanes; ",),
    ),
    "of_the_backend": Stock(
        BATCHED + "instance_group [ { kind: KIND_MODEL } ]\n", ("instance_group kind KIND_MODEL has no effect: ",)
    ),
    "tagged": Stock(
        BATCHED + 'metric_tags { key: "team" value: "vision" }\n',
        ("metric_tags has no effect on isochrone's own metrics, only on Triton's; ",),
    ),
    "labelled": Stock(
        BATCHED + 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" } ]\n'
    ),
}
REFUSED = {
    "ordered": (BATCHED + "dynamic_batching { preserve_ordering: true }\n", "preserve_ordering in dynamic_batching "),
    "elements": (
        BATCHED
        + 'batch_input [ { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 source_input: "x" } ]',
        "batch_input is not supported: a batch is made of whole rows",
    ),
    "scattered": (
        BATCHED + 'batch_output [ { target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" } ]',
        "batch_output is not supported: each request gets the rows of every output that are its own",
    ),
    "ragged": (
        BATCHED + 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] allow_ragged_batch: true } ]',
        "input 'x': allow_ragged_batch is not supported; leave it out",
    ),
    "passive": (
        BATCHED + "instance_group [ { kind: KIND_CPU passive: true } ]",
        "passive in instance_group is not supported: such an instance holds the model and gets no request",
    ),
    "by_capability": (
        BATCHED + 'cc_model_filenames { key: "7.5" value: "t4.onnx" }',
        "cc_model_filenames is not supported: name the file for this GPU in default_model_filename instead",
    ),
    "level": (BATCHED + "optimization { graph { level: 7 } }", "optimization graph level is 7; it must be -1 "),
    "arena": (
        BATCHED + 'parameters { key: "enable_mem_arena" value { string_value: "maybe" } }',
        'parameter \'enable_mem_arena\' is "maybe"; it must be "0" or "1"',
    ),
    "library_missing": (
        library("ops/none.so"),
        "op_library_filename in model_operations is 'ops/none.so', but there is no such file in ",
    ),
    "library_of_nothing": (
        library("libnone-at-all.so"),
        "the custom operators of op_library_filename 'libnone-at-all.so' cannot be had: ",
    ),
}
CUSTOM = {
    "custom": library(LIBRARY),
    "custom_beside": library("ops.so"),
    "custom_shared": library(LIBRARY) + 'parameters { key: "engine_process" value { string_value: "shared" } }\n',
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    for name, stock in SERVED.items():
        folder = write_model(repository, name, MODEL, stock.config)
        (folder / "labels.txt").write_text("cat\ndog\nowl\nfox\n")
    for name, (config, _) in REFUSED.items():
        write_model(repository, name, MODEL, config)
    for name, config in CUSTOM.items():
        folder = write_model(repository, name, upper(), config)
        (folder / "1" / "ops.so").symlink_to(LIBRARY)
    write_model(repository, "custom_alone", upper(), BATCHED)
    write_model(repository, "preferred_alone", MODEL, BARE + "dynamic_batching { preferred_batch_size: [ 4 ] }\n")
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name in SERVED:
            remember_profile(server, repository / name, solo_ms=0.1, max_batch_size=8)
        yield server


@pytest.fixture(scope="module")
def told(server: EmbeddedServer) -> dict[str, list[str]]:
    """Model → the log's lines of it, once all are loaded."""
    assert load(server, SERVED) == {}
    lines: dict[str, list[str]] = {name: [] for name in SERVED}
    for model, sentence in NO_EFFECT.findall(server.log_text()):
        if model in lines:
            lines[model].append(sentence)
    return lines


@pytest.fixture(scope="module")
def sentences(server: EmbeddedServer) -> dict[str, str]:
    return load(server, [*REFUSED, "custom_alone"])


def test_a_preferred_size_without_a_largest_one_is_tritons_to_refuse(server: EmbeddedServer) -> None:
    """Triton checks before anything is filled in; docs/how-to/coming-from.md says what to write beside it."""
    assert load(server, ["preferred_alone"]).keys() == {"preferred_alone"}
    assert "dynamic batching preferred size must be <= max batch size for preferred_alone" in server.log_text()


def ask(server: EmbeddedServer, model: str, x: npt.NDArray[Any], **options: Any) -> npt.NDArray[Any]:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        answer: npt.NDArray[Any] = client.infer(model, request(triton_grpc, {"x": x}), **options).as_numpy("y")
        return answer


@pytest.mark.parametrize("name", SERVED)
def test_what_has_no_effect_is_told_once_and_the_model_serves(
    name: str, server: EmbeddedServer, told: dict[str, list[str]]
) -> None:
    np.testing.assert_allclose(ask(server, name, X), mlp_answer(MODEL, X), rtol=1e-5)
    lines = list(told[name])
    for beginning in SERVED[name].told:
        (line,) = [line for line in lines if line.startswith(beginning)]
        lines.remove(line)
    assert lines == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused(name: str, sentences: dict[str, str]) -> None:
    assert f"isochrone cannot load model '{name}': {REFUSED[name][1]}" in sentences[name]


def test_labels_and_tags_are_tritons_own_and_stay(server: EmbeddedServer, told: dict[str, list[str]]) -> None:
    assert told["labelled"] == []
    best = ask(
        server, "labelled", X, outputs=[triton_grpc.InferRequestedOutput("y", class_count=1)]
    )  # value:index:label
    index = int(np.argmax(mlp_answer(MODEL, X)))
    assert best.ravel()[0].decode().split(":")[1:] == [str(index), ["cat", "dog", "owl", "fox"][index]]
    ask(server, "tagged", X)
    labels = {("model", "tagged"), ("_team", "vision")}
    eventually(lambda: any(name == "nv_inference_count" and labels <= found for name, found in metrics(server)))


def test_custom_operators_from_their_library(server: EmbeddedServer) -> None:
    assert load(server, CUSTOM) == {}
    words = np.array([["owl"], ["Fox"]], object)
    for name in CUSTOM:
        assert [word.decode() for word in ask(server, name, words).ravel()] == ["OWL", "FOX"], name


def test_custom_operators_without_their_library(sentences: dict[str, str], repository: Path) -> None:
    file = repository / "custom_alone" / "1" / "model.onnx"
    says = f"isochrone cannot load model 'custom_alone': '{file}' has the operator ai.onnx.contrib:StringUpper, which "
    assert says in sentences["custom_alone"]
    assert 'config.pbtxt: model_operations { op_library_filename: "FILE" }' in sentences["custom_alone"]
