"""Envoy's configuration for a file of endpoints: two listeners, HTTP and gRPC, that ask one picker.

Fields are those of Envoy's API v3. Envoy follows the picker's metadata (proposal 004 of the Gateway API Inference
Extension: a list of addresses, the next one for each retry), and by itself balances by least request where there is
none: the picker does not answer, or has nothing to say.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

from backend.errors import ConfigError
from backend.route_process.answers import PICK_KEY, PICK_METADATA
from backend.route_process.endpoints_file import Address, Server
from backend.route_process.model_name import EXTRACTED, HEADERS, MODEL_HEADER, SERVICE

DESTINATION = "x-gateway-destination-endpoint"
"""Header, and key in the metadata `envoy.lb`, with the picked addresses."""
DESTINATION_METADATA = "envoy.lb"
EXTRACTION = "envoy.filters.http.grpc_field_extraction"
"""Filter, and the metadata that it leaves what it found in."""
MESSAGE_BYTES_MAX = 64 << 20
"""Of a gRPC message whose model Envoy is to find: it holds the message until it has all of it."""

RETRIED_BYTES_MAX = 1 << 20
"""Of a body that Envoy keeps for another attempt; a larger one has only one."""

_PICKER, _HTTP, _GRPC = "picker", "triton_http", "triton_grpc"
_TYPES = "type.googleapis.com/envoy"
_ANSWER_S = 0.2
"""As long as a request waits for the picker."""
_CHECK_S, _CHECK_TIMEOUT_S = 0.5, 1.0
"""Together less than two seconds, in which a server that is gone has to be left out."""
_FLUSH_S = 0.01
"""Between two messages to the router of what was answered."""
_RETRIES = 2
_NO_LIMIT = 1_000_000
"""Of what may be under way: Triton and its models have their own bounds."""


class Listening(NamedTuple):
    """Places where Envoy listens. admin_port: of its statistics, on loopback; None: none."""

    host: str
    http_port: int
    grpc_port: int
    admin_port: int | None = None


def envoy_config(servers: Sequence[Server], picker: Address, listening: Listening) -> dict[str, Any]:
    """Configure a whole Envoy. picker: where `isochrone route` answers."""
    config: dict[str, Any] = {
        "static_resources": {
            "listeners": [_listener("http", listening), _listener("grpc", listening)],
            "clusters": [
                _picker_cluster(picker),
                _cluster(_HTTP, servers, Server.http_address, http2=False),
                _cluster(_GRPC, servers, Server.grpc_address, http2=True),
            ],
        }
    }
    if listening.admin_port is not None:
        config["admin"] = {"address": _address(Address("127.0.0.1", listening.admin_port))}
    return config


def write_envoy_config(file: Path, config: dict[str, Any]) -> None:
    """Write it as JSON, which Envoy reads under a name on .json or .yaml. Raises ConfigError."""
    if file.suffix not in (".json", ".yaml"):
        raise ConfigError(f"--write-envoy-config is {file}, but Envoy tells a format by its name: *.json or *.yaml")
    try:
        file.write_text(json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"--write-envoy-config {file} cannot be written: {error.strerror}") from None


def _listener(kind: str, listening: Listening) -> dict[str, Any]:
    is_grpc = kind == "grpc"
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": kind,
        "codec_type": "AUTO",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": "0s",  # an answer may take as long as Triton takes
        "route_config": {
            "name": kind,
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": _grpc_routes() if is_grpc else [_route(_HTTP)]}
            ],
        },
        "access_log": [_answers()],
        "http_filters": [*([_extraction()] if is_grpc else []), _picking(), _routing()],
    }
    port = listening.grpc_port if is_grpc else listening.http_port
    return {
        "name": kind,
        "address": _address(Address(listening.host, port)),
        "per_connection_buffer_limit_bytes": MESSAGE_BYTES_MAX,
        "filter_chains": [{"filters": [_named("envoy.filters.network.http_connection_manager", manager)]}],
    }


def _grpc_routes() -> list[dict[str, Any]]:
    """Hold no message where the client names the model itself."""
    disabled = {"@type": f"{_TYPES}.config.route.v3.FilterConfig", "disabled": True}
    named = _route(_GRPC) | {"typed_per_filter_config": {EXTRACTION: disabled}}
    named["match"] = named["match"] | {"headers": [{"name": MODEL_HEADER, "present_match": True}]}
    return [named, _route(_GRPC)]


def _route(cluster: str) -> dict[str, Any]:
    """Retry only what no server has seen: on the next picked address, then by least request."""
    retry = {"retry_on": "connect-failure,refused-stream", "num_retries": _RETRIES}
    return {
        "match": {"prefix": "/"},
        "route": {"cluster": cluster, "timeout": "0s", "retry_policy": retry},
        "request_body_buffer_limit": RETRIED_BYTES_MAX,
    }


def _extraction() -> dict[str, Any]:
    """Read the model's name and version, and of a request of inference its rows."""
    return _named(
        EXTRACTION,
        {
            "@type": f"{_TYPES}.extensions.filters.http.grpc_field_extraction.v3.GrpcFieldExtractionConfig",
            "descriptor_set": {"inline_bytes": base64.b64encode(_descriptors()).decode()},
            "extractions_by_method": {
                f"{SERVICE}.{method}": {"request_field_extractions": {field: {} for field in fields}}
                for method, fields in EXTRACTED.items()
            },
        },
    )


def _descriptors() -> bytes:
    """Describe Triton's gRPC service, imports first."""
    described = descriptor_pb2.FileDescriptorSet()
    pending = [service_pb2.DESCRIPTOR]
    files = []
    while pending:
        file = pending.pop()
        files.append(file)
        pending.extend(file.dependencies)
    for file in dict.fromkeys(reversed(files)):
        file.CopyToProto(described.file.add())
    data: bytes = described.SerializeToString(deterministic=True)
    return data


def _picking() -> dict[str, Any]:
    return _named(
        "envoy.filters.http.ext_proc",
        {
            "@type": f"{_TYPES}.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": _PICKER}, "timeout": f"{_ANSWER_S}s"},
            "message_timeout": f"{_ANSWER_S}s",
            "failure_mode_allow": True,
            "processing_mode": {
                "request_header_mode": "SEND",
                "response_header_mode": "SKIP",
                "request_body_mode": "NONE",
                "response_body_mode": "NONE",
                "request_trailer_mode": "SKIP",
                "response_trailer_mode": "SKIP",
            },
            "forward_rules": {
                "allowed_headers": {"patterns": [{"exact": name} for name in (":path", "content-type", *HEADERS)]}
            },
            "metadata_options": {
                "forwarding_namespaces": {"untyped": [EXTRACTION]},
                "receiving_namespaces": {"untyped": [DESTINATION_METADATA, PICK_METADATA]},
            },
        },
    )


def _answers() -> dict[str, Any]:
    """Tell the router of each request that it picked for once that has its answer."""
    common = {
        "log_name": "isochrone",
        "grpc_service": {"envoy_grpc": {"cluster_name": _PICKER}},
        "transport_api_version": "V3",
        "buffer_flush_interval": f"{_FLUSH_S}s",
    }
    picked = {"filter": PICK_METADATA, "path": [{"key": PICK_KEY}], "value": {"present_match": True}}
    config = {"@type": f"{_TYPES}.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig", "common_config": common}
    only_picked = {"metadata_filter": {"matcher": picked, "match_if_key_not_found": False}}
    return _named("envoy.access_loggers.http_grpc", config) | {"filter": only_picked}


def _routing() -> dict[str, Any]:
    config = {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    return _named("envoy.filters.http.router", config)


def _cluster(
    name: str, servers: Sequence[Server], address_of: Callable[[Server], Address], *, http2: bool
) -> dict[str, Any]:
    """All servers at one of their ports. Their health is asked on the HTTP port for both.

    /v2/health/live and not ready: a server is not ready while any model loads there, and serves the others meanwhile.
    5xx are no reason to leave a server out: it says so to requests that would miss their deadlines.
    """
    override = {
        "@type": f"{_TYPES}.extensions.load_balancing_policies.override_host.v3.OverrideHost",
        # Not the header, which a client could set.
        "override_host_sources": [{"metadata": {"key": DESTINATION_METADATA, "path": [{"key": DESTINATION}]}}],
        "fallback_policy": _policy(
            "least_request", {"@type": f"{_TYPES}.extensions.load_balancing_policies.least_request.v3.LeastRequest"}
        ),
    }
    check = {"path": "/v2/health/live", "codec_client_type": "HTTP1"}
    endpoints = [
        {
            "endpoint": {
                "address": _address(address_of(server)),
                "health_check_config": {"port_value": server.http_address().port},
            }
        }
        for server in servers
    ]
    return _resolved(name, [address_of(server) for server in servers]) | {
        "connect_timeout": "1s",
        "load_balancing_policy": _policy("override_host", override),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        # With nobody healthy, each is tried.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1.0}},
        "health_checks": [_checks() | {"http_health_check": check}],
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "max_ejection_percent": 100,
            "base_ejection_time": "1s",
            "interval": "0.5s",
        },
        "circuit_breakers": _unlimited(),
        **(_speaking_http2() if http2 else {}),
    }


def _picker_cluster(picker: Address) -> dict[str, Any]:
    """With the picker unhealthy no request waits for it: without a threshold of panic none is sent there."""
    endpoint = {"endpoint": {"address": _address(picker)}}
    return _resolved(_PICKER, [picker]) | {
        "connect_timeout": f"{_ANSWER_S}s",
        "load_assignment": {"cluster_name": _PICKER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0.0}},
        "health_checks": [_checks() | {"grpc_health_check": {}}],
        "circuit_breakers": _unlimited(),
        **_speaking_http2(),
    }


def _checks() -> dict[str, Any]:
    intervals = ("interval", "no_traffic_interval")  # the latter is a minute otherwise
    return {
        **dict.fromkeys(intervals, f"{_CHECK_S}s"),
        "timeout": f"{_CHECK_TIMEOUT_S:g}s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
    }


def _resolved(name: str, addresses: Iterable[Address]) -> dict[str, Any]:
    if all(address.is_numeric for address in addresses):
        return {"name": name, "type": "STATIC"}
    return {"name": name, "type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED", "dns_refresh_rate": "2s"}


def _unlimited() -> dict[str, Any]:
    kinds = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"thresholds": [dict.fromkeys(kinds, _NO_LIMIT)]}


def _speaking_http2() -> dict[str, Any]:
    options = {
        "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}


def _policy(name: str, config: dict[str, Any]) -> dict[str, Any]:
    extension = _named(f"envoy.load_balancing_policies.{name}", config)
    return {"policies": [{"typed_extension_config": extension}]}


def _named(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config}


def _address(address: Address) -> dict[str, Any]:
    return {"socket_address": {"address": address.host, "port_value": address.port}}
