"""Connections that are cut, and sockets that are flooded."""

from __future__ import annotations

from functools import partial

from backend.server.loopback import HOST
from tests.chaos.account import Allowance
from tests.chaos.faults.fault import Fault, Undo, nothing_to_undo
from tests.chaos.sockets import Flood, cut, is_packet, is_tcp
from tests.chaos.stage import Stage

_SCHEDULER_MOST, _ENGINE_MOST, _STATE_MOST = 900, 200, 400
ROUTE = frozenset({"route"})
LOST = Allowance(
    "a connection that is cut takes the calls on it along, as gRPC says to the client",
    "server/test_chaos.py::test_every_kind_of_fault_costs_no_request_more_than_is_documented",
    r"UNAVAILABLE\].*([Ss]ocket closed|[Cc]onnection reset|upstream connect error|[Ss]tream removed|recvmsg|GOAWAY)",
)


def cut_packets(role: str, stage: Stage) -> Undo:
    """Cut all connections of a process with the models' processes."""
    assert cut(stage.pid(role), is_packet), f"{role} has no connections"
    return nothing_to_undo


def cut_tcp(role: str, stage: Stage) -> Undo:
    """Cut all TCP connections of a process."""
    assert cut(stage.pid(role), is_tcp), f"{role} has no connections"
    return nothing_to_undo


def flood(name: str, connections_max: int, stage: Stage) -> Undo:
    """Send garbage over hundreds of connections to a socket of the runtime folder."""
    return Flood(str(stage.runtime_dir / name), connections_max).stop


def flood_state(stage: Stage) -> Undo:
    """The same to the published state."""
    return Flood((HOST, stage.state_port), _STATE_MOST).stop


FAULTS = (
    Fault("cut the scheduler's connections", partial(cut_packets, "scheduler")),
    Fault("cut the engine process's connections", partial(cut_packets, "engine")),
    Fault("cut the state's connections", partial(cut_tcp, "scheduler")),
    Fault("cut the clients' connections", partial(cut_tcp, "server"), allowances=(LOST,)),
    Fault("cut the router's connections", partial(cut_tcp, "router"), needs=ROUTE),
    Fault("flood the scheduler", partial(flood, "cpu.sock", _SCHEDULER_MOST), 3.0),
    Fault("flood the engine process", partial(flood, "cpu-engines.sock", _ENGINE_MOST), 2.0),
    Fault("flood the published state", flood_state, 2.0),
)
