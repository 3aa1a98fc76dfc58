"""Messages whose numbers would make others that fit none are refused as they come in."""

from __future__ import annotations

import msgspec
import pytest

from backend.scheduler.messages import Arrive, Event, Finish, Request, decode_event, encode

MOST = 1 << 62


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (Arrive((Request(1, 1, MOST, None, 1),)), Arrive((Request(1, 1, MOST + 1, None, 1),))),
        (Arrive((Request(1, 1, -MOST, None, 1),)), Arrive((Request(1, 1, -MOST - 1, None, 1),))),
        (Arrive((Request(1, 1, 0, MOST, 1),)), Arrive((Request(1, 1, 0, MOST + 1, 1),))),
        (Finish(1, MOST), Finish(1, (1 << 64) - 1)),
        (Finish(1, None, h2d_ns=MOST), Finish(1, None, h2d_ns=MOST + 1)),
        (Finish(1, 1, d2h_bytes=MOST), Finish(1, 1, d2h_bytes=MOST + 1)),
    ],
)
def test_times_of_which_no_difference_fits_a_message_are_refused(within: Event, beyond: Event) -> None:
    assert decode_event(encode(within)) == within
    with pytest.raises(msgspec.ValidationError):
        decode_event(encode(beyond))
