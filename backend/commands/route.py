"""`isochrone route`: the endpoint picker of Envoy, or the configuration of an Envoy that asks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.route_process.endpoints_file import Address, read_endpoints
from backend.route_process.envoy_config import Listening, envoy_config, write_envoy_config
from backend.route_process.process import RoutePorts, run_router


@dataclass(frozen=True)
class RouteOptions:
    """Options of the command; envoy: where the Envoy that is configured listens."""

    endpoints: Path
    host: str
    port: int
    status_port: int
    write_envoy_config: Path | None
    envoy: Listening


def run_route(options: RouteOptions) -> None:
    """Route until a signal ends it; or write Envoy's configuration. Raises ConfigError."""
    servers = read_endpoints(options.endpoints)
    if options.write_envoy_config is None:
        ports = RoutePorts(Address(options.host, options.port), Address(options.host, options.status_port))
        run_router(servers, ports)
    else:
        picker = Address(_reachable(options.host), options.port)
        write_envoy_config(options.write_envoy_config, envoy_config(servers, picker, options.envoy))
        print(f"isochrone: {options.write_envoy_config} is for: envoy --config-path {options.write_envoy_config}")


def _reachable(host: str) -> str:
    """Address at which something that listens on `host` is found."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
