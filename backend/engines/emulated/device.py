"""An emulated GPU in real time: a `VirtualGpu` that one thread steps when the clock says so, while callers sleep.

All models of a device that are open in this process share one. It computes nothing.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backend.engines.emulated.spec import DeviceSpec
from backend.errors import ConfigError
from backend.simulation.gpu_law import KernelDemand
from backend.simulation.virtual_gpu import GpuBatch, GpuTimes, VirtualGpu

_NS_PER_S = 1e9
_PR_SET_TIMERSLACK = 29
_SPIN_S = 200e-6
"""The last stretch before a batch's end, in which the thread looks at the clock: a sleep ends some 70 µs late."""


class EmulatedDevice:
    """Runs batches in real time. dilation: real time per time of the device. clock: monotonic, in nanoseconds."""

    def __init__(self, spec: DeviceSpec, dilation: float, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._gpu = VirtualGpu(spec.law, spec.copy_engines)
        self._dilation, self._clock, self._epoch_ns = dilation, clock, clock()
        self._changed = threading.Condition(threading.Lock())
        self._waiting: dict[GpuBatch, threading.Lock] = {}
        self._wakes_ns = -math.inf
        """Device time at which the thread steps next, unless it is woken before."""
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"isochrone-{spec.name}", daemon=True)
        self._thread.start()

    def run(self, demand: KernelDemand, solo_ns: float, bytes_in: int, bytes_out: int) -> GpuTimes:
        """Run a batch to its end, asleep. Returns its times in nanoseconds of the real clock."""
        finished = threading.Lock()
        finished.acquire()
        with self._changed:
            now_ns = self._now_ns()
            self._step_due(now_ns)  # what ended before this batch came did not run beside it
            batch = self._gpu.submit(demand, solo_ns, now_ns, bytes_in, bytes_out)
            self._waiting[batch] = finished
            if (next_ns := self._gpu.next_ns) is not None and next_ns < self._wakes_ns:
                self._changed.notify()
        finished.acquire()
        return GpuTimes(*(self._epoch_ns + moment * self._dilation for moment in batch.times))

    @property
    def under_way(self) -> int:
        """Batches that are not finished."""
        return len(self._waiting)

    def close(self) -> None:
        """End the thread; no batch is under way."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _step_due(self, now_ns: float) -> None:
        """End all stages that are due, at their own moments, however late this is called. Called with the lock held."""
        while (next_ns := self._gpu.next_ns) is not None and next_ns <= now_ns:
            if (batch := self._gpu.step()) is not None:
                self._waiting.pop(batch).release()

    def _now_ns(self) -> float:
        return (self._clock() - self._epoch_ns) / self._dilation

    def _run(self) -> None:
        _wake_exactly()
        with self._changed:
            while not self._closed:
                self._step_due(self._now_ns())
                next_ns = self._gpu.next_ns
                self._wakes_ns = math.inf if next_ns is None else next_ns
                if next_ns is None:
                    self._changed.wait()
                    continue
                # Only a batch's end must be met: the stages before it are stepped at their own moments, however late.
                early_s = _SPIN_S if self._gpu.next_finishes else 0.0
                left_s = (next_ns - self._now_ns()) * self._dilation / _NS_PER_S
                if left_s > early_s:
                    self._changed.wait(left_s - early_s)
                elif left_s > 0.0:
                    time.sleep(0)  # lets other threads have Python's lock


class DeviceLease:
    """A model's share in an emulated device, until it is released, once."""

    def __init__(self, devices: EmulatedDevices, name: str, device: EmulatedDevice) -> None:
        self.device = device
        self._devices, self._name = devices, name

    def release(self) -> None:
        """Give the device up; the last model ends it."""
        self._devices._leave(self._name)


class EmulatedDevices:
    """Emulated devices of this process by their names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[DeviceSpec, float, Path, EmulatedDevice]] = {}
        self._users: dict[str, int] = {}

    def lease(self, spec: DeviceSpec, dilation: float, file: Path) -> DeviceLease:
        """The device that a model file names. Raises ConfigError where one of its name has other constants."""
        with self._lock:
            if spec.name not in self._open:
                self._open[spec.name] = spec, dilation, file, EmulatedDevice(spec, dilation)
            open_spec, open_dilation, open_file, device = self._open[spec.name]
            for key in spec.__struct_fields__:
                ours, theirs = getattr(spec, key), getattr(open_spec, key)
                if ours != theirs:
                    raise ConfigError(
                        f"'{file}': device.{key} of '{spec.name}' is {_text(ours)}, but must be {_text(theirs)} as in "
                        f"'{open_file}', which runs on that device; give one of them another device.name"
                    )
            if dilation != open_dilation:
                raise ConfigError(
                    f"the time of '{spec.name}' is dilated {dilation:g} times by ISOCHRONE_EMULATED_TIME, but must be "
                    f"{open_dilation:g} times as for '{open_file}', which runs on that device"
                )
            self._users[spec.name] = self._users.get(spec.name, 0) + 1
            return DeviceLease(self, spec.name, device)

    def _leave(self, name: str) -> None:
        with self._lock:
            self._users[name] -= 1
            if self._users[name]:
                return
            device = self._open.pop(name)[-1]
        device.close()


DEVICES = EmulatedDevices()


def _text(value: object) -> str:
    return str(getattr(value, "value", value))


def _wake_exactly() -> None:
    """Let the kernel wake this thread at its time, and not up to 50 µs later to save power."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
