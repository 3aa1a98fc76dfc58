"""One model on all devices that hold it, as columns of numbers; see `backend.fleet.device_table`."""

from __future__ import annotations

from math import inf

import numpy as np

from backend.fleet.device_estimate import solo_ns
from backend.fleet.device_table import FRESH_UNTIL, DeviceTable, Floats, Numbers
from backend.fleet.snapshot import ModelState

BASE, SENSITIVITY, MODEL_PRESSURE, HELD, RANK, JOINED, BATCH, ALONE = range(8)
"""Rows of `ModelTable.facts`. HELD: `SURELY`, `PERHAPS` where a snapshot has no place for all models, else `NOT`.
RANK: of the batch that a request would join, inf without one; JOINED, BATCH: its solo latency, 0 without one, and that
of the same with one row more; ALONE: of one row, once it has been launched."""
NOT, PERHAPS, SURELY = 0.0, 1.0, 2.0
_ROWS = 8


class Selection:
    """Places of a model's table that come into question, and until when that is so. at: their places, devices: their
    numbers; each a slice where that is the same, for numpy copies nothing then.
    """

    def __init__(self, places: Numbers, devices: Numbers, until: float, changes: int) -> None:
        self.numbers, self.until, self.changes = devices, until, changes
        self.at, self.devices = _sliced(places), _sliced(devices)


class ModelTable:
    """Columns by place, a place per device. facts: (8, places)."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.states: dict[int, ModelState] = {}
        """As last shown, by device."""
        self.facts: Floats = np.zeros((_ROWS, 0))
        self._devices: Numbers = np.zeros(0, np.intp)
        self._waiting: list[int] = []
        """Rows of the batch that a request would join, by place."""
        self._selection: Selection | None = None

    def observe(self, device: int, state: ModelState) -> None:
        """Replace a device's columns by what its snapshot shows of the model."""
        place = self.places.get(device)
        if place is None:
            place = self.places[device] = len(self.places)
            self._devices = np.append(self._devices, device)
            self._waiting.append(0)
            self.facts = np.pad(self.facts, ((0, 0), (0, 1)))
            self.facts[RANK, place] = inf
        elif self.facts[HELD, place] == SURELY and self.states[device] == state:
            return
        self.states[device] = state
        if self.facts[HELD, place] != SURELY:
            self._selection = None
        self.facts[: HELD + 1, place] = (state.base, state.sensitivity, state.pressure, SURELY)
        self._join(device, place)

    def miss(self, device: int, held: float) -> None:
        """Note that a device's snapshot no longer shows the model. held: `NOT` or `PERHAPS`."""
        if held == NOT:
            del self.states[device]
        self.facts[HELD, self.places[device]] = held
        self._selection = None

    def join(self, device: int, rows: int, rank: float) -> None:
        """Note the batch that the next request would join on a device; 0 rows: none."""
        place = self.places.get(device)
        if place is not None:
            self.facts[RANK, place] = rank
            if self._waiting[place] != rows:
                self._waiting[place] = rows
                if device in self.states:
                    self._join(device, place)

    def selection(self, devices: DeviceTable, now: float) -> Selection:
        """Places of fresh devices that surely hold the model; else of those that perhaps do."""
        known = self._selection
        if known is None or known.until < now or known.changes != devices.changes:
            until = devices.facts[FRESH_UNTIL, self._devices]
            held = np.where(until >= now, self.facts[HELD], NOT)
            places = np.flatnonzero((held == held.max()) & (held > NOT))
            first = float(until[places].min()) if len(places) else now
            known = self._selection = Selection(places, self._devices[places], first, devices.changes)
        return known

    def batches(self, selection: Selection, rows: int) -> Floats:
        """(3, selected): `facts` from JOINED on, for a request of so many rows."""
        if rows == 1:
            return self.facts[JOINED:, selection.at]
        found = [self._batches(device, self.places[device], rows) for device in selection.numbers.tolist()]
        return np.array(found).T

    def _join(self, device: int, place: int) -> None:
        self.facts[JOINED:, place] = self._batches(device, place, 1)

    def _batches(self, device: int, place: int, rows: int) -> tuple[float, float, float]:
        state, waiting = self.states[device], self._waiting[place]
        return (*_batch_latencies(state, waiting, rows), solo_ns(state, rows))


def _batch_latencies(state: ModelState, waiting: int, rows: int) -> tuple[float, float]:
    """Solo latencies of the batch that the last of `waiting` rows form, 0 where there is none, and of the same batch
    with `rows` more; where they would not fit, of none and a batch of their own.
    """
    joined = waiting % state.max_batch_size
    if joined == 0 or joined + rows > state.max_batch_size:
        return 0.0, solo_ns(state, rows)
    return solo_ns(state, joined), solo_ns(state, joined + rows)


def _sliced(numbers: Numbers) -> Numbers | slice:
    """The same numbers as a slice, where they follow each other."""
    if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1 and (np.diff(numbers) == 1).all():
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers
