"""A file of a run's records, from which a later run goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.chaos.campaign import Record


class RecordsError(ValueError):
    """A file that this run cannot go on from; the message is a sentence."""


class Records(msgspec.Struct):
    """Faults that were done in windows of `window_s` and held `hold` times as long as usual.

    rates_per_s: of the load, at each start of a server. left_out: kinds that could not be done, and why.
    """

    window_s: float
    hold: float
    records: list[Record] = []
    rates_per_s: list[float] = []
    left_out: list[str] = []

    def write(self, path: Path) -> None:
        """Replace the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(self))


def read_records(path: Path | None, window_s: float, hold: float) -> Records:
    """The records of that file, none where there is no file. Raises RecordsError."""
    fresh = Records(window_s, hold)
    if path is None or not path.exists():
        return fresh
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Records)
    except msgspec.DecodeError as error:
        raise RecordsError(f"'{path}' has no records of a run: {error}") from None
    if (found.window_s, found.hold) != (window_s, hold):
        raise RecordsError(
            f"'{path}' has faults of --window-s {found.window_s:g} --hold {found.hold:g}, "
            f"not of {window_s:g} and {hold:g}"
        )
    return found
