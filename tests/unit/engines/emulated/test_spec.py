"""What a `model.emulated.json` says, and the sentences for one that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from backend.engines.emulated.spec import read_spec, read_specs
from backend.errors import ConfigError
from tests.fakes.emulated import several, spec, write_spec

Spoil = Callable[[dict[str, Any]], object]


def test_specification_declares_tensors_with_rows_and_a_profile(tmp_path: Path) -> None:
    found = read_spec(write_spec(tmp_path, "one", spec()))

    assert [(t.name, t.shape) for t in (*found.specs.inputs, *found.specs.outputs)] == [("x", (-1, 4)), ("y", (-1, 2))]
    assert found.specs.max_batch_size == 4
    assert found.profile.batch_sizes == (1, 2, 4)
    assert found.profile.at(2).solo_ns == 3_000_000
    assert found.profile.at(2).kernel_ns == round(found.batches[1].work_per_kernel * 65_000)


def test_sizes_between_are_interpolated(tmp_path: Path) -> None:
    content = spec()
    content["batches"][2]["busy_share"] = 1.0

    solo_ns, demand = read_spec(write_spec(tmp_path, "one", content)).demand("one", 3)

    assert solo_ns == 4_000_000
    assert demand.busy_share == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda s: s["batches"][0].update(busy_share=1.01),
            "batches[0].busy_share is 1.01, but must be `float` <= 1.0",
        ),
        (lambda s: s["batches"][1].update(busy_share=0.0), "batches[1].busy_share is 0.0, but must be `float` > 0.0"),
        (lambda s: s["batches"][0].update(solo_us=nan), "batches[0].solo_us is nan, but must be a finite number"),
        (
            lambda s: s["inputs"][0].update(name="a\ud800"),
            'inputs[0].name is "a\\ud800", but must be whole characters',
        ),
        (lambda s: s["device"].update({"\udfff": 1}), 'a key of device is "\\udfff", but must be whole characters'),
        (
            lambda s: s["batches"][0].update(solo_us=10**400),
            f"batches[0].solo_us is 1{'0' * 79}, but must be a number that 64 bits hold",
        ),
        (lambda s: s["batches"][0].update(work_per_kernel=inf), "work_per_kernel is inf, but must be a finite number"),
        (lambda s: s["batches"][0].update(solo_us="3"), 'batches[0].solo_us is "3", but must be `float`, got `str`'),
        (lambda s: s["batches"][0]["features"].update(l2=-0.1), "batches[0].features.l2 is -0.1"),
        (
            lambda s: s["batches"].pop(1),
            "batches[...].batch_size is [1, 4], but must be at least [1, 2, 4]; 2 is missing",
        ),
        (lambda s: s["batches"].reverse(), "batches[...].batch_size is [4, 2, 1], but must be ascending"),
        (
            lambda s: s.update(max_batch_size=2),
            "batches[...].batch_size is [1, 2, 4], but must be at most max_batch_size",
        ),
        (lambda s: s["batches"][0].pop("solo_us"), "batches[0] lacks key `solo_us`"),
        (lambda s: s["device"].update(colour=1), "device has no key `colour`"),
        (lambda s: s["device"].update(name="a100"), 'device.name is "a100", but must be `str` such as emulated-a100-0'),
        (lambda s: s["device"].update(pcie_gb_per_s=0), "device.pcie_gb_per_s is 0, but must be"),
        (lambda s: s["device"].update(regime="mig"), 'device.regime is "mig"'),
        (
            lambda s: s["inputs"][0].update(datatype="TYPE_STRING"),
            "inputs[0].datatype is 'TYPE_STRING', but must be one of",
        ),
        (lambda s: s["outputs"][0].update(shape=[0]), "outputs[0].shape[0] is 0, but must be"),
        (lambda s: s["inputs"].append(dict(s["inputs"][0])), "inputs[1].name is 'x', but must be a name that no other"),
        (lambda s: s.update(schema=2), "schema is 2, but must be 1"),
    ],
)
def test_bad_specification_is_refused_by_key_value_and_what_is_allowed(
    tmp_path: Path, spoil: Spoil, sentence: str
) -> None:
    content = spec()
    spoil(content)
    file = write_spec(tmp_path, "one", content)

    with pytest.raises(ConfigError) as refused:
        read_spec(file)

    assert f"'{file}'" in str(refused.value)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", "3", "{", json.dumps("x")])
def test_file_that_is_no_specification_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "model.emulated.json"
    file.write_text(content)

    with pytest.raises(ConfigError, match=r"model\.emulated\.json"):
        read_spec(file)


def test_specification_for_several_devices(tmp_path: Path) -> None:
    file = write_spec(tmp_path, "one", several())

    specs = read_specs(file)
    assert [one.device.name for one in specs] == ["emulated-fast-0", "emulated-slow-0"]
    assert [one.profile.at(1).solo_ns for one in specs] == [2_000_000, 4_000_000]
    assert read_spec(file) == specs[0]
    assert read_spec(file, "emulated-slow-0") == specs[1]
    with pytest.raises(ConfigError, match="has no device 'emulated-x-0', but emulated-fast-0, emulated-slow-0"):
        read_spec(file, "emulated-x-0")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda s: s["devices"][1]["device"].update(name="emulated-fast-0"),
            "devices[1].device.name is 'emulated-fast-0', but must be a name that no other device has",
        ),
        (
            lambda s: s["devices"][1]["batches"].pop(1),
            "devices[1].batches[...].batch_size is [1, 4], but must be at least [1, 2, 4]; 2 is missing",
        ),
        (
            lambda s: s["devices"][1]["batches"][0].update(busy_share=1.5),
            "devices[1].batches[0].busy_share is 1.5, but must be `float` <= 1.0",
        ),
        (lambda s: s["devices"][1]["batches"][0].pop("solo_us"), "devices[1].batches[0] lacks key `solo_us`"),
        (lambda s: s["devices"][0]["device"].update(name="t4"), 'devices[0].device.name is "t4", but must be'),
        (lambda s: s["devices"][0].pop("batches"), "devices[0] lacks key `batches`"),
        (lambda s: s["devices"][0].update(inputs=[]), "devices[0] has no key `inputs`"),
        (lambda s: s.update(devices=[]), "devices is 0 devices, but must be a list of 1 to 16 devices"),
        (lambda s: s.update(devices={}), "devices is {}, but must be a list of 1 to 16 devices"),
        (lambda s: s.update(devices=[3]), "devices[0] is 3, but must be an object"),
        (lambda s: s.update(batches=[]), "has both keys 'devices' and 'batches'; put 'batches' into each of devices"),
        (lambda s: s["outputs"][0].update(shape=[0]), "': outputs[0].shape[0] is 0, but must be"),
    ],
)
def test_bad_specification_for_several_devices(tmp_path: Path, spoil: Spoil, sentence: str) -> None:
    content = several()
    spoil(content)

    with pytest.raises(ConfigError) as refused:
        read_specs(write_spec(tmp_path, "one", content))

    assert sentence in str(refused.value)
