"""The scheduler that a process runs: what lower classes may cost higher ones, as the user has set it."""

from __future__ import annotations

import pytest

from backend.errors import ConfigError
from backend.scheduler.class_prices import CLASS_COST
from backend.scheduler_process.scheduler_factory import CLASS_COST_VARIABLE as VARIABLE
from backend.scheduler_process.scheduler_factory import class_cost, scheduler_factory
from predictor.bound import UpperBound
from predictor.learners.isochrone import Isochrone
from predictor.transfers import TransferModel


@pytest.mark.parametrize(
    ("text", "cost"), [(None, CLASS_COST), ("", CLASS_COST), ("0", 0.0), ("12.5", 0.125), ("100", 1.0)]
)
def test_a_percentage_is_read(monkeypatch: pytest.MonkeyPatch, text: str | None, cost: float) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if text is not None:
        monkeypatch.setenv(VARIABLE, text)
    assert class_cost() == cost


@pytest.mark.parametrize("text", ["-1", "101", "nan", "two", "1_0"])
def test_anything_else_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigError, match=f'{VARIABLE} is "{text}"; it must be a number from 0 to 100'):
        class_cost()


def test_the_devices_scheduler_goes_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "7")
    made = scheduler_factory()(2, None, Isochrone(), UpperBound(), transfers=TransferModel(), cores=None)
    assert made.policy.prices.allowed == pytest.approx(0.07)
