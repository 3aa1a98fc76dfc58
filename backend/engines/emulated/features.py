"""Features of an emulated model's batches: those that its specification states."""

from __future__ import annotations

import msgspec

from backend.engines.emulated.spec import EmulatedSpec
from predictor.workload import Load


class SpecifiedFeatures:
    """See `FeatureSource`."""

    name = "emulated"
    note: str | None = None
    lasting = True

    def __init__(self, spec: EmulatedSpec) -> None:
        self._profile = spec.profile

    def load(self, batch_size: int, solo_ns: int) -> Load:
        """See `FeatureSource.load`."""
        return msgspec.structs.replace(self._profile.at(batch_size), solo_ns=solo_ns)
