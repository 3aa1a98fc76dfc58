"""What tests do to a running server: load models, ask, read its metrics."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from backend.engines.onnxruntime.cpu_engine import OnnxCpuEngine
from backend.engines.onnxruntime.session import read_specs
from backend.linux.cpu_topology import core_budget, lane_cores
from backend.profiling.repository import read_config
from backend.server.embedded import EmbeddedServer
from backend.trial.launch import remember, remembered_name
from backend.trial.messages import Fill, Trial
from backend.trial.question import question_of
from predictor.workload import Load, ModelProfile
from profiler.brief import SCHEMA, BriefFile, BriefIdentity, BriefProfile
from profiler.host import cpu_name
from profiler.store import write_json

_LOADS_AT_ONCE = 8
_LANES = re.compile(r'"device_lanes" value \{ string_value: "(\d+)"')
_REGION = re.compile(r"/dev/shm/(triton_\S+)")
EXPLICIT = ("--model-control-mode=explicit", f"--model-load-thread-count={_LOADS_AT_ONCE}")
"""For tritonserver: it starts empty, and tests load what they need with `load`. Most of a load is Triton's waiting."""
EXPORTED_WITHIN_S = 8.0
"""Counts reach /metrics a few at a time, rarely while requests are answered."""


def remember_profile(server: EmbeddedServer, model_folder: Path, solo_ms: float, max_batch_size: int = 1) -> None:
    """As if the model had been profiled on this server before: saves the measuring and makes the numbers known.

    A batch of any size takes `solo_ms` alone. Call this before the model is loaded.
    """
    (file,) = model_folder.glob("*/model.onnx")
    lanes = _LANES.search((model_folder / "config.pbtxt").read_text())
    engine = OnnxCpuEngine(file, lane_cores(int(lanes[1]) if lanes else core_budget()))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    identity = BriefIdentity(digest, cpu_name(), engine.identity, max(1, max_batch_size))
    engine.close()
    remember_trial(server, model_folder, max_batch_size)
    sizes = tuple(sorted({1, identity.max_batch_size}))
    load = Load(solo_ns=round(solo_ms * 1e6), compute=0.5, l2=0.1, dram=0.1)
    profile = BriefFile(SCHEMA, identity, BriefProfile(ModelProfile(sizes, (load,) * len(sizes))))
    name = hashlib.sha256(msgspec.json.encode((SCHEMA, identity))).hexdigest()
    write_json(server.runtime_dir / "profiles" / f"{name}.json", profile)


def remember_trial(server: EmbeddedServer, model_folder: Path, rows_max: int) -> None:
    """As if the model had been tried: batching changes no answer, where the shapes leave it open to be batched."""
    (file,) = model_folder.glob("*/model.onnx")
    config = read_config(model_folder / "config.pbtxt")
    model = read_specs(file)
    question = question_of({**config, "max_batch_size": rows_max if rows_max > 1 else 0}, file, model, None)
    synthetic = {
        spec.name: Fill(tuple(1 if d == -1 else d for d in spec.shape)) for spec in model.inputs if not spec.optional
    }
    path = server.runtime_dir / "trials" / remembered_name(question)
    remember(path, question, Trial(synthetic, synthetic, batch=True, batches=True))


def load(server: EmbeddedServer, models: Iterable[str]) -> dict[str, str]:
    """Load models of an EXPLICIT server side by side; returns the sentences of those that could not be."""

    def one(model: str) -> tuple[str, str]:
        with closing(triton_http.InferenceServerClient(server.http_url, network_timeout=300.0)) as client:
            try:
                client.load_model(model)
            except InferenceServerException as error:
                return model, str(error)
        return model, ""

    with ThreadPoolExecutor(_LOADS_AT_ONCE) as pool:
        return {model: sentence for model, sentence in pool.map(one, models) if sentence}


def request(module: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
    """Inputs for `infer`, for tritonclient.http or tritonclient.grpc as `module`."""
    inputs = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def metric(server: EmbeddedServer, name: str, **labels: str) -> float:
    """The sum of a metric's lines that have these labels."""
    found = [value for line, value in metrics(server).items() if line[0] == name and set(labels.items()) <= line[1]]
    assert found, f"/metrics has no {name} with {labels}"
    return sum(found)


def metrics(server: EmbeddedServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """/metrics by name and labels."""
    lines = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", server.metrics(), re.MULTILINE)
    return {(name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))): float(value) for name, labels, value in lines}


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def regions_mapped_by(pid: int) -> set[str]:
    """Shared memory of Triton's stubs that a server has open, those of stubs that died included."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it is gone, or another user's
        return set()
    return set(_REGION.findall(maps))


def looks(server: EmbeddedServer) -> str:
    """What a server that does not answer is doing: what it counted, where its models' threads stand, its log's end."""
    lines = [line for line in server.metrics().splitlines() if line.startswith(("isochrone_requests", "nv_inference"))]
    for stub in server.stubs():
        tasks = sorted(Path(f"/proc/{stub.pid}/task").iterdir())
        lines += [f"{stub.model}, thread {task.name}: {(task / 'wchan').read_text()}" for task in tasks]
    return "\n".join([*lines, server.log_text()[-4_000:]])
