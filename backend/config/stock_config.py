"""Keys of a config.pbtxt written for Triton's ONNX Runtime or TensorRT backend, and their effect here.

Each key is honoured, refused, or has no effect, which the log says: none is dropped in silence.
docs/how-to/coming-from.md has the same table for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.errors import ConfigError

Applies = Callable[[Any, Mapping[str, Any]], bool]


def _is_set(value: Any, config: Mapping[str, Any]) -> bool:  # noqa: ARG001 - one of several
    return bool(value)


@dataclass(frozen=True)
class Key:
    """Treatment of a key of config.pbtxt.

    sentence: logged or raised where it is not honoured, with the {name} of its owner and its {value}. applies: whether
    a value sets the key, given the configuration; Triton fills in what was left out.
    """

    effect: Literal["honoured", "no effect", "refused"]
    sentence: str = ""
    applies: Applies = _is_set


def _ignored(sentence: str, applies: Applies = _is_set) -> Key:
    return Key("no effect", sentence, applies)


def _refused(sentence: str, applies: Applies = _is_set) -> Key:
    return Key("refused", sentence, applies)


def _is_not(*usual: object) -> Applies:
    return lambda value, _: value not in usual


HONOURED = Key("honoured")
_ROWS_ONLY = "a batch is made of whole rows; let the model work out what it needs of them, or the client send it"
_PINNED = "has no effect: what goes to a GPU and back lies in pinned memory, and nothing else does; leave it out"
_STUCK_BY_CLASS = (
    "priority_levels in dynamic_batching leaves requests stuck in Triton's queue; "
    "use the parameter 'priority' and the request parameter 'priority_class' instead"
)
_STUCK_BY_POLICY = (
    "a queue policy in dynamic_batching leaves requests stuck in Triton's queue; "
    "use the parameters 'slo_ms', 'on_miss' and 'max_queue_size' instead"
)
_SHAPE_TENSOR = "{name}: is_shape_tensor is not supported; build the plan without shape tensors"
_NOT_LINEAR = "{name}: is_non_linear_format_io is not supported; build the plan with linear tensors"

KEYS: Mapping[str, Key] = {
    "name": HONOURED,
    "platform": _ignored(
        "platform is \"{value}\", which has no effect beside backend; the parameter 'engine' and the model file say "
        "what runs the model"
    ),
    "backend": HONOURED,
    "runtime": HONOURED,
    "version_policy": HONOURED,
    "max_batch_size": HONOURED,
    "input.name": HONOURED,
    "input.data_type": HONOURED,
    "input.format": HONOURED,
    "input.dims": HONOURED,
    "input.reshape": HONOURED,
    "input.is_shape_tensor": _refused(_SHAPE_TENSOR),
    "input.allow_ragged_batch": _refused(
        "{name}: allow_ragged_batch is not supported; leave it out, "
        "requests of different shapes go in different batches"
    ),
    "input.optional": HONOURED,
    "input.is_non_linear_format_io": _refused(_NOT_LINEAR),
    "output.name": HONOURED,
    "output.data_type": HONOURED,
    "output.dims": HONOURED,
    "output.reshape": HONOURED,
    "output.label_filename": HONOURED,
    "output.is_shape_tensor": _refused(_SHAPE_TENSOR),
    "output.is_non_linear_format_io": _refused(_NOT_LINEAR),
    "batch_input": _refused(f"batch_input is not supported: {_ROWS_ONLY}"),
    "batch_output": _refused(
        "batch_output is not supported: each request gets the rows of every output that are its own; leave it out"
    ),
    "optimization.graph.level": HONOURED,
    "optimization.priority": _ignored(
        "optimization priority is {value}, which has no effect; use the parameter 'priority' instead",
        _is_not("PRIORITY_DEFAULT"),
    ),
    "optimization.cuda.graphs": _ignored(
        "optimization cuda graphs has no effect: a model.plan runs as CUDA graphs anyway from TensorRT 10 on, a "
        "model.onnx never does; make a plan with `isochrone build` instead"
    ),
    "optimization.cuda.graph_spec": _ignored(
        "optimization cuda graph_spec has no effect: a model.plan has a CUDA graph for each batch size; "
        "use max_batch_size instead"
    ),
    "optimization.cuda.busy_wait_events": _ignored(
        "optimization cuda busy_wait_events has no effect: a core that spins is taken from what the lanes need; "
        "leave it out"
    ),
    "optimization.cuda.output_copy_stream": _ignored(
        "optimization cuda output_copy_stream has no effect: outputs have a stream of their own anyway; leave it out"
    ),
    "optimization.execution_accelerators.gpu_execution_accelerator": _ignored(
        "optimization gpu_execution_accelerator '{name}' has no effect: a model.onnx runs in ONNX Runtime on CUDA; "
        "for TensorRT make a plan with `isochrone build` instead"
    ),
    "optimization.execution_accelerators.cpu_execution_accelerator": _ignored(
        "optimization cpu_execution_accelerator '{name}' has no effect: a model.onnx runs in ONNX Runtime's own CPU "
        "kernels; use the parameter 'device_lanes' to give a batch more cores"
    ),
    "optimization.input_pinned_memory.enable": _ignored(f"optimization input_pinned_memory {_PINNED}", _is_not(True)),
    "optimization.output_pinned_memory.enable": _ignored(f"optimization output_pinned_memory {_PINNED}", _is_not(True)),
    "optimization.gather_kernel_buffer_threshold": _ignored(
        "optimization gather_kernel_buffer_threshold has no effect: a batch's inputs are joined in pinned memory; "
        "leave it out"
    ),
    "optimization.eager_batching": _ignored(
        "optimization eager_batching has no effect: a batch is made as it is launched; leave it out"
    ),
    "dynamic_batching.preferred_batch_size": _ignored(
        "preferred_batch_size in dynamic_batching has no effect: the scheduler sizes each batch by what waits and by "
        "deadlines; use max_batch_size for the most that it may take",
        lambda value, config: list(value) not in ([], [config.get("max_batch_size", 0)]),  # which Triton fills in
    ),
    "dynamic_batching.max_queue_delay_microseconds": _refused(
        "max_queue_delay_microseconds in dynamic_batching is {value}: requests would wait in Triton's queue "
        "whatever their deadlines; leave it out, the scheduler forms batches of what waits",
        _is_not(0, "0"),
    ),
    "dynamic_batching.preserve_ordering": _refused(
        "preserve_ordering in dynamic_batching keeps answers back until those of earlier requests are there, whatever "
        "their class and deadline; leave it out, and let clients tell answers by their request ids"
    ),
    "dynamic_batching.priority_levels": _refused(_STUCK_BY_CLASS, _is_not(0, "0")),
    "dynamic_batching.default_priority_level": _refused(_STUCK_BY_CLASS, _is_not(0, "0")),
    "dynamic_batching.default_queue_policy": _refused(_STUCK_BY_POLICY),
    "dynamic_batching.priority_queue_policy": _refused(_STUCK_BY_POLICY),
    "sequence_batching": _refused(
        "sequence_batching is not supported: isochrone serves models without state; make the state an input and an "
        "output, which the client carries from request to request"
    ),
    "ensemble_scheduling": HONOURED,
    "instance_group.name": HONOURED,
    "instance_group.kind": Key(
        "honoured",
        "instance_group kind {value} has no effect: the model runs on CPU; write KIND_CPU, or KIND_GPU",
        lambda value, _: value == "KIND_MODEL",
    ),
    "instance_group.count": _ignored(
        "instance_group count {value} starts as many processes, each with the model, which share the same lanes; "
        "use count 1, and the parameter 'device_lanes' for how many batches run at a time",
        lambda value, _: int(value) > 1,
    ),
    "instance_group.gpus": HONOURED,
    "instance_group.rate_limiter": _ignored(
        "instance_group rate_limiter has no effect on what is executed: the scheduler decides that; "
        "use the parameters 'priority' and 'device_lanes' instead"
    ),
    "instance_group.secondary_devices": _refused(
        "secondary_devices in instance_group are not supported; build the plan for the GPU"
    ),
    "instance_group.profile": _ignored(
        "instance_group profile {value} has no effect: each batch takes the plan's profile that fits it best; leave it "
        "out"
    ),
    "instance_group.passive": _refused(
        "passive in instance_group is not supported: such an instance holds the model and gets no request; leave it out"
    ),
    "instance_group.host_policy": _ignored(
        'instance_group host_policy "{value}" has no effect: lanes are the cores that the server\'s process may use; '
        "start it with `taskset` or in a cpuset instead"
    ),
    "default_model_filename": HONOURED,
    "cc_model_filenames": _refused(
        "cc_model_filenames is not supported: name the file for this GPU in default_model_filename instead"
    ),
    "metric_tags": _ignored(
        "metric_tags has no effect on isochrone's own metrics, only on Triton's; join them by the label 'model' instead"
    ),
    "parameters": HONOURED,
    "model_warmup": HONOURED,
    "model_operations.op_library_filename": HONOURED,
    "model_transaction_policy.decoupled": _refused(
        "model_transaction_policy decoupled is not supported: each request has one answer; leave it out"
    ),
    "model_repository_agents": HONOURED,
    "response_cache.enable": _refused(
        "response_cache is not supported: it would answer later requests with the refusal of an earlier one; "
        "leave it out"
    ),
    "model_metrics": HONOURED,
}
"""Keys by path. A key's entry covers all below it."""


def _parameter(sentence: str, applies: Applies = _is_set) -> Key:
    return _ignored(f"parameter '{{name}}' has no effect: {sentence}", applies)


_OF_A_LANE = "a batch has as many threads as its lane has cores; use the parameter 'device_lanes' instead"
_ON_CUDA = "use the parameter 'device_lanes' instead: each lane on a GPU holds the model's weights and its own memory"

PARAMETERS: Mapping[str, Key] = {
    # ONNX Runtime's backend
    "intra_op_thread_count": _parameter(_OF_A_LANE),
    "inter_op_thread_count": _parameter(_OF_A_LANE),
    "execution_mode": _parameter(
        "operators of a batch run one after the other, so that it stays on its lane; "
        "use the parameter 'device_lanes' to give a batch more cores",
        _is_not("0"),
    ),
    "enable_mem_arena": HONOURED,
    "enable_mem_pattern": HONOURED,
    "memory.enable_memory_arena_shrinkage": _parameter(
        "the arena keeps what it has between batches; set the parameter 'enable_mem_arena' to \"0\" to hold less"
    ),
    "session.use_device_allocator_for_initializers": _parameter(
        "weights lie in the arena; set the parameter 'enable_mem_arena' to \"0\" to hold less", _is_not("0")
    ),
    "share_session_between_instances": _parameter(
        "use instance_group count 1, whose lanes share a session on CPU, or the parameter 'engine_process' \"shared\"",
        lambda value, _: value.lower() not in ("", "0", "false"),
    ),
    "cudnn_conv_algo_search": _parameter(
        "algorithms are chosen by cuDNN's heuristic, since a search would be done anew for each lane and batch size; "
        "make a plan with `isochrone build` to have them measured once"
    ),
    "gpu_mem_limit": _parameter(_ON_CUDA),
    "arena_extend_strategy": _parameter(f"a lane's memory grows by what is asked for; {_ON_CUDA}"),
    "do_copy_in_default_stream": _parameter("inputs and outputs have streams of their own anyway; leave it out"),
    # TensorRT's backend
    "execution_context_allocation_strategy": _parameter(
        "the contexts of a lane share one piece of memory anyway; leave it out"
    ),
    # Triton itself
    "TRITON_BATCH_STRATEGY_PATH": _refused(
        "parameter '{name}' is not supported: the scheduler forms batches of what waits; leave it out"
    ),
    # Triton's Python backend, which runs this one
    "EXECUTION_ENV_PATH": HONOURED,
    "FORCE_CPU_ONLY_INPUT_TENSORS": HONOURED,
    "TRITON_INFERENCE_REQUEST_TIMEOUT": HONOURED,
}
"""Entries of `parameters` that are not isochrone's own."""

_UNKNOWN = _ignored("'{name}' in config.pbtxt is not known to this version of isochrone, and has no effect")


def check_stock_config(config: Mapping[str, Any]) -> None:
    """Refuse keys that would come between the queue and the scheduler, or cannot be honoured. Raises ConfigError."""
    for key, sentence in _found(config):
        if key.effect == "refused":
            raise ConfigError(sentence)


def without_effect(config: Mapping[str, Any]) -> list[str]:
    """Sentences for the keys that are set and have no effect."""
    return list(dict.fromkeys(sentence for key, sentence in _found(config) if key.effect != "refused"))


def is_first_instance(config: Mapping[str, Any], instance: str) -> bool:
    """True for the instance that logs for the model's load; each of them is initialised."""
    groups = config.get("instance_group") or [{}]
    return instance.startswith(f"{groups[0].get('name', '')}_0")


def _found(config: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """Keys that are not honoured, each with its sentence."""
    for key, name, value in (*_walk(config, "", ""), *_parameters(config.get("parameters") or {})):
        if key.sentence and key.applies(value, config):
            yield key, key.sentence.format(name=name, value=_as_written(value))


def _walk(node: Mapping[str, Any], above: str, owner: str) -> Iterator[tuple[Key, str, Any]]:
    for name, value in node.items():
        path = f"{above}.{name}" if above else name
        items = [item for item in (value if isinstance(value, list) else [value]) if item]
        if key := KEYS.get(path):
            if value is not None:
                named = ", ".join(str(item["name"]) for item in items if isinstance(item, Mapping) and "name" in item)
                yield key, named or owner, value
        elif any(known.startswith(f"{path}.") for known in KEYS):
            for item in items:
                label = f"{path} '{item.get('name', '')}'" if path in ("input", "output") else ""
                yield from _walk(item, path, label)
        else:
            yield _UNKNOWN, path, value


def _parameters(parameters: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Key, str, Any]]:
    for name, value in parameters.items():
        if key := PARAMETERS.get(name):
            yield key, name, value.get("string_value", "").strip()


def _as_written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
