"""What a GPU is and what slows it down, as a made-up driver tells it everywhere and a real one where there is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.device.facts import device_name, device_peaks, open_gpu
from backend.device.nvml import SLOWED_BY, Gpu
from backend.errors import ConfigError
from tests.fakes.driver import made_up_driver


@pytest.fixture(params=["fake", "real"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    if request.param == "fake":
        made_up_driver(monkeypatch)
    try:
        found = open_gpu(0)
    except ConfigError as error:
        pytest.skip(f"no GPU can be asked here: {error}")
    with found:
        yield found


def test_a_profile_names_the_gpu_its_memory_and_its_driver(gpu: Gpu) -> None:
    assert re.fullmatch(r"\S.+, \d+ MiB, driver \d+(\.\d+)+", device_name(0))
    assert device_name(0) == str(gpu.identity())


def test_its_peaks_follow_from_its_attributes(gpu: Gpu, tmp_path: Path) -> None:  # noqa: ARG001
    peaks = device_peaks(0, tmp_path)
    assert 1e11 < peaks.operations_per_s < 1e16
    assert 1e10 < peaks.dram_bytes_per_s < peaks.cache_bytes_per_s < 1e15


def test_what_slows_it_down_is_told_in_words(gpu: Gpu) -> None:
    told = gpu.slowed_by()
    assert told is not None
    assert set(told) <= set(SLOWED_BY.values())


def test_a_gpu_beyond_those_there_are(gpu: Gpu) -> None:  # noqa: ARG001
    with pytest.raises(ConfigError, match=r"^there is no GPU 1000: this process sees "):
        device_name(1000)
