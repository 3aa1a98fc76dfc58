"""Slots of models in a contribution: what tells pairs of models apart. Their number is fixed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from predictor.slowdown_function import SLOTS

_UNSEEN = 1_000
"""Samples after which a model that was in none of them leaves its slot to another."""


class Slots:
    """model -> slot. Slot 0 is of all models that have none of their own."""

    def __init__(self) -> None:
        self._slots: dict[str, tuple[int, int]] = {}
        """With the number of the sample that it was last in; the stalest first."""

    def __contains__(self, model: object) -> bool:
        return model in self._slots

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((model, slot) for model, (slot, _) in self._slots.items())

    def of(self, model: str) -> int:
        found = self._slots.get(model)
        return 0 if found is None else found[0]

    def take(self, model: str, sample: int) -> bool:
        """Give a model a slot where one is free, or is that of a model not seen for long; return whether it is new.

        sample: number of the sample that the model is in.
        """
        found = self._slots.pop(model, None)
        slot = self._free(sample) if found is None else found[0]
        if slot is not None:
            self._slots[model] = (slot, sample)
        return found is None and slot is not None

    def _free(self, sample: int) -> int | None:
        if len(self._slots) < SLOTS - 1:
            return len(self._slots) + 1
        stalest, (slot, seen) = next(iter(self._slots.items()))
        if sample - seen < _UNSEEN:
            return None
        del self._slots[stalest]
        return slot

    def state(self) -> dict[str, tuple[int, int]]:
        return dict(self._slots)

    def restore(self, state: object) -> None:
        """Become what `state()` described. Raises ValueError, unchanged, on anything else."""
        slots = msgspec.convert(state, dict[str, tuple[int, int]])
        if len(slots) >= SLOTS or sorted(slot for slot, _ in slots.values()) != list(range(1, len(slots) + 1)):
            raise ValueError(f"a slot from 1 on for each of fewer than {SLOTS} models is expected, got {slots}")
        self._slots = slots
