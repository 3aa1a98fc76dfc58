"""Entry point for Triton's Python backend. Errors of a load become the sentence that Triton logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from backend.config.instance_devices import on_each_device
from backend.config.model_config import (
    EngineConfig,
    check_tensors,
    first_gpu,
    model_file,
    read_engine_config,
    read_model_config,
    warm_up_calls,
)
from backend.config.onnx_options import options_without_effect
from backend.config.parameters import unused
from backend.config.stock_config import is_first_instance, without_effect
from backend.engines.loading import engine_of, specs_of
from backend.engines.protocol import Engine
from backend.errors import IsochroneError, one_line
from backend.linux.cpu_topology import lane_cores
from backend.linux.loading_priority import LOADING
from backend.linux.raised_priority import raise_priority
from backend.model_process.instance import Instance
from backend.model_process.loading.child_in_gaps import child_in_gaps
from backend.model_process.placement import in_engine_process, lanes_of, open_engine
from backend.model_process.tensor_check import check_tensors_come_through
from backend.trial.completion import complete_config, tried

_log = logging.getLogger("isochrone")


class TritonPythonModel:
    """Instance of a model. Triton makes one per instance, each in a process of its own."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what config.pbtxt leaves out from the model file."""
        config = auto_complete_model_config.as_dict()
        try:
            file = model_file(_version_directory_of_this_process(), config)
            asked = read_engine_config(config, file.parent.name, file, first_gpu(config))
            model, notes = complete_config(config, file, partial(child_in_gaps, asked))
            check_tensors(config, model)  # here too: it saves starting a process for nothing
            for note in notes:
                _log.warning("isochrone: model '%s': %s", config["name"], note)
        except IsochroneError as error:
            raise _refused(config["name"], error) from None
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model. Raises TritonModelException with one sentence."""
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        config = json.loads(args["model_config"])
        version = args["model_version"]
        LOADING.lower()
        try:
            check_tensors_come_through()
            file = model_file(Path(args["model_repository"]) / version, config)
            device_id = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
            asked = read_engine_config(config, version, file, device_id)
            if is_first_instance(config, args["model_instance_name"]):
                ignored = options_without_effect(asked.onnx, engine_of(file))
                for sentence in (*without_effect(config), *unused(asked.parameters), *ignored):
                    _log.warning("isochrone: model '%s': %s", asked.name, sentence)
            placed = on_each_device(asked, config, args["model_instance_name"])
            if asked.emulated:
                _log.warning(
                    "isochrone: model '%s' runs on the emulated device '%s'%s: it computes nothing, and answers zeros",
                    *(asked.name, "' and '".join(each.device for each in placed)),
                    "" if asked.time_dilation == 1.0 else f", its time dilated {asked.time_dilation:g} times",
                )
            with ExitStack() as undone:
                engines = [_opened(each, undone) for each in placed]
                engine = engines[0]
                model = specs_of(file, engine, asked.onnx)
                served = read_model_config(asked, config, model)
                trial = tried(config, file, model, batch=asked.max_batch_size > 1, attend=partial(child_in_gaps, asked))
                if trial.batches is False and asked.max_batch_size > 1:
                    _log.warning(
                        "isochrone: model '%s': max_batch_size in config.pbtxt is %d, but batching changes answers: "
                        "%s%s",
                        *(asked.name, asked.max_batch_size, trial.why),
                        "" if trial.splits else ", so each request runs by itself",
                    )
                others = [
                    (read_model_config(each, config, model), its)
                    for each, its in zip(placed[1:], engines[1:], strict=True)
                ]
                LOADING.restore()  # before threads are started that serve
                self._instance = Instance(served, engine, trial, warm_up_calls(config), others)
                undone.pop_all()
        except IsochroneError as error:
            raise _refused(args["model_name"], error) from None
        finally:
            LOADING.restore()
        raise_priority()  # Triton calls `execute` on this thread too: requests are read before more batches execute

    def execute(self, requests: Sequence[Any]) -> None:
        """Queue the requests; each is answered later through its response sender."""
        self._instance.execute(requests)

    def is_ready(self) -> bool:
        """Tell a Triton that asks, as newer ones do, whether the model serves."""
        return hasattr(self, "_instance") and self._instance.ready

    def finalize(self) -> None:
        """Stop: Triton has seen every answer."""
        if hasattr(self, "_instance"):
            self._instance.close()


def _opened(config: EngineConfig, undone: ExitStack) -> Engine:
    """Open an engine, to be closed if the load fails."""
    if in_engine_process(config) or not config.on_cpu or len(lane_cores(lanes_of(config))[0]) > 1:
        LOADING.restore()  # what it starts, threads or a process, is to serve
    engine = open_engine(config)
    undone.callback(engine.close)
    return engine


def _refused(model: str, error: IsochroneError) -> Exception:
    exception: Exception = pb_utils.TritonModelException(one_line(f"isochrone cannot load model '{model}': {error}"))
    return exception


def _version_directory_of_this_process() -> Path:
    """Read the version directory from the stub's arguments: Triton completes a configuration without naming its files.

    The stub is started as `triton_python_backend_stub <repository>/<model>/<version>/model.py …`.
    """
    arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    return Path(arguments[1].decode()).parent
