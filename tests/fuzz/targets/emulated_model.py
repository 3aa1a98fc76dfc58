"""model.emulated.json, a model on an emulated GPU."""

from __future__ import annotations

from math import isfinite

from backend.engines.emulated.spec import read_spec
from backend.errors import ConfigError
from tests.fuzz.files import file_of

FORMAT = "json"


def check(data: bytes) -> None:
    """A model whose batches take a finite time, on a device whose name is a file's; or `ConfigError`."""
    try:
        spec = read_spec(file_of("model.emulated.json", data))
    except ConfigError as error:
        assert str(error)
        return
    assert spec.device.name.replace("-", "").isalnum()
    assert spec.specs.inputs
    assert spec.profile.at(1).solo_ns > 0
    demands = [spec.demand("m", rows) for rows in (1, max(1, spec.max_batch_size))]
    assert all(isfinite(solo_ns) and solo_ns > 0.0 for solo_ns, _ in demands)
    assert spec.device.law.seed == spec.device.seed
    assert spec.device.copy_engines
