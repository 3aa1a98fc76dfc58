"""`profile.json`: what is refused, with which words, and whose times are used at load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler.profile_file import ProfileFileError, ProfileIdentity, mismatch, read_profile, write_profile

HERE = ProfileIdentity("cpu", "engine", "abc")


def content(**first: Any) -> dict[str, Any]:
    entries = [
        {
            "batch_size": size,
            "p50_ns": 1000 * size,
            "p50_interval_ns": [900 * size, 1100 * size],
            "p95_ns": 1200 * size,
            "p95_interval_ns": [1100 * size, 1300 * size],
            "rows_per_s": 1e6,
            "features": {"compute": 0.5, "l2": 0.1, "dram": 0.2},
            "runs": 9,
            "rounds": 6,
            "dropped": 0,
            "stable": True,
        }
        for size in (1, 8)
    ]
    entries[0].update(first)
    return {
        "schema": 1,
        "model": "m",
        "version": "1",
        "device": "cpu",
        "engine": "engine",
        "model_sha256": "abc",
        "features_from": "graph",
        "entries": entries,
    }


def write(tmp_path: Path, value: object) -> Path:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(value))
    return path


def test_a_file_is_read_as_written(tmp_path: Path) -> None:
    found = read_profile(write(tmp_path, content()))
    assert found is not None
    write_profile(tmp_path / "again.json", found)
    assert read_profile(tmp_path / "again.json") == found
    assert found.profile().at(8).solo_ns == 8000
    assert mismatch(tmp_path, found, HERE, (1, 8)) is None


@pytest.mark.parametrize(
    ("first", "field"),
    [
        ({"p50_ns": -1}, r"entries\[0\]\.p50_ns"),
        ({"p50_ns": 0}, r"entries\[0\]\.p50_ns"),
        ({"p95_ns": float("nan")}, r"entries\[0\]\.p95_ns"),
        ({"p95_ns": 10}, r"entries\[0\]\.p95_ns"),
        ({"rows_per_s": float("inf")}, r"entries\[0\]\.rows_per_s"),
        ({"features": {"compute": 1.5, "l2": 0, "dram": 0}}, r"features\.compute"),
        ({"features": {"compute": 0, "l2": float("nan"), "dram": 0}}, r"features\.l2"),
        ({"batch_size": 9}, r"entries\[1\]\.batch_size"),
        ({"p50_interval_ns": [5, 4]}, r"p50_interval_ns"),
    ],
)
def test_a_bad_value_is_refused_by_file_and_field(tmp_path: Path, first: dict[str, Any], field: str) -> None:
    with pytest.raises(ProfileFileError, match=rf"profile\.json'.*{field}"):
        read_profile(write(tmp_path, content(**first)))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1}', "[" * 100_000])
def test_a_broken_or_newer_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(ProfileFileError, match=r"profile\.json'"):
        read_profile(tmp_path / "profile.json")


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        (ProfileIdentity("gpu", "engine", "abc"), "another device"),
        (ProfileIdentity("cpu", "other", "abc"), "another engine"),
        (ProfileIdentity("cpu", "engine", "def"), "before the model file changed"),
    ],
)
def test_a_profile_from_elsewhere_does_not_hold(tmp_path: Path, identity: ProfileIdentity, why: str) -> None:
    found = read_profile(write(tmp_path, content()))
    assert found is not None
    assert why in str(mismatch(tmp_path, found, identity))
    assert "no entry for batch size 4" in str(mismatch(tmp_path, found, HERE, (1, 4)))
