"""Lines between a device's published state and its subscribers, both ways."""

from __future__ import annotations

from backend.fleet.snapshot import MAX_LINE_BYTES, decode, decode_hello, encode

FORMAT = "json"


def check(data: bytes) -> None:
    """A message that can be sent again, or `ValueError`; what is told of a subscriber's has no token in it."""
    for read in (decode, decode_hello):
        try:
            message = read(data)
        except ValueError as error:
            assert str(error)
            assert "s3cret" not in str(error)
        else:
            assert len(encode(message)) <= MAX_LINE_BYTES
