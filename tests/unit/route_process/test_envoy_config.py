"""Envoy's configuration; tests/server/test_route.py has a real Envoy read and follow it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from backend.errors import ConfigError
from backend.route_process.endpoints_file import Address, Server
from backend.route_process.envoy_config import Listening, envoy_config, write_envoy_config

A = Server("a", "10.0.0.1:8000", "10.0.0.1:8001", ("10.0.0.1:9100",))
B = Server("b", "10.0.0.2:8000", "10.0.0.2:8001", ("10.0.0.2:9100",))
NAMED = Server("c", "triton-0.triton:8000", "triton-0.triton:8001", ("triton-0.triton:9100",))


def config(*servers: Server) -> dict[str, Any]:
    return envoy_config(servers, Address("127.0.0.1", 9010), Listening("0.0.0.0", 80, 81, 9901))


def clusters(*servers: Server) -> dict[str, dict[str, Any]]:
    return {cluster["name"]: cluster for cluster in config(*servers)["static_resources"]["clusters"]}


def addresses(cluster: dict[str, Any]) -> list[str]:
    (locality,) = cluster["load_assignment"]["endpoints"]
    found = [one["endpoint"]["address"]["socket_address"] for one in locality["lb_endpoints"]]
    return [f"{one['address']}:{one['port_value']}" for one in found]


def test_http_and_grpc_go_to_ports_of_their_own() -> None:
    found = clusters(A, B)
    assert addresses(found["triton_http"]) == ["10.0.0.1:8000", "10.0.0.2:8000"]
    assert addresses(found["triton_grpc"]) == ["10.0.0.1:8001", "10.0.0.2:8001"]
    assert addresses(found["picker"]) == ["127.0.0.1:9010"]


def test_health_is_asked_over_http_for_both() -> None:
    for name in ("triton_http", "triton_grpc"):
        (locality,) = clusters(A)[name]["load_assignment"]["endpoints"]
        (endpoint,) = locality["lb_endpoints"]
        assert endpoint["endpoint"]["health_check_config"] == {"port_value": 8000}


def test_servers_with_names_are_looked_up_by_envoy() -> None:
    assert {name: one["type"] for name, one in clusters(A, NAMED).items()} == {
        "picker": "STATIC",
        "triton_http": "STRICT_DNS",
        "triton_grpc": "STRICT_DNS",
    }


def test_grpc_messages_are_described_with_all_that_they_import() -> None:
    (extraction,) = [
        one["typed_config"]
        for listener in config(A)["static_resources"]["listeners"]
        for one in listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        if one["name"].endswith("grpc_field_extraction")
    ]
    described = descriptor_pb2.FileDescriptorSet.FromString(
        base64.b64decode(extraction["descriptor_set"]["inline_bytes"])
    )
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)  # fails where an import is not there yet
    for method, wanted in extraction["extractions_by_method"].items():
        request = pool.FindMethodByName(method).input_type
        for path in wanted["request_field_extractions"]:
            field, message = None, request
            for name in path.split("."):
                field = message.fields_by_name[name]
                message = field.message_type
            assert field is not None
            assert field.message_type is None


def test_the_file_is_json_under_a_name_that_envoy_reads(tmp_path: Path) -> None:
    write_envoy_config(tmp_path / "envoy.yaml", config(A))
    assert json.loads((tmp_path / "envoy.yaml").read_text()) == config(A)
    with pytest.raises(ConfigError, match=r"envoy\.txt, but Envoy tells a format by its name"):
        write_envoy_config(tmp_path / "envoy.txt", config(A))
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        write_envoy_config(tmp_path / "none" / "envoy.json", config(A))
