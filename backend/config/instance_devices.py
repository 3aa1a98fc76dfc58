"""Devices that one instance of a model serves on: several, where its requests may go to any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backend.config.model_config import EngineConfig
from backend.engines.emulated.spec import read_specs


def on_each_device(asked: EngineConfig, config: Mapping[str, Any], instance: str) -> tuple[EngineConfig, ...]:
    """The configuration on each device of an instance, its own one first. config: Triton's; instance: its name there.

    An emulated model's file names its devices. On GPUs they are those of the instance's group, where
    `engine_process: "shared"` lets each GPU's process hold the model once for all instances. Raises ConfigError.
    """
    if asked.emulated is not None:
        names = [spec.device.name for spec in read_specs(asked.model_file)]
        return tuple(replace(asked, emulated=name) for name in names)
    if asked.device_id is None or asked.parameters.engine_process != "shared":
        return (asked,)
    gpus = dict.fromkeys((asked.device_id, *_gpus_of_group(config, instance, asked.device_id)))
    return tuple(replace(asked, device_id=gpu) for gpu in gpus)


def _gpus_of_group(config: Mapping[str, Any], instance: str, own: int) -> list[int]:
    """GPUs of the instance's group: Triton names an instance after its group, with its number behind it."""
    for group in config.get("instance_group") or ():
        gpus = [int(gpu) for gpu in group.get("gpus") or ()]
        if group.get("kind") == "KIND_GPU" and own in gpus and instance.rpartition("_")[0] == group.get("name", ""):
            return gpus
    return []
