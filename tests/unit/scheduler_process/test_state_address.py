"""Where a device's state is published, and to whom."""

from __future__ import annotations

import pytest

from backend.errors import ConfigError
from backend.scheduler_process.state_address import (
    TOKEN_VARIABLE,
    VARIABLE,
    StateAddress,
    ordinal_of,
    state_address,
    state_address_of_environment,
)


@pytest.mark.parametrize(
    ("device", "ordinal"),
    [("cpu", 0), ("gpu-0", 0), ("gpu-13", 13), ("emulated-a100-0", 0), ("emulated-a100-2", 2), ("emulated-a100", 0)],
)
def test_the_ordinal_is_the_number_at_the_end_of_a_devices_name(device: str, ordinal: int) -> None:
    assert ordinal_of(device) == ordinal


@pytest.mark.parametrize(
    ("named", "shown"),
    [("127.0.0.1:8003", "127.0.0.1:8005"), ("[::1]:8003", "[::1]:8005"), (" localhost:1 ", "localhost:3")],
)
def test_each_device_has_a_port_of_its_own(named: str, shown: str) -> None:
    assert str(state_address(named, "", "gpu-2")) == shown


@pytest.mark.parametrize(
    "named", ["8003", "127.0.0.1", "127.0.0.1:", "::1:80", "a b:80", ":80", "a:0", "a:65536", "a:x"]
)
def test_what_is_no_address_is_refused_with_a_sentence(named: str) -> None:
    with pytest.raises(ConfigError, match=r"ISOCHRONE_STATE_ADDRESS is .* but must be HOST:PORT"):
        state_address(named, "secret", "cpu")


def test_a_port_beyond_the_last_is_refused() -> None:
    with pytest.raises(ConfigError, match="would be 65536"):
        state_address("127.0.0.1:65535", "", "gpu-1")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "[::]", "node-7", "example.org"])
def test_beyond_loopback_a_token_is_required(host: str) -> None:
    with pytest.raises(ConfigError, match=TOKEN_VARIABLE):
        state_address(f"{host}:8003", "", "cpu")
    assert state_address(f"{host}:8003", "secret", "cpu").token == "secret"


def test_only_the_right_token_is_admitted() -> None:
    address = StateAddress("127.0.0.1", 1, "secret")
    assert address.admits("secret")
    assert not any(address.admits(token) for token in ("", "secre", "secret ", "Secret", "s\u00e9cret"))
    assert StateAddress("127.0.0.1", 1).admits("whatever")
    assert "secret" not in f"{address} {address!r}"


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert state_address_of_environment("cpu") is None
    monkeypatch.setenv(VARIABLE, "0.0.0.0:8003")
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert state_address_of_environment("gpu-1") == StateAddress("0.0.0.0", 8004, "secret")
