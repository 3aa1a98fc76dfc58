"""Free TCP ports."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from backend.errors import ConfigError


def is_free(host: str, port: int) -> bool:
    """True where a server could listen there now. Raises ConfigError where this machine has no such address."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host {host} is not an address of this machine ({error.strerror})") from error
    except UnicodeError as error:
        raise ConfigError(f"--host {host} cannot be a name: between dots it has 1 to 63 characters") from error
    with socket.socket(family, kind, proto) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT does not hinder a server
        try:
            probe.bind(address)
        except PermissionError as error:
            raise ConfigError(f"port {port} needs privileges that this user has not; choose one above 1023") from error
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigError(f"--host {host} is not an address of this machine") from error
            return False
    return True


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Distinct ports, free at this moment; another process may take one before a server does."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
