"""Real schedulers in a runtime folder of the module's own, none of which outlives it; and the audit of pure ones."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend import device_process
from backend.runtime_dir import VARIABLE
from tests.fakes.devices import audit
from tests.fakes.fake_model import FakeModel


def pytest_configure() -> None:
    """Tests interrupt themselves; a shell that starts them in the background has switched that off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def runtime_dir() -> Iterator[Path]:
    """Short enough for a socket's path; at the end every scheduler that was started from here is gone."""
    with tempfile.TemporaryDirectory(prefix="iso-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, folder)
        yield Path(folder)
        for process in device_process._started:
            process.kill()
            process.wait()
        device_process._started.clear()


@pytest.fixture
def model() -> Iterator[FakeModel]:
    """For modules that use `runtime_dir`."""
    with FakeModel() as made:
        yield made


@pytest.fixture
def audited() -> Iterator[None]:
    """The schedulers of the test's devices are sound when it ends."""
    yield
    audit()
