"""A device's hardware in a few figures, for others who choose between machines. Nothing is measured here."""

from __future__ import annotations

import os
import re

from backend.device.facts import open_gpu
from backend.engines.emulated.machines import MACHINES
from backend.errors import ConfigError
from backend.fleet.snapshot import MachineFacts
from backend.linux.cpu_topology import core_budget
from backend.runtime_dir import runtime_dir
from profiler.host import cpu_name
from profiler.peaks import PeaksError, known_peaks

FP16_PER_CLOCK = {
    (5, 0): 256,
    (6, 0): 256,
    (7, 0): 1024,
    (8, 0): 2048,
    (8, 6): 1024,
    (9, 0): 4096,
    (10, 0): 8192,
    (12, 0): 1024,
}
"""Operations of one multiprocessor in a dense 16-bit matrix product, from this compute capability on: NVIDIA's data
sheets, over multiprocessors × boost clock; where FP16 has no advantage, those of FP32."""
_MEMORY_GB = {"a100": 80, "v100": 32, "t4": 16, "l4": 24}
"""Of the products in `MACHINES`, by the same data sheets."""
_TERA, _GIGA = 1e12, 1e9


def machine_facts(device: str, device_id: int | None) -> MachineFacts:
    """Facts of a device. device_id: the GPU's number to CUDA, None of a CPU and of an emulated device."""
    if device.startswith("emulated-"):
        return _emulated(device)
    return _cpu() if device_id is None else _gpu(device, device_id)


def _emulated(device: str) -> MachineFacts:
    found = re.fullmatch(r"emulated-([a-z0-9]+)(?:-.*)?", device)
    gpu = found[1] if found else ""
    if gpu not in MACHINES:  # a device of a user's own model.emulated.json
        return MachineFacts(device, emulated=True)
    machine = MACHINES[gpu]
    return MachineFacts(
        f"emulated {machine.product}",
        emulated=True,
        compute_tflops=machine.fp16_tflops,
        memory_gb_per_s=machine.memory_gb_per_s,
        memory_bytes=_MEMORY_GB[gpu] * 10**9,
        multiprocessors=machine.multiprocessors,
    )


def _cpu() -> MachineFacts:
    """The cores that lanes may use. Peaks only where they were measured before: of operations of all of these, of
    memory what one core can copy.
    """
    cores, peaks = core_budget(), known_peaks(runtime_dir())
    return MachineFacts(
        cpu_name(),
        emulated=False,
        compute_tflops=None if peaks is None else cores * peaks.operations_per_s / _TERA,
        memory_gb_per_s=None if peaks is None else peaks.dram_bytes_per_s / _GIGA,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        multiprocessors=cores,
    )


def _gpu(device: str, index: int) -> MachineFacts:
    from backend.device.cuda import hardware  # noqa: PLC0415 - imports CUDA

    try:
        gpu = hardware(index)
        with open_gpu(index) as opened:
            identity = opened.identity()
    except (ConfigError, PeaksError):
        return MachineFacts(device, emulated=False)
    per_clock = [FP16_PER_CLOCK[least] for least in sorted(FP16_PER_CLOCK) if least <= gpu.compute_capability]
    return MachineFacts(
        identity.name,
        emulated=False,
        compute_tflops=per_clock[-1] * gpu.multiprocessors * gpu.clock_hz / _TERA if per_clock else None,
        memory_gb_per_s=2 * gpu.memory_clock_hz * gpu.memory_bus_bits / 8 / _GIGA,
        memory_bytes=identity.memory_bytes,
        multiprocessors=gpu.multiprocessors,
    )
