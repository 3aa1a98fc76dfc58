"""Exactness of the emulated device in real time: how late its batches end, and the CPU time that it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backend.engines.emulated.device import EmulatedDevice
from backend.engines.emulated.spec import DeviceSpec
from backend.simulation.gpu_law import KernelDemand

LANES = 8
RATE_PER_S = 200.0
SOLO_NS = 8e6
_BYTES_IN, _BYTES_OUT = 602_112, 4000


class EndDelay(NamedTuple):
    """Quantiles in µs."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, late_ns: Sequence[float]) -> EndDelay:
        late_us = np.array(late_ns) / 1e3
        p50, p99 = np.percentile(late_us, (50, 99))
        return cls(float(p50), float(p99), float(late_us.max()))


class Timing(NamedTuple):
    """late: of a batch's return after the end by the law. busy: of one core."""

    batches: int
    late: EndDelay
    busy: float


def measure(seconds: float, seed: int = 0) -> Timing:
    """Poisson arrivals on eight lanes, each of which runs one batch at a time."""
    device = EmulatedDevice(DeviceSpec("emulated-timing-0", seed=seed), 1.0)
    late_ns: list[float] = []

    def lane(index: int, gaps_s: Sequence[float]) -> None:
        demand = KernelDemand(f"m{index}", 1, 0.7, 0.6)
        due_s = time.monotonic()
        for gap_s in gaps_s:
            due_s += gap_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            times = device.run(demand, SOLO_NS, _BYTES_IN, _BYTES_OUT)
            late_ns.append(time.monotonic_ns() - times.finished_ns)

    stream = np.random.default_rng(seed)
    each = round(RATE_PER_S / LANES * seconds)
    lanes = [
        threading.Thread(target=lane, args=(i, stream.exponential(LANES / RATE_PER_S, each).tolist()))
        for i in range(LANES)
    ]
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    busy = (time.process_time() - began_cpu_s) / (time.monotonic() - began_s)
    device.close()
    return Timing(len(late_ns), EndDelay.of(late_ns), busy)


def wake_lateness(seconds: float, seed: int = 0) -> EndDelay:
    """Sleep as often with nothing else to do: how late this machine wakes a thread at all."""
    late_ns = []
    due_s = time.monotonic()
    for gap_s in np.random.default_rng(seed).exponential(1 / RATE_PER_S, round(RATE_PER_S * seconds)).tolist():
        due_s = max(due_s, time.monotonic()) + gap_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        late_ns.append(1e9 * (time.monotonic() - due_s))
    return EndDelay.of(late_ns)
