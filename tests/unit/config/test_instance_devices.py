"""Devices that an instance serves on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.config.instance_devices import on_each_device
from backend.config.model_config import read_engine_config
from tests.fakes.emulated import several, spec, write_spec

SHARED = {"engine_process": {"string_value": "shared"}}


def devices(file: Path, gpu: int | None, instance: str, **config: Any) -> list[str]:
    full = {"name": "m", **config}
    asked = read_engine_config(full, "1", file, gpu)
    return [each.device for each in on_each_device(asked, full, instance)]


def group(name: str, gpus: list[int], kind: str = "KIND_GPU") -> dict[str, Any]:
    return {"name": name, "kind": kind, "gpus": gpus, "count": 1}


def test_an_emulated_model_is_on_the_devices_of_its_file(tmp_path: Path) -> None:
    one = write_spec(tmp_path, "one", spec("emulated-fast-0"))
    two = write_spec(tmp_path, "two", several())
    assert devices(one, None, "m_0_0") == ["emulated-fast-0"]
    assert devices(two, None, "m_0_0") == ["emulated-fast-0", "emulated-slow-0"]


def test_engines_of_one_device_are_opened_for_it(tmp_path: Path) -> None:
    file = write_spec(tmp_path, "two", several())
    config = {"name": "m"}
    placed = on_each_device(read_engine_config(config, "1", file, None), config, "m_0_0")
    assert [each.options(2).emulated for each in placed] == ["emulated-fast-0", "emulated-slow-0"]


@pytest.mark.parametrize(
    ("gpu", "instance", "found"),
    [
        (1, "m_0_0", ["gpu-1", "gpu-0", "gpu-2"]),
        (0, "m_0_1", ["gpu-0", "gpu-1", "gpu-2"]),
        (3, "m_1_0", ["gpu-3"]),
        (0, "m_2_0", ["gpu-0", "gpu-3"]),
    ],
)
def test_a_gpu_instance_in_an_engine_process_is_on_all_gpus_of_its_group(
    gpu: int, instance: str, found: list[str]
) -> None:
    groups = [group("m_0", [0, 1, 2]), group("m_1", [3]), group("m_2", [0, 3])]
    assert devices(Path("model.onnx"), gpu, instance, instance_group=groups, parameters=SHARED) == found


@pytest.mark.parametrize("where", ["auto", "own"])
def test_a_gpu_instance_without_an_engine_process_of_its_own_choice_is_on_its_gpu(where: str) -> None:
    parameters = {"engine_process": {"string_value": where}}
    groups = [group("m_0", [0, 1])]
    assert devices(Path("model.onnx"), 1, "m_0_0", instance_group=groups, parameters=parameters) == ["gpu-1"]


def test_an_instance_on_the_cpu_is_there_only() -> None:
    groups = [group("m_0", [], "KIND_CPU"), group("m_1", [0, 1])]
    assert devices(Path("model.onnx"), None, "m_0_0", instance_group=groups, parameters=SHARED) == ["cpu"]
