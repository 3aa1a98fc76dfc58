"""A model's name, which a client of Triton's repository API may choose, is part of no path."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.scheduler_process import event_log, sample_log
from tests.fakes.fake_model import FakeModel, decided_by_a_scheduler

DEVICE = "emulated-names"


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a\nb", "a\0b", "x" * 5000, "{device}", "%s%n"])
def test_a_models_name_is_part_of_no_path(name: str, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(event_log.VARIABLE, str(runtime_dir / "{device}.events"))
    monkeypatch.setenv(sample_log.VARIABLE, str(runtime_dir / "emulated-names.samples"))
    around = sorted(runtime_dir.parent.glob("evil*"))
    with FakeModel(name, device=DEVICE) as model:
        assert decided_by_a_scheduler(model)
    assert all(path.name.startswith(f"{DEVICE}.") for path in runtime_dir.rglob("*"))
    assert sorted(runtime_dir.parent.glob("evil*")) == around
    assert not Path("/evil").exists()
