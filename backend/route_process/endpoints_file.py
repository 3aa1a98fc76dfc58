"""The file that `--endpoints` names: which servers there are, where they answer, and where they publish their state."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from backend.errors import ConfigError

ENDPOINTS_MAX = 1000
_STATES_MAX = 64
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Address(msgspec.Struct, frozen=True):
    """A host, by name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_numeric(self) -> bool:
        """True where the host is an IP address."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One server. state: an address per device, of `isochrone serve --state-port` or `ISOCHRONE_STATE_ADDRESS`.

    token_env, token_file: where its `ISOCHRONE_STATE_TOKEN` is to be had, if it has one.
    """

    name: str
    http: str
    grpc: str
    state: tuple[str, ...]
    token_env: str | None = None
    token_file: str | None = None

    def http_address(self) -> Address:
        """Address of Triton's HTTP."""
        return parse_address(self.http)

    def grpc_address(self) -> Address:
        """Address of Triton's gRPC."""
        return parse_address(self.grpc)

    def token(self, environment: Mapping[str, str] = os.environ) -> str:
        """Read the token anew, so that it may change; "" where there is none. Raises ConfigError."""
        if self.token_env is not None:
            if self.token_env not in environment:
                raise ConfigError(f"endpoint '{self.name}': its token is to be in {self.token_env}, which is not set")
            return environment[self.token_env].strip()
        if self.token_file is not None:
            try:
                return Path(self.token_file).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                raise ConfigError(
                    f"endpoint '{self.name}': its token_file '{self.token_file}' cannot be read: {why}"
                ) from None
        return ""


class EndpointsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All servers among which requests are routed."""

    endpoints: tuple[Server, ...]


def read_endpoints(path: Path) -> tuple[Server, ...]:
    """Read JSON or, in a file called *.toml, TOML. Raises ConfigError, a sentence that names the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--endpoints {path} cannot be read: {error.strerror}") from None
    decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode
    try:
        servers = decode(data, type=EndpointsFile).endpoints
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"--endpoints {path}: {error}") from None
    for complaint in _complaints(servers):
        raise ConfigError(f"--endpoints {path}: {complaint}")
    return servers


def parse_address(text: str) -> Address:
    """Parse HOST:PORT or [IPV6]:PORT. Raises ValueError, words that go on from "is …"."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r}, but must be HOST:PORT, an IPv6 address in brackets")
    port = int(found["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"{text!r}, but a port must be 1 to 65535")
    address = Address(found["v6"] or found["host"], port)
    if found["v6"] and not address.is_numeric:
        raise ValueError(f"{text!r}, but what is in brackets must be an IPv6 address")
    return address


def _complaints(servers: tuple[Server, ...]) -> Iterator[str]:
    """Tell what is wrong, a sentence each."""
    if not 1 <= len(servers) <= ENDPOINTS_MAX:
        yield f"it has {len(servers)} endpoints, but must have 1 to {ENDPOINTS_MAX}"
    for name, count in Counter(server.name for server in servers).items():
        if count > 1:
            yield f"{count} endpoints are called '{name}'; names must differ"
    for server in servers:
        yield from (f"endpoint '{server.name}': {words}" for words in _complaints_of(server))
    for kind in ("http", "grpc", "state"):
        used: Counter[str] = Counter()
        for server in servers:
            used.update(server.state if kind == "state" else [getattr(server, kind)])
        for address, count in used.items():
            if count > 1:
                yield f"{kind} address {address} is given {count} times; each may be given once"


def _complaints_of(server: Server) -> Iterator[str]:
    if not _NAME.fullmatch(server.name):
        yield "its name must be 1 to 128 letters, digits, dots, dashes or underscores"
    if not 1 <= len(server.state) <= _STATES_MAX:
        yield f"it has {len(server.state)} state addresses, but must have 1 to {_STATES_MAX}, one per device"
    if server.token_env is not None and server.token_file is not None:
        yield "it has both token_env and token_file; one of them must go"
    for field, text in (("http", server.http), ("grpc", server.grpc), *(("state", text) for text in server.state)):
        try:
            parse_address(text)
        except ValueError as error:
            yield f"{field} is {error}"
    if server.http == server.grpc:
        yield f"http and grpc are both {server.http}; Triton answers them on ports of their own"
