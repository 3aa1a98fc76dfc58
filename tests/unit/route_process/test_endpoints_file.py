"""The file of endpoints: what it says, and a sentence for all that it must not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.errors import ConfigError
from backend.route_process.endpoints_file import Address, Server, parse_address, read_endpoints

ONE: dict[str, Any] = {"name": "a", "http": "10.0.0.1:8000", "grpc": "10.0.0.1:8001", "state": ["10.0.0.1:9100"]}
TOML = """
[[endpoints]]
name = "a"
http = "10.0.0.1:8000"
grpc = "10.0.0.1:8001"
state = ["10.0.0.1:9100", "10.0.0.1:9101"]
token_env = "TOKEN"
"""


def read(tmp_path: Path, *endpoints: dict[str, Any]) -> tuple[Server, ...]:
    file = tmp_path / "endpoints.json"
    file.write_text(json.dumps({"endpoints": endpoints}))
    return read_endpoints(file)


def test_json_and_toml_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.toml"
    file.write_text(TOML)
    (server,) = read_endpoints(file)
    assert server == read(tmp_path, ONE | {"state": ["10.0.0.1:9100", "10.0.0.1:9101"], "token_env": "TOKEN"})[0]
    assert server.grpc_address() == Address("10.0.0.1", 8001)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "a b"}, "endpoint 'a b': its name must be"),
        ({"http": "10.0.0.1"}, "endpoint 'a': http is '10.0.0.1', but must be HOST:PORT"),
        ({"grpc": "10.0.0.1:0"}, "grpc is '10.0.0.1:0', but a port must be 1 to 65535"),
        ({"grpc": "10.0.0.1:99999"}, "a port must be 1 to 65535"),
        ({"grpc": "[fe]:1"}, "in brackets must be an IPv6 address"),
        ({"grpc": "10.0.0.1:8000"}, "http and grpc are both 10.0.0.1:8000"),
        ({"state": []}, "it has 0 state addresses, but must have 1 to 64"),
        ({"state": ["http://10.0.0.1:9100"]}, "state is 'http://10.0.0.1:9100', but must be HOST:PORT"),
        ({"state": ["h:1", "h:1"]}, "state address h:1 is given 2 times"),
        ({"token_env": "A", "token_file": "B"}, "both token_env and token_file"),
        ({"weight": 3}, "unknown field `weight`"),
        ({"name": 7}, "Expected `str`, got `int`"),
    ],
)
def test_what_an_endpoint_must_not_say_is_told(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as told:
        read(tmp_path, ONE | change)
    assert str(told.value).startswith(f"--endpoints {tmp_path}/endpoints.json: ")
    assert sentence in str(told.value)


def test_endpoints_must_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 endpoints are called 'a'"):
        read(tmp_path, ONE, ONE)
    with pytest.raises(ConfigError, match=r"http address 10.0.0.1:8000 is given 2 times"):
        read(tmp_path, ONE, ONE | {"name": "b"})
    with pytest.raises(ConfigError, match="it has 0 endpoints"):
        read(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_endpoints(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json: Input data was truncated"):
        read_endpoints(tmp_path / "bad.json")
    (tmp_path / "bad.toml").write_text("[")
    with pytest.raises(ConfigError, match=r"bad\.toml: "):
        read_endpoints(tmp_path / "bad.toml")


def test_an_ipv6_address_has_brackets() -> None:
    address = parse_address("[::1]:8000")
    assert (address, str(address), address.is_numeric) == (Address("::1", 8000), "[::1]:8000", True)
    assert not parse_address("triton-0.triton:8000").is_numeric


def test_a_token_is_read_when_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    (server,) = read(tmp_path, ONE | {"token_file": str(file)})
    assert server.token() == "secret"
    file.write_text("another\n")
    assert server.token() == "another"
    file.unlink()
    with pytest.raises(ConfigError, match=r"endpoint 'a': its token_file .* cannot be read: No such file"):
        server.token()


def test_a_token_may_be_in_a_variable(tmp_path: Path) -> None:
    (server,) = read(tmp_path, ONE | {"token_env": "A_TOKEN"})
    assert server.token({"A_TOKEN": "secret"}) == "secret"
    with pytest.raises(ConfigError, match="endpoint 'a': its token is to be in A_TOKEN, which is not set"):
        server.token({})
    assert read(tmp_path, ONE)[0].token() == ""
