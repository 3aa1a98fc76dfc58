"""New types of machines: known ones and a few samples are worth more than either; the report has every rival."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import pytest

from benchmarks.machines.leave_one_out import Figure, leave_one_out, whole_machines
from benchmarks.machines.machines_report import MachineSource, report
from benchmarks.machines.open_data import MeasuredMachine, gavel_machines, parvagpu_machines
from benchmarks.machines.rivals import ALONE, OURS

_AIMS = {"v100": 0.11, "p100": 0.12, "k80": 0.12}
_BLIND = "no machines"


def _means(figures: list[Figure]) -> dict[tuple[str, str, int], float]:
    return {(figure.rival, figure.machine, figure.samples): mean(figure.mapes) for figure in figures}


def test_a_small_run_is_better_than_blind_and_alone_and_reports_each_rival() -> None:
    machines = gavel_machines()
    few = {
        name: MeasuredMachine(m.peaks, m.solo, m.samples[::4] if name != "k80" else m.samples)
        for name, m in machines.items()
    }
    figures = list(leave_one_out(few, {30: None}, repeats=2, news=["k80"]))
    found = _means(figures)
    assert found[OURS, "k80", 30] < min(found[ALONE, "k80", 30], found[_BLIND, "k80", 30])
    text = report(
        [MachineSource("Types of GPU", "Gavel.", figures, whole_machines({"k80": few["k80"]}))],
        [],
        2,
        30,
        {"learn_one": "1"},
    )
    assert all(figure.rival in text for figure in figures)


@pytest.mark.slow
@pytest.mark.parametrize("read", [gavel_machines, parvagpu_machines])
def test_thirty_samples_and_known_machines_are_better_than_either(
    read: Callable[[], dict[str, MeasuredMachine]],
) -> None:
    machines = read()
    found = _means(list(leave_one_out(machines, {30: None, 100: (OURS,)}, repeats=20)))
    for name in machines:
        assert found[OURS, name, 30] < min(found[ALONE, name, 30], found[_BLIND, name, 30])
        assert found[OURS, name, 30] < _AIMS.get(name, 1.0)
    for whole in whole_machines(machines):
        assert found[OURS, whole.machine, 100] < 1.4 * whole.unseen
