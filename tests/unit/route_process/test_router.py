"""The router: picks of the fleet as addresses for Envoy, and what is left to Envoy or answered here."""

from __future__ import annotations

import pytest

from backend.fleet.snapshot import DeviceSnapshot
from backend.route_process.endpoints_file import Server
from backend.route_process.model_name import Asked
from backend.route_process.picker import Destinations, Refusal
from backend.route_process.probes import IndexedModel
from backend.route_process.router import Router
from backend.route_process.router_metrics import RouterMetrics
from tests.fakes.fleets import MS, START_NS, batch, model_state, snapshot_of

A, B = (
    Server(name, f"10.0.0.{i}:8000", f"10.0.0.{i}:8001", (f"10.0.0.{i}:9100",)) for i, name in enumerate(("a", "b"), 1)
)


class Routed:
    """A router of two servers whose clock a test sets."""

    def __init__(self, **snapshots: DeviceSnapshot) -> None:
        self.now_ns = START_NS
        self.metrics = RouterMetrics()
        self.router = Router((A, B), self.metrics, lambda: self.now_ns)
        for name, snapshot in snapshots.items():
            self.router._observe(name, snapshot)

    def ask(self, model: str = "m", *, over_grpc: bool = False, infers: bool = True) -> tuple[str, ...] | Refusal:
        found = self.router.route(Asked(over_grpc, model, infers=infers))
        return found if isinstance(found, Refusal) else found.addresses

    def hold(self, server: str, model: str) -> None:
        """As its Triton tells."""
        self.router.probes[server].models |= {IndexedModel(model, "1")}

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"isochrone_route_{name}", labels)


def busy() -> DeviceSnapshot:
    return snapshot_of([model_state("m")], [batch("m", 500.0)])


def idle() -> DeviceSnapshot:
    return snapshot_of([model_state("m"), model_state("only_here")])


@pytest.mark.parametrize(("over_grpc", "port"), [(False, 8000), (True, 8001)])
def test_a_request_goes_to_the_better_server_at_its_protocols_port(over_grpc: bool, port: int) -> None:
    routed = Routed(a=busy(), b=idle())
    assert routed.ask(over_grpc=over_grpc) == (f"10.0.0.2:{port}", f"10.0.0.1:{port}")
    assert routed.sample("picks_total", endpoint="b") == 1.0
    assert routed.sample("pick_us_count") == 1.0


def test_an_answer_ends_what_is_in_flight_once_and_only_of_this_routers_picks() -> None:
    routed = Routed(a=busy(), b=idle())
    found = routed.router.route(Asked(False, "m", infers=True))
    assert isinstance(found, Destinations)
    assert len(routed.router.fleet.in_flight) == 1
    for other in ("", "x", "1", f"other:{found.pick.partition(':')[2]}", f"{found.pick}0", "x:-1"):
        routed.router.answered(other)
        assert len(routed.router.fleet.in_flight) == 1
    for _ in range(2):
        routed.router.answered(found.pick)
        assert len(routed.router.fleet.in_flight) == 0


def test_a_model_that_nobody_holds_is_refused() -> None:
    routed = Routed(a=busy(), b=idle())
    refusal = routed.ask("nobody")
    assert isinstance(refusal, Refusal)
    assert (refusal.status, "'nobody'" in refusal.reason) == (404, True)
    assert routed.sample("refused_total", status="404") == 1.0


def test_a_request_without_a_model_is_left_to_envoy() -> None:
    routed = Routed(a=busy(), b=idle())
    assert routed.ask("") == ()
    assert routed.ask("", infers=False) == ()
    assert routed.sample("left_to_envoy_total", reason="no model named") == 1.0
    assert routed.sample("left_to_envoy_total", reason="not an inference") == 1.0


def test_other_calls_about_a_model_go_where_it_is_and_count_as_no_request() -> None:
    routed = Routed(a=busy(), b=idle())
    routed.hold("b", "only_here")
    assert routed.ask("only_here", infers=False) == ("10.0.0.2:8000",)
    assert routed.ask("nobody", infers=False) == ()
    assert len(routed.router.fleet.in_flight) == 0


def test_a_model_that_no_device_has_goes_by_turns_to_servers_whose_triton_has_it() -> None:
    routed = Routed(a=busy(), b=idle())
    routed.hold("a", "an_ensemble")
    routed.hold("b", "an_ensemble")
    asked = [routed.ask("an_ensemble") for _ in range(4)]
    assert {found[0] for found in asked if not isinstance(found, Refusal)} == {"10.0.0.1:8000", "10.0.0.2:8000"}
    assert routed.sample("left_to_envoy_total", reason="not a model of Isochrone's") == 4.0
    refusal = routed.router.route(Asked(False, "an_ensemble", "7", infers=True))
    assert isinstance(refusal, Refusal)
    routed.router.probes["a"].is_live = False
    assert routed.ask("an_ensemble") == ("10.0.0.2:8000",)


def test_without_any_state_envoy_goes_on_by_itself() -> None:
    routed = Routed(a=busy(), b=idle())
    assert routed.router.is_ready()
    routed.now_ns += 1_001 * MS
    assert not routed.router.is_ready()
    assert routed.ask() == ()
    routed.hold("b", "m")
    assert routed.ask() == ("10.0.0.2:8000",)
    assert routed.sample("left_to_envoy_total", reason="nothing known") == 2.0


def test_a_server_that_does_not_answer_is_gone_although_its_devices_publish() -> None:
    routed = Routed(a=busy(), b=idle())
    routed.router.probes["b"].is_live = False
    routed.router._gone("b")
    routed.router._observe("b", snapshot_of([model_state("m")], sequence=2))
    assert routed.ask() == ("10.0.0.1:8000",)

    routed.router.probes["b"].is_live = True
    routed.router._observe("b", snapshot_of([model_state("m")], sequence=3))
    assert routed.ask() == ("10.0.0.2:8000", "10.0.0.1:8000")


def test_a_server_whose_connection_ended_is_gone_until_its_next_snapshot() -> None:
    routed = Routed(a=busy(), b=idle())
    routed.router._lost("b", "gpu-0")
    assert routed.ask() == ("10.0.0.1:8000",)
    routed.router._observe("b", idle())
    assert routed.ask() == ("10.0.0.2:8000", "10.0.0.1:8000")


def test_gauges_tell_which_servers_take_requests() -> None:
    routed = Routed(a=busy())
    routed.router.refresh()
    assert routed.sample("endpoint_up", endpoint="a") == 1.0
    assert routed.sample("endpoint_up", endpoint="b") == 0.0
