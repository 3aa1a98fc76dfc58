"""config.pbtxt's parameters: the documented defaults, every value that can be read, a sentence for every other."""

from __future__ import annotations

import pytest

from backend.config.parameters import KEYS, Parameters, read_parameters, unused
from backend.errors import ConfigError

MS = 1_000_000


def read(**values: str) -> Parameters:
    return read_parameters({name: {"string_value": value} for name, value in values.items()})


def test_the_defaults_are_the_documented_ones() -> None:
    assert read_parameters({}) == Parameters(
        interference_aware=True,
        slo_ns=None,
        priority=1,
        on_miss="serve",
        engine="auto",
        device_lanes=None,
        engine_process="auto",
        mps_percent=None,
        max_queue_size=4096,
    )


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("interference_aware", "true", "interference_aware", True),
        ("interference_aware", "FALSE", "interference_aware", False),
        ("slo_ms", "50", "slo_ns", 50 * MS),
        ("slo_ms", " 0.5 ", "slo_ns", MS // 2),
        ("slo_ms", "1e3", "slo_ns", 1_000 * MS),
        ("priority", "1000", "priority", 1000),
        ("on_miss", "reject", "on_miss", "reject"),
        ("engine", "onnxruntime", "engine", "onnxruntime"),
        ("engine", "tensorrt", "engine", "tensorrt"),
        ("device_lanes", "auto", "device_lanes", None),
        ("device_lanes", "1", "device_lanes", 1),
        ("engine_process", "own", "engine_process", "own"),
        ("engine_process", "shared", "engine_process", "shared"),
        ("mps_percent", "100", "mps_percent", 100),
        ("max_queue_size", "65536", "max_queue_size", 65536),
    ],
)
def test_a_value_is_read(name: str, text: str, field: str, value: object) -> None:
    assert getattr(read(**{name: text}), field) == value


_ALLOWED = {
    "interference_aware": '"true" or "false"',
    "slo_ms": "a number of milliseconds above 0, at most 1e9",
    "priority": "a whole number from 1 (the highest class) to 1000",
    "on_miss": '"serve" or "reject"',
    "engine": '"auto", "onnxruntime", "tensorrt" or "emulated"',
    "device_lanes": '"auto" or a whole number from 1 to 1024',
    "engine_process": '"auto", "own" or "shared"',
    "mps_percent": "a whole number from 1 to 100",
    "max_queue_size": "a whole number from 1 to 65536",
}
_BAD = {
    "interference_aware": ("", "yes", "1"),
    "slo_ms": ("", "0", "-1", "nan", "inf", "1e10", "5ms", "1e-7", "1_0"),
    "priority": ("", "0", "1001", "-1", "1.0", "1" * 30, "٣", "1_0"),
    "on_miss": ("", "Serve", "drop"),
    "engine": ("", "onnx"),
    "device_lanes": ("", "0", "1025", "all"),
    "engine_process": ("", "own "[:2]),
    "mps_percent": ("", "0", "101", "50%"),
    "max_queue_size": ("", "0", "65537"),
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in _BAD.items() for text in texts])
def test_a_value_that_cannot_be_read_is_named_with_the_allowed_ones(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(**{name: text})
    assert str(refused.value) == f"parameter '{name}' is \"{text}\"; it must be {_ALLOWED[name]}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("auto\0", r"auto\x00"), ("a\nb", r"a\nb"), ("٣", "٣"), ("9" * 1_000_000, "9" * 80 + "…")],
)
def test_a_value_is_quoted_whole_on_one_line_and_not_at_length(text: str, shown: str) -> None:
    allowed = "it must be a number of milliseconds above 0, at most 1e9"
    with pytest.raises(ConfigError) as caught:
        read(slo_ms=text)
    assert str(caught.value) == f"parameter 'slo_ms' is \"{shown}\"; {allowed}"


def test_an_unknown_name_is_quoted_whole_on_one_line_and_not_at_length() -> None:
    with pytest.raises(ConfigError, match=r"^unknown parameter 'slo_ms\\x00'; the parameters are interference_aware,"):
        read(**{"slo_ms\0": "1"})
    with pytest.raises(ConfigError, match=r"^unknown parameter 'x{80}…'; the parameters are interference_aware,"):
        read(**{"x" * 10_000: "1"})


def test_every_parameter_is_tested() -> None:
    assert set(_ALLOWED) == set(_BAD) == set(KEYS)


def test_an_unknown_parameter_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as refused:
        read(slo_ns="5")
    assert str(refused.value) == (
        "unknown parameter 'slo_ns'; the parameters are interference_aware, slo_ms, priority, on_miss, engine, "
        "device_lanes, engine_process, mps_percent, max_queue_size"
    )


def test_parameters_of_the_python_backend_are_left_to_it() -> None:
    assert read(FORCE_CPU_ONLY_INPUT_TENSORS="no", EXECUTION_ENV_PATH="/x") == Parameters()


def test_a_parameter_without_a_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="parameter 'slo_ms' is \"\"; it must be a number of milliseconds above 0"):
        read_parameters({"slo_ms": {}})


def test_rejecting_without_the_scheduler_is_unused() -> None:
    for asked in (Parameters(), Parameters(on_miss="reject"), Parameters(interference_aware=False)):
        assert unused(asked) == []
    (sentence,) = unused(Parameters(on_miss="reject", interference_aware=False))
    assert sentence.startswith("parameter 'on_miss' is \"reject\", which has no effect while 'interference_aware' is ")
