"""The process of `isochrone route`: the picker's port, the status port, and the end by a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from backend.errors import ConfigError
from backend.route_process.answers import Answers
from backend.route_process.endpoints_file import Address, Server
from backend.route_process.picker import Picker
from backend.route_process.router import Router
from backend.route_process.router_metrics import RouterMetrics, StatusServer
from backend.route_process.subscriptions import say

_GRACE_S = 1.0
"""For calls under way when the router ends; Envoy serves on without it."""


class RoutePorts(NamedTuple):
    """Places where the router answers: Envoy's calls, and metrics and health."""

    picker: Address
    status: Address


def run_router(servers: Sequence[Server], ports: RoutePorts) -> None:
    """Route until SIGINT or SIGTERM. Raises ConfigError where a port cannot be had."""
    asyncio.run(_run(servers, ports))


async def _run(servers: Sequence[Server], ports: RoutePorts) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, end.set)
    metrics = RouterMetrics()
    router = Router(servers, metrics)
    server = await _serve((Picker(router.route, router.failed), Answers(router.answered)), ports.picker)
    try:
        status = StatusServer(ports.status.host, ports.status.port, metrics, router.refresh, router.is_ready)
    except OSError as error:
        await server.stop(None)
        raise ConfigError(f"the status port {ports.status} cannot be had: {error.strerror}") from None
    status.start()
    say(f"picks for {len(servers)} endpoints at {ports.picker}; metrics and health at {ports.status}")
    informed = loop.create_task(router.run())
    ended = loop.create_task(end.wait())
    try:
        await asyncio.wait((informed, ended), return_when=asyncio.FIRST_COMPLETED)
        if informed.done():
            informed.result()  # an error of ours
    finally:
        for task in (informed, ended):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await server.stop(_GRACE_S)
        status.stop()


async def _serve(handlers: Sequence[grpc.GenericRpcHandler], address: Address) -> Any:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers(tuple(handlers))
    checks = health.aio.HealthServicer()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    try:
        server.add_insecure_port(str(address))
        await server.start()
    except RuntimeError:
        raise ConfigError(f"the picker's port {address} cannot be had; is another program listening there?") from None
    return server
