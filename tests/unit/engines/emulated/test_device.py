"""The emulated device in real time, on a clock that a test turns, and the sharing of a device by its name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from backend.engines.emulated.device import EmulatedDevice, EmulatedDevices
from backend.engines.emulated.dilation import VARIABLE, time_dilation
from backend.engines.emulated.engine import EmulatedEngine
from backend.engines.emulated.spec import DeviceSpec
from backend.engines.protocol import EngineOptions
from backend.errors import ConfigError, EngineError
from backend.simulation.gpu_law import KernelDemand
from backend.simulation.virtual_gpu import GpuTimes, VirtualGpu
from tests.fakes.emulated import spec, write_spec

SPEC = DeviceSpec("emulated-test-0", pcie_gb_per_s=10.0, copy_latency_us=10.0, seed=5)
A, B = KernelDemand("a", 1, 0.8, 1.2), KernelDemand("b", 1, 0.6, 0.7)
SOLO_NS = 1e6
FILE = Path("one/1/model.emulated.json")


class TurnedClock:
    """A clock that stands until it is turned."""

    now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns


@contextmanager
def turned(dilation: float) -> Iterator[tuple[EmulatedDevice, TurnedClock]]:
    clock = TurnedClock()
    device = EmulatedDevice(SPEC, dilation, clock)
    yield device, clock
    device.close()


def submit(
    pool: ThreadPoolExecutor, device: EmulatedDevice, demand: KernelDemand, bytes_in: int = 0
) -> Future[GpuTimes]:
    before = device.under_way
    future = pool.submit(device.run, demand, SOLO_NS, bytes_in, 0)
    while device.under_way == before:
        time.sleep(0.001)
    return future


@pytest.mark.parametrize("dilation", [1.0, 4.0])
def test_emulated_device_ends_batches_when_the_virtual_one_does(dilation: float) -> None:
    virtual = VirtualGpu(SPEC.law, SPEC.copy_engines)
    expected = [virtual.submit(A, SOLO_NS, 0.0, 50_000)]
    virtual.step()  # its inputs are in
    expected.append(virtual.submit(B, SOLO_NS, 300_000.0))
    while virtual.next_ns is not None:
        virtual.step()

    with ThreadPoolExecutor() as pool, turned(dilation) as (device, clock):
        began_ns = clock.now_ns
        first = submit(pool, device, A, 50_000)
        clock.now_ns += round(300_000 * dilation)
        second = submit(pool, device, B)
        clock.now_ns += round(100 * SOLO_NS * dilation)  # late: each still ends at its own moment
        found = [first.result(5.0), second.result(5.0)]

    for times, batch in zip(found, expected, strict=True):
        real = [(moment - began_ns) / dilation for moment in times]
        assert real == pytest.approx(list(batch.times), abs=1.0)


def test_emulated_device_wakes_callers_by_itself() -> None:
    device = EmulatedDevice(msgspec.structs.replace(SPEC, noise_sd=0.0), 1.0)  # else a batch alone may take less
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: device.run(A, SOLO_NS, 0, 0), range(4)))
    device.close()

    assert all(times.executed_ns - times.started_ns >= SOLO_NS - 1 for times in found)


@pytest.mark.parametrize(("key", "value"), [("pcie_gb_per_s", 25.0), ("seed", 6), ("saturation", 2.0)])
def test_devices_of_one_name_with_other_constants_are_refused(key: str, value: float) -> None:
    devices = EmulatedDevices()
    lease = devices.lease(SPEC, 1.0, FILE)
    other = msgspec.structs.replace(SPEC, **{key: value})

    with pytest.raises(ConfigError, match=rf"device\.{key} of 'emulated-test-0' is {value}, but must be"):
        devices.lease(other, 1.0, FILE)
    with pytest.raises(ConfigError, match="dilated 4 times"):
        devices.lease(SPEC, 4.0, FILE)
    lease.release()
    devices.lease(other, 1.0, FILE).release()


@pytest.mark.parametrize("text", ["", "0", "0.5", "nan", "inf", "1_0", "fast"])
def test_bad_dilation_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)

    with pytest.raises(ConfigError, match=f'{VARIABLE} is "{text}"; it must be a number from 1 to 1000'):
        time_dilation()


def test_emulated_engine_refuses_batches_without_latency(tmp_path: Path) -> None:
    file = write_spec(tmp_path, "one", spec(noise_sd=0.0))
    with pytest.raises(ConfigError, match=r"max_batch_size is 8 in config\.pbtxt, but"):
        EmulatedEngine(file, EngineOptions(None, 1, 8))
    engine = EmulatedEngine(file, EngineOptions(None, 1, 4))
    x = engine.inputs[0].datatype.numpy.type

    with pytest.raises(EngineError, match="the batch has 5 rows"):
        engine.run(0, {"x": [np.zeros((5, 4), x)]}, ["y"])
    found = engine.run(0, {"x": [np.zeros((2, 4), x), np.zeros((1, 4), x)]}, ["y"])
    engine.close()

    assert found.outputs[0].shape == (3, 2)
    assert found.exec_ns == pytest.approx(4_000_000, abs=2)


class RecordingDevice:
    """In the place of devices, of a lease and of its device: keeps what is to be run."""

    def __init__(self) -> None:
        self.device, self.demands = self, list[KernelDemand]()

    def lease(self, *_: object) -> RecordingDevice:
        return self

    def run(self, demand: KernelDemand, *_: object) -> GpuTimes:
        self.demands.append(demand)
        return GpuTimes(0.0, 0.0, 1.0, 1.0)


def test_emulated_engine_has_its_share_and_its_stream(tmp_path: Path) -> None:
    file, devices = write_spec(tmp_path, "one", spec()), RecordingDevice()
    engine = EmulatedEngine(file, EngineOptions(None, 1, 4, 2, mps_percent=30), devices)  # type: ignore[arg-type]

    engine.run(0, {"x": [np.zeros((1, 4), np.float32)]}, ["y"])

    assert engine.identity.endswith("30 % of the multiprocessors")
    assert [(demand.share, demand.priority) for demand in devices.demands] == [(0.3, 2)]
