"""Address and token of a device's published state, from the environment."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from dataclasses import dataclass, field

from backend.errors import ConfigError

VARIABLE, TOKEN_VARIABLE = "ISOCHRONE_STATE_ADDRESS", "ISOCHRONE_STATE_TOKEN"
_PORT_MAX = 65535


@dataclass(frozen=True)
class StateAddress:
    """token: what a subscriber has to send; empty: none."""

    host: str
    port: int
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def admits(self, token: str) -> bool:
        """True for the right token, in a time that does not tell how much of it was right."""
        return not self.token or hmac.compare_digest(_bytes_of(token), _bytes_of(self.token))


def state_address_of_environment(device: str) -> StateAddress | None:
    """The address of this device; None where nothing is to be published. Raises ConfigError."""
    named, token = os.environ.get(VARIABLE), os.environ.get(TOKEN_VARIABLE, "")
    return state_address(named, token, device) if named else None


def state_address(named: str, token: str, device: str) -> StateAddress:
    """HOST:PORT with the device's ordinal added to the port. Raises ConfigError where it cannot be used."""
    host, first_port = host_and_port(named, VARIABLE)
    port = first_port + ordinal_of(device)
    if port > _PORT_MAX:
        raise ConfigError(
            f"{VARIABLE} is '{named}', whose port for device '{device}' would be {port}; it must be {_PORT_MAX} at most"
        )
    if not token and not _is_loopback(host):
        raise ConfigError(
            f"{VARIABLE} is '{named}', which others than this machine may reach, but {TOKEN_VARIABLE} is not set; "
            "set it, or publish on 127.0.0.1"
        )
    return StateAddress(host, port, token)


def host_and_port(named: str, name: str) -> tuple[str, int]:
    """Read HOST:PORT. name: of the option or variable. Raises ConfigError where it is something else."""
    found = re.fullmatch(r"(?:\[([^][]+)\]|([^:\s]+)):(\d{1,5})", named.strip())
    if found is None or not 1 <= int(found[3]) <= _PORT_MAX:
        raise ConfigError(f"{name} is '{named}', but must be HOST:PORT, such as 127.0.0.1:8003 or [::1]:8003")
    return found[1] or found[2], int(found[3])


def ordinal_of(device: str) -> int:
    """The number at the end of a device's name ("gpu-1"), 0 without."""
    found = re.search(r"-(\d{1,5})$", device)
    return int(found[1]) if found else 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bytes_of(token: str) -> bytes:
    return token.encode(errors="surrogateescape")  # the environment may hold any bytes
