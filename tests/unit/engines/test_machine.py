"""Figures of a device's hardware: of emulated ones by their data sheets, of a GPU by its driver, of a CPU as known."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from backend.engines.emulated.machines import MACHINES
from backend.engines.machine import machine_facts
from backend.fleet.snapshot import MachineFacts
from backend.linux.cpu_topology import core_budget
from profiler.host import cpu_name
from profiler.peaks import Peaks, load_or_measure
from tests.fakes.driver import made_up_driver


@pytest.mark.parametrize("gpu", MACHINES)
def test_an_emulated_device_has_the_figures_of_its_gpu(gpu: str) -> None:
    found, machine = machine_facts(f"emulated-{gpu}-0", None), MACHINES[gpu]
    assert found.emulated
    assert found.name == f"emulated {machine.product}"
    assert (found.compute_tflops, found.memory_gb_per_s) == (machine.fp16_tflops, machine.memory_gb_per_s)
    assert found.multiprocessors == machine.multiprocessors
    assert found.memory_bytes is not None
    if " GB" in machine.product:
        assert f" {found.memory_bytes // 10**9} GB" in machine.product


def test_of_an_emulated_device_of_ones_own_nothing_is_known() -> None:
    assert machine_facts("emulated-test-0", None) == MachineFacts("emulated-test-0", emulated=True)


def test_a_cpu_has_peaks_once_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOCHRONE_RUNTIME_DIR", str(tmp_path))
    before = machine_facts("cpu", None)
    assert (before.name, before.emulated, before.multiprocessors) == (cpu_name(), False, core_budget())
    assert (before.compute_tflops, before.memory_gb_per_s) == (None, None)
    assert before.memory_bytes is not None
    assert before.memory_bytes > 1 << 28
    load_or_measure(tmp_path, lambda: Peaks(50e9, 1e11, 12e9, 1 << 20))
    after = machine_facts("cpu", None)
    assert after.compute_tflops == pytest.approx(core_budget() * 0.05)
    assert after.memory_gb_per_s == pytest.approx(12.0)


def test_a_gpu_has_the_figures_that_its_driver_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_driver(monkeypatch)
    found = machine_facts("gpu-0", 0)
    assert (found.name, found.emulated) == ("NVIDIA A100-SXM4-40GB", False)
    assert found.compute_tflops == pytest.approx(MACHINES["a100"].fp16_tflops, rel=0.01)
    assert found.memory_gb_per_s == pytest.approx(1555, rel=0.01)
    assert (found.memory_bytes, found.multiprocessors) == (40 << 30, 108)


def test_of_a_gpu_whose_driver_does_not_answer_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_driver(monkeypatch)["nvmlInit"] = pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)
    assert machine_facts("gpu-0", 0) == MachineFacts("gpu-0", emulated=False)
