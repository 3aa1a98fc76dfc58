"""Demand for a placement from what servers published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from backend.errors import ConfigError
from backend.fleet.placement import ModelDemand
from backend.fleet.snapshot import DeviceSnapshot, MachineFacts
from backend.route_process import observed_demand
from backend.route_process.observed_demand import ObservedServer, StatedModel, figures_of, read_demand
from tests.fakes.fleets import model_state, snapshot_of

FAST = MachineFacts("A100", True, compute_tflops=312.0, memory_bytes=80_000_000_000)
SLOW = MachineFacts("T4", True, compute_tflops=65.0, memory_bytes=16_000_000_000)


def at(machine: MachineFacts, snapshot: DeviceSnapshot) -> DeviceSnapshot:
    return msgspec.structs.replace(snapshot, machine=machine)


def server(name: str, *snapshots: DeviceSnapshot, repository: tuple[str, ...] = ("m", "n")) -> ObservedServer:
    found = ObservedServer(name, repository)
    for snapshot in snapshots:
        found.observe(snapshot)
    return found


def demand(
    servers: Sequence[ObservedServer], seconds: float, stated: Mapping[str, StatedModel]
) -> tuple[ModelDemand, ...]:
    return observed_demand.demand(servers, seconds, stated, figures_of(servers))


def test_rates_are_arrivals_between_the_first_and_the_last_snapshot() -> None:
    a = server("a", *(at(FAST, snapshot_of([model_state("m", arrivals=n)])) for n in (100, 130, 150)))
    b = server("b", *(at(SLOW, snapshot_of([model_state("m", arrivals=n)])) for n in (7, 17)))
    (m,) = demand([a, b], 10.0, {})
    assert (m.name, m.rate_per_s) == ("m", 6.0)


def test_a_restarted_publisher_counts_from_nothing() -> None:
    before = at(FAST, snapshot_of([model_state("m", arrivals=100)]))
    after = at(FAST, snapshot_of([model_state("m", arrivals=20)], publisher="second"))
    (m,) = demand([server("a", before, after)], 10.0, {})
    assert m.rate_per_s == 2.0


def test_a_model_that_runs_on_one_machine_is_scaled_to_another_by_those_that_run_on_both() -> None:
    a = server("a", at(FAST, snapshot_of([model_state("m", 10.0), model_state("n", 4.0)])))
    b = server("b", at(SLOW, snapshot_of([model_state("n", 12.0)])))
    m, n = demand([a, b], 10.0, {})
    assert m.figures["b"].solo_ns == pytest.approx(3 * m.figures["a"].solo_ns)
    assert n.figures["b"].solo_ns == pytest.approx(12e6)


def test_without_a_common_model_peaks_relate_machines_and_without_peaks_nothing() -> None:
    a = server("a", at(FAST, snapshot_of([model_state("m", 10.0)])))
    b = server("b", at(SLOW, snapshot_of([])))
    (m,) = demand([a, b], 10.0, {})
    assert m.figures["b"].solo_ns == pytest.approx(10e6 * 312.0 / 65.0)

    unknown = msgspec.structs.replace(SLOW, compute_tflops=None)
    (m,) = demand([a, server("b", at(unknown, snapshot_of([])))], 10.0, {})
    assert set(m.figures) == {"a"}


def test_a_model_goes_only_where_it_can_be_loaded() -> None:
    a = server("a", at(FAST, snapshot_of([model_state("m")])))
    b = server("b", at(FAST, snapshot_of([])), repository=("n",))
    (m,) = demand([a, b], 10.0, {})
    assert set(m.figures) == {"a"}


def test_what_is_stated_goes_before_what_is_observed() -> None:
    a = server("a", at(FAST, snapshot_of([model_state("m", arrivals=9)])))
    (m,) = demand([a], 10.0, {"m": StatedModel("m", 50.0, 500.0, 2)})
    assert (m.rate_per_s, m.memory_bytes, m.replicas) == (50.0, 500_000_000, 2)
    with pytest.raises(ConfigError, match="names model 'x', which no server holds"):
        demand([a], 10.0, {"x": StatedModel("x")})


def test_a_servers_devices_are_one_machine() -> None:
    first = at(FAST, snapshot_of([model_state("m")], device="gpu-0", lanes=2))
    second = at(FAST, snapshot_of([model_state("n")], device="gpu-1", lanes=2))
    space = server("a", first, second).space()
    assert (space.lanes, space.memory_bytes, space.holds) == (4, 160_000_000_000, ("m", "n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "Input data was truncated"),
        ('{"models": [{"model": "m", "weight": 1}]}', "unknown field `weight`"),
        ('{"models": [{"model": "m", "replicas": 0}]}', "replicas of model 'm' is 0; it must be 1 or more"),
        ('{"models": [{"model": "m", "memory_mb": -1}]}', "memory_mb of model 'm' is -1; it must be 0 or more"),
    ],
)
def test_a_file_of_demand_that_cannot_be_used_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "demand.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as told:
        read_demand(file)
    assert str(told.value).startswith(f"--demand {file}: ")
    assert sentence in str(told.value)


def test_a_file_of_demand_is_read(tmp_path: Path) -> None:
    file = tmp_path / "demand.json"
    file.write_text('{"models": [{"model": "m", "rate_per_s": 5}]}')
    assert read_demand(file) == {"m": StatedModel("m", 5.0)}
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_demand(tmp_path / "none.json")
