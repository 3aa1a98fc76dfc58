"""The device under check: the first GPU, or the CPU, on which all of it runs too, to show that it does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.config.model_config import ModelConfig, complete, read_engine_config, read_model_config
from backend.device.facts import open_gpu
from backend.device.mps import mps_runs
from backend.engines.loading import read_model_specs
from backend.engines.protocol import ModelSpecs
from backend.engines.tensorrt.importing import import_tensorrt
from backend.errors import ConfigError
from backend.linux.cpu_topology import cores
from backend.model_process.load_profile import Inputs, inputs_of
from backend.trial.completion import tried
from benchmarks.harness.machine import version_facts
from benchmarks.models.model_repository import MAX_BATCH_SIZE
from profiler.host import cpu_name

_PACKAGES = ("isochrone", "onnxruntime", "onnxruntime-gpu", "cuda-bindings", "numpy", "nvidia-pytriton")
_FILES = {"tensorrt": "model.plan", "onnxruntime": "model.onnx"}
_UNKNOWN = "not told"


@dataclass(frozen=True)
class Target:
    """device_id: of a GPU, None: the CPU. engines: to be tried, the best first. facts: what figures depend on."""

    device_id: int | None
    name: str
    engines: tuple[str, ...]
    facts: Mapping[str, str]

    @property
    def kind(self) -> str:
        """Kind of instances in config.pbtxt."""
        return "KIND_CPU" if self.device_id is None else "KIND_GPU"

    @property
    def device(self) -> str:
        """Name of the device in samples."""
        return "cpu" if self.device_id is None else f"gpu-{self.device_id}"

    def config(self, repository: Path, model: str, engine: str) -> ModelConfig:
        """A model as it is served here, its engine in this process. Raises ConfigError."""
        return self._served(repository, model, engine)[0]

    def inputs(self, repository: Path, model: str, engine: str) -> Inputs:
        """Inputs to profile the model with. Raises ConfigError where no synthetic ones run."""
        config, stated, specs = self._served(repository, model, engine)
        trial = tried(stated, config.model_file, specs, batch=True)
        if (inputs := inputs_of(config, trial)) is None:
            raise ConfigError(trial.why)
        return inputs

    def _served(self, repository: Path, model: str, engine: str) -> tuple[ModelConfig, dict[str, Any], ModelSpecs]:
        file = repository / model / "1" / _FILES[engine]
        stated: dict[str, Any] = {
            "name": model,
            "max_batch_size": MAX_BATCH_SIZE,
            "parameters": {"engine": {"string_value": engine}, "engine_process": {"string_value": "own"}},
        }
        specs = read_model_specs(file, self.device_id)
        complete(stated, specs.inputs, specs.outputs)
        asked = read_engine_config(stated, "1", file, self.device_id)
        return read_model_config(asked, stated, specs), stated, specs

    def pinned_to(self) -> list[int] | None:
        """The cores of the lanes, None where lanes are not cores."""
        return cores() if self.device_id is None else None

    def clocks(self) -> str:
        """Tells in words how fast it may run at this moment."""
        if self.device_id is None:
            return _UNKNOWN
        try:
            with open_gpu(self.device_id) as gpu:
                clocks, causes = gpu.clocks_mhz(), gpu.slowed_by()
        except ConfigError as error:
            return str(error)
        rates = _UNKNOWN if clocks is None else f"SM {clocks[0]} MHz, memory {clocks[1]} MHz"
        slowed = _UNKNOWN if causes is None else ", ".join(causes) or "nothing"
        return f"{rates}, slowed by {slowed}"


def the_cpu() -> Target:
    """The CPU, to see that everything runs, not for figures."""
    facts = {"cores": str(len(cores())), **version_facts(*_PACKAGES)}
    return Target(None, cpu_name(), ("onnxruntime",), facts)


def the_gpu() -> Target:
    """The first that CUDA sees. Raises ConfigError, one sentence, where there is none."""
    from backend.device.cuda import hardware  # noqa: PLC0415 - imports CUDA
    from backend.engines.gpu.cuda_device import CudaDevice  # noqa: PLC0415 - likewise

    device, has = CudaDevice(0, "the check"), hardware(0)
    facts = {
        "compute capability": device.compute_capability(),
        "multiprocessors": str(has.multiprocessors),
        "memory": f"{device.memory().total_bytes / (1 << 30):.0f} GiB",
        "driver": _driver(),
        "highest clocks": f"SM {has.clock_hz / 1e6:.0f} MHz, memory {has.memory_clock_hz / 1e6:.0f} MHz",
        "MPS": "runs" if mps_runs() else "does not run",
        "TF32": "off (NVIDIA_TF32_OVERRIDE=0)" if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0" else "as by default",
        "host": f"{cpu_name()}, {len(cores())} cores",
        **version_facts(*_PACKAGES),
        "TensorRT": _tensorrt(),
    }
    return Target(0, device.name(), ("tensorrt", "onnxruntime"), facts)


def _driver() -> str:
    try:
        with open_gpu(0) as gpu:
            return gpu.identity().driver
    except ConfigError as error:
        return str(error)


def _tensorrt() -> str:
    try:
        return str(import_tensorrt().__version__)
    except ConfigError as error:
        return str(error)
