"""`isochrone place`: which models should be on which server, as a list of moves; with `--apply` they are done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from backend.commands.json_file import write_result
from backend.errors import ServerError
from backend.fleet.placement import Move, Plan, PredictedFigures, place
from backend.fleet.snapshot import DeviceSnapshot
from backend.progress_bar import console
from backend.route_process.endpoints_file import Server, read_endpoints
from backend.route_process.figures_file import read_figures, write_figures
from backend.route_process.observed_demand import ObservedServer, demand, figures_of, read_demand
from backend.route_process.subscriptions import Observe, Subscription

_INDEX_S = 5.0
_LOAD_S = 600.0
"""As long as a load or an unload may take."""


@dataclass(frozen=True)
class PlaceOptions:
    """Options of the command. seconds: for which arrivals are counted; figures: file of what is known of machines."""

    endpoints: Path
    seconds: float
    demand: Path | None
    figures: Path | None
    gain: float
    apply: bool
    json: Path | None


def run_place(options: PlaceOptions) -> None:
    """Print the plan, and carry it out where that is asked. Raises ConfigError or ServerError."""
    servers = read_endpoints(options.endpoints)
    stated = read_demand(options.demand) if options.demand is not None else {}
    known = read_figures(options.figures)
    observed = _observe(servers, options.seconds)
    figures = figures_of(observed, known)
    if options.figures is not None:
        write_figures(options.figures, figures)
    spaces = [one.space() for one in observed]
    plan = place(demand(observed, options.seconds, stated, figures), spaces, options.gain)
    if options.json is not None:
        write_result(options.json, plan)
    out = console()
    out.print(_table(observed, plan))
    out.print(
        f"requests in the fleet, predicted mean: {plan.before:.2f} now, {plan.after:.2f} then; rates of the last "
        f"{options.seconds:g} s where none is stated",
        highlight=False,
    )
    for line in predicted_lines(plan.predicted, observed):
        out.print(line, highlight=False)
    for number, move in enumerate(plan.moves, 1):
        saves = f", saves {move.gain:.2f}" if move.gain else ""
        out.print(f"{number}. {move.action} {move.model} on {move.machine}{saves}", highlight=False)
    if not plan.moves:
        out.print("nothing to do", highlight=False)
    elif options.apply:
        _carry_out(plan.moves, {server.name: server for server in servers})
        out.print(f"{len(plan.moves)} moves are done", highlight=False)
    else:
        out.print("a dry run: --apply does it", highlight=False)


def predicted_lines(predicted: Sequence[PredictedFigures], observed: Sequence[ObservedServer]) -> list[str]:
    """A line per model and type of machine that the plan goes by without a measurement."""
    machines = {one.name: one.machine for one in observed}
    found = {(one.model, machines[one.machine]): one.what for one in predicted}
    return [
        f"predicted from other machines, not measured: {' and '.join(what)} of {model} on {machine}"
        for (model, machine), what in sorted(found.items())
    ]


def _observe(servers: Sequence[Server], seconds: float) -> list[ObservedServer]:
    """Follow all servers for a while. Raises ServerError where one is silent: a plan without it would empty it."""
    observed = {server.name: ObservedServer(server.name, _repository(server)) for server in servers}

    def observe(name: str, snapshot: DeviceSnapshot) -> None:
        observed[name].observe(snapshot)

    for subscription in asyncio.run(_follow(servers, seconds, observe)):
        if not observed[subscription.server.name].last:
            raise ServerError(
                f"endpoint '{subscription.server.name}' has published no state within {seconds:g} s, so nothing is "
                f"planned: {subscription.trouble}"
            )
    return list(observed.values())


async def _follow(servers: Sequence[Server], seconds: float, observe: Observe) -> list[Subscription]:
    subscriptions = [
        Subscription(server, state, len(servers), observe, lambda _name, _device: None)
        for server in servers
        for state in server.state
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run()) for one in subscriptions]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
    return subscriptions


def _repository(server: Server) -> set[str]:
    """Names of the models that a server could load. Raises ServerError."""
    with closing(triton.InferenceServerClient(server.grpc)) as client:
        try:
            found = client.get_model_repository_index(client_timeout=_INDEX_S)
        except InferenceServerException as error:
            raise ServerError(f"endpoint '{server.name}' does not say what models it has: {error.message()}") from None
    return {model.name for model in found.models}


def _carry_out(moves: Sequence[Move], servers: dict[str, Server]) -> None:
    """Do the moves in their order, over gRPC: loads over HTTP hold Triton's HTTP threads. Raises ServerError."""
    for number, move in enumerate(moves):
        with closing(triton.InferenceServerClient(servers[move.machine].grpc)) as client:
            act = client.load_model if move.action == "load" else client.unload_model
            try:
                act(move.model, client_timeout=_LOAD_S)
            except InferenceServerException as error:
                raise ServerError(
                    f"endpoint '{move.machine}' cannot {move.action} '{move.model}': {error.message()}; {number} of "
                    f"{len(moves)} moves are done, the others are not begun"
                ) from None


def _table(observed: Sequence[ObservedServer], plan: Plan) -> Table:
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("endpoint", "machine", "holds", "then"):
        shown.add_column(name)
    for one in observed:
        then = plan.holds[one.name]
        shown.add_row(one.name, one.machine, " ".join(sorted(one.models())), " ".join(then))
    return shown
