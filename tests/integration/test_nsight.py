"""Errors of a fake `ncu`, started as a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.nsight import NoCountersError, NsightError, count

LIBRARY = "==ERROR== An error was reported by the counter measurement library:\n"
APPLICATION = "==ERROR== The application returned an error code (1).\n"


@pytest.mark.parametrize(
    ("log", "status", "says", "of_all"),
    [
        (f"{LIBRARY}==ERROR== out of luck\n", 0, "`ncu` failed: out of luck", False),
        ("==ERROR== this\n==ERROR== and that\n", 1, "`ncu` failed: this and that", False),
        (APPLICATION, 1, "`ncu` failed: some.module failed with status 1: its own reason", False),
        (APPLICATION, 0, "`ncu` failed: The application returned an error code (1).", False),
        ("==ERROR== Failed to initialize the profiler: LibraryNotLoaded\n", 1, "`ncu` failed: Failed to ini", True),
        ("==ERROR== Profiling failed because a driver resource was unavailable.\n", 1, "`ncu` failed: Prof", True),
        ("==ERROR== ERR_NVGPUCTRPERM - no\n", 1, "the driver permits only administrators", True),
    ],
)
def test_the_reason_is_told_and_not_that_there_is_one(
    log: str, status: int, says: str, of_all: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ncu = tmp_path / "ncu"
    ncu.write_text(
        '#!/bin/sh\nwhile [ "$1" != --log-file ]; do shift; done\n'
        f"cat > \"$2\" <<'END'\n{log}END\n"
        f"echo its own reason >&2\nexit {status}\n"
    )
    ncu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(NsightError) as refused:
        count("some.module", ())
    assert str(refused.value).startswith(says)
    assert isinstance(refused.value, NoCountersError) == of_all
