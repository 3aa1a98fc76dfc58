"""Parameters of an inference request, as Triton hands them over: a JSON object of texts, numbers and booleans."""

from __future__ import annotations

import msgspec

from backend.config.parameters import Parameters
from backend.errors import RequestError
from backend.model_process.request import Arrival, read_due
from backend.scheduler.messages import Arrive, Request, decode_event, encode

FORMAT = "json"
_decode = msgspec.json.Decoder(dict[str, str | int | float | bool]).decode
_ARRIVAL = Arrival(10**15, 17 * 10**17)


def check(data: bytes) -> None:
    """A deadline and a class that the scheduler understands, or `RequestError` of bounded length."""
    try:
        given = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if any(isinstance(value, int) and not -(2**63) <= value < 2**64 for value in given.values()):
        return
    for timeout_us in (0, 2**64 - 1):
        try:
            due = read_due(given, timeout_us, Parameters(slo_ns=10**9), _ARRIVAL)
        except RequestError as error:
            assert 0 < len(str(error)) < 400, error
            continue
        event = Arrive((Request(1, 1, _ARRIVAL.monotonic_ns, due.deadline_ns, due.priority),))
        assert decode_event(encode(event)) == event
