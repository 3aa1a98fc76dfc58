"""profile.json beside a model."""

from __future__ import annotations

from profiler.profile_file import ProfileFileError, read_profile
from tests.fuzz.files import file_of

FORMAT = "json"


def check(data: bytes) -> None:
    """Loads at any batch size, or `ProfileFileError`."""
    try:
        found = read_profile(file_of("profile.json", data))
    except ProfileFileError as error:
        assert str(error)
        return
    assert found is not None
    for p95 in (False, True):
        profile = found.profile(p95=p95)
        for rows in (1, 3, 1000):
            assert profile.at(rows).solo_ns > 0
