"""What `isochrone place` says of figures that nobody measured."""

from __future__ import annotations

from backend.commands.place import predicted_lines
from backend.fleet.placement import SLOWDOWN, SOLO, PredictedFigures
from backend.route_process.observed_demand import ObservedServer
from tests.fakes.fleets import MACHINE, snapshot_of


def test_a_model_is_named_once_per_type_of_machine() -> None:
    servers = [ObservedServer(name, ("m", "n")) for name in ("one", "two")]
    for server in servers:
        server.observe(snapshot_of([]))
    predicted = [
        PredictedFigures("n", "one", (SLOWDOWN,)),
        PredictedFigures("m", "one", (SOLO, SLOWDOWN)),
        PredictedFigures("m", "two", (SOLO, SLOWDOWN)),
    ]
    assert predicted_lines(predicted, servers) == [
        f"predicted from other machines, not measured: solo latency and slowdown of m on {MACHINE.name}",
        f"predicted from other machines, not measured: slowdown of n on {MACHINE.name}",
    ]
