"""raise_session_priority raises a process that leads a session of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.thread_priority import may_raise_priority

RAISE = (
    "from backend.linux.raised_priority import raise_session_priority\n"
    "print(raise_session_priority(), open('/proc/self/autogroup').read())"
)


def test_a_session_of_its_own_is_raised_as_a_whole() -> None:
    if not Path("/proc/self/autogroup").exists():
        pytest.skip("this kernel has no autogroups")
    command = [sys.executable, "-c", RAISE]
    printed = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("True") == may_raise_priority()
    assert ("nice -20" in printed) == may_raise_priority()
