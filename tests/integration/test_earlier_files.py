"""Files as releases before this one wrote them: read, or set aside in a sentence with their version and those allowed.

Those in `earlier_files` were written by this project's earlier code, and have their version in the name. Later versions
are the same with another number: a release that is gone back to meets them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backend.engines.emulated.spec import read_spec
from backend.errors import ConfigError
from backend.fleet.snapshot import FLEET_PROTOCOL, DeviceSnapshot, decode
from backend.load.workload import read_workload
from backend.scheduler_process.event_file import VERSION as EVENTS_VERSION
from backend.scheduler_process.event_file import read_stretches
from backend.trial.launch import Remembered
from backend.trial.messages import SCHEMA as TRIAL_SCHEMA
from predictor import state_file
from predictor.samples import SamplesError, read_samples
from profiler.brief import SCHEMA as BRIEF_SCHEMA
from profiler.brief import BriefFile
from profiler.peaks import SCHEMA as PEAKS_SCHEMA
from profiler.peaks import PeaksFile
from profiler.profile_file import ProfileFileError, read_profile
from profiler.store import read_json

EARLIER = Path(__file__).parent / "earlier_files"
CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


@pytest.fixture
def earlier(tmp_path: Path) -> Callable[..., Path]:
    """Copies a file, with one text of it replaced."""

    def copied(name: str, old: str = "", new: str = "") -> Path:
        path = tmp_path / name
        shutil.copyfile(EARLIER / name, path)
        if old:
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))
        return path

    return copied


# Learned state


def test_the_learned_state_of_this_version_is_read(
    earlier: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = earlier(f"predictor-state-version-{state_file.VERSION}.msgpack")
    learned = state_file.load(path)
    assert {key for key, _, _ in learned.learner.state()["sensitivity"]} == {("one",), ("two",)}  # type: ignore[attr-defined]
    assert not caplog.records
    assert path.exists()


@pytest.mark.parametrize("version", [4, 6])
def test_learned_state_of_another_version_is_set_aside_in_a_sentence(
    version: int, earlier: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    if version < state_file.VERSION:
        path = earlier(f"predictor-state-version-{version}.msgpack")
    else:
        path = earlier(f"predictor-state-version-{state_file.VERSION}.msgpack")
        path.write_bytes(path.read_bytes().replace(b"\xa7version\x05", b"\xa7version" + bytes([version])))
    content = path.read_bytes()
    assert state_file.load(path).learner.state()["sensitivity"] == []
    (said,) = [record.getMessage() for record in caplog.records]
    assert str(path) in said
    assert f"version {version}, not isochrone-predictor version {state_file.VERSION}" in said
    assert not path.exists()
    assert path.with_name(f"{path.name}.broken").read_bytes() == content


# Profiles


def test_a_profile_is_read(earlier: Callable[..., Path]) -> None:
    found = read_profile(earlier("profile-schema-1.json"))
    assert found is not None
    assert found.batch_sizes == (1, 2)


def test_a_profile_of_another_schema_is_refused_in_a_sentence(earlier: Callable[..., Path]) -> None:
    path = earlier("profile-schema-1.json", '"schema": 1', '"schema": 2')
    with pytest.raises(ProfileFileError, match=rf"'{path}' has schema 2, but this release reads schema 1"):
        read_profile(path)


@pytest.mark.parametrize("schema", [1, 2])
def test_a_profile_measured_at_load_is_never_taken_for_one_of_this_schema(
    schema: int, earlier: Callable[..., Path]
) -> None:
    """Its schema is part of its name and of its content; without one that holds, the model is measured anew."""
    found = read_json(earlier(f"brief-profile-schema-{schema}.json"), BriefFile)
    assert found is not None
    assert (found.schema == BRIEF_SCHEMA) == (schema == BRIEF_SCHEMA)


def test_trials_and_peaks_are_read(earlier: Callable[..., Path]) -> None:
    trial = read_json(earlier("trial-schema-1.json"), Remembered)
    peaks = read_json(earlier("peaks-schema-1.json"), PeaksFile)
    assert trial is not None and trial.schema == TRIAL_SCHEMA and trial.trial.batches
    assert peaks is not None and peaks.schema == PEAKS_SCHEMA and peaks.peaks.operations_per_s > 0


# Logs


def test_samples_are_read(earlier: Callable[..., Path]) -> None:
    found = read_samples(earlier("samples-schema-1.jsonl"))
    assert len(found.samples) == 8
    assert {sample.model for sample in found.samples} == {"one", "two"}
    assert found.features == ("compute", "l2", "dram")


def test_samples_of_another_schema_are_refused_in_a_sentence(earlier: Callable[..., Path]) -> None:
    path = earlier("samples-schema-1.jsonl", '"schema":1', '"schema":2')
    with pytest.raises(SamplesError, match=rf"{path}, line 1: schema 2 is not known, this version reads 1"):
        read_samples(path)


@pytest.mark.parametrize("version", [1, 3])
def test_an_event_log_of_another_version_is_refused_in_a_sentence(version: int, earlier: Callable[..., Path]) -> None:
    path = earlier("events-version-1.jsonl", '"version":1', f'"version":{version}')
    sentence = f"line 1 is isochrone-events version {version}, not isochrone-events version {EVENTS_VERSION}"
    with pytest.raises(ConfigError, match=rf"'{path}' is no event log that can be replayed: {path.name}, {sentence}"):
        list(read_stretches(path))


def test_an_event_log_that_this_release_went_on_with_is_read_from_there_on(earlier: Callable[..., Path]) -> None:
    path = earlier("events-version-1.jsonl")
    with path.open("ab") as log:
        log.write((CORPUS / "event_log" / "short.jsonl").read_bytes())
    first = next(iter(read_stretches(path)))
    assert first.entries
    assert first.gap is not None and "is isochrone-events version 1, not isochrone-events version 2" in first.gap


# What users and servers of several releases hand each other


def test_a_workload_and_an_emulated_model_are_read(earlier: Callable[..., Path]) -> None:
    workload, _ = read_workload(earlier("workload-without-version.json"))
    assert [asked.model for asked in workload.models] == ["resnet50", "vgg19"]
    assert read_spec(earlier("emulated-model-schema-1.json")).device.name == "emulated-a100-0"


def test_what_a_later_release_adds_to_a_workload_is_refused_in_a_sentence(earlier: Callable[..., Path]) -> None:
    path = earlier("workload-without-version.json", '"seconds": 60', '"seconds": 60, "burst": 2')
    with pytest.raises(ConfigError, match=rf"the workload '{path}' is not one: .*unknown field `burst`"):
        read_workload(path)


def test_a_later_schema_of_an_emulated_model_is_refused_in_a_sentence(earlier: Callable[..., Path]) -> None:
    path = earlier("emulated-model-schema-1.json", '"schema": 1', '"schema": 2')
    with pytest.raises(ConfigError, match=rf"{re.escape(str(path))}.*schema.*2.*1"):
        read_spec(path)


def test_the_published_state_is_understood_and_a_later_protocol_refused_in_a_sentence() -> None:
    line = (EARLIER / "published-state-protocol-1.json").read_bytes()
    found = decode(line)
    assert isinstance(found, DeviceSnapshot)
    assert {model.name for model in found.models} == {"one", "two"}
    assert FLEET_PROTOCOL == 1
    with pytest.raises(ValueError, match="protocol 2 is not spoken here, only 1"):
        decode(line.replace(b'"protocol":1', b'"protocol":2'))
    assert decode(msgspec.json.encode({**msgspec.json.decode(line), "new": "field"})) == found
