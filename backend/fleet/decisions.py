"""A router's request and its answers: where to send it, or why nowhere."""

from __future__ import annotations

from typing import NamedTuple


class RouteRequest(NamedTuple):
    """A request as the router sees it. version: "" for any; rows: of its batch dimension, as far as known; priority: 1
    is the highest class; deadline_ns: on the router's clock, None without one.
    """

    model: str
    version: str = ""
    rows: int = 1
    priority: int = 1
    deadline_ns: int | None = None


class Picked(NamedTuple):
    """Names of endpoints, the best first, and when each is predicted to have answered.

    number: by which `Fleet.answered` knows it again; in flight at the first endpoint until then.
    """

    number: int
    endpoints: tuple[str, ...]
    predicted_finish_ns: tuple[int, ...]


class Shed(NamedTuple):
    """No endpoint takes the request: a sentence for the client, and the HTTP status to answer with."""

    reason: str
    status: int


NOT_FOUND, UNAVAILABLE = 404, 503
