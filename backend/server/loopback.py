"""Asks a process that answers HTTP on loopback."""

from __future__ import annotations

import http.client

HOST = "127.0.0.1"


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of a response; status 0 without one."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5.0)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
