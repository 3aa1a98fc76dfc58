"""A request's deadline, class and tensors: from where they are taken, and which are refused with what sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.config.parameters import Parameters
from backend.errors import RequestError
from backend.model_process.request import Arrival, Due, read_due, read_tensor
from backend.scheduler.messages import Arrive, Request, decode_event, encode
from backend.tensors import BY_CONFIG, Datatype, TensorSpec

MS = 1_000_000
NOW = Arrival(monotonic_ns=5_000 * MS, unix_ns=1_700_000_000_000 * MS)
DEFAULTS = Parameters(slo_ns=80 * MS, priority=4)


def due(given: dict[str, object], timeout_us: int = 0, defaults: Parameters = DEFAULTS) -> Due:
    return read_due(given, timeout_us, defaults, NOW)


def slack_ms(given: dict[str, object], timeout_us: int = 0) -> float:
    deadline_ns = due(given, timeout_us).deadline_ns
    assert deadline_ns is not None
    return (deadline_ns - NOW.monotonic_ns) / MS


NOT_MS = [
    0,
    -1,
    True,
    float("nan"),
    float("inf"),
    1.1e9,
    "0",
    "-5",
    "nan",
    "inf",
    "1e999",
    "1_0",
    "",
    "fast",
    "٣",
    None,
]


# When it is due


def test_without_a_word_the_model_decides() -> None:
    assert due({}) == Due(NOW.monotonic_ns + 80 * MS, 4)
    assert due({}, defaults=Parameters()) == Due(None, 1)


@pytest.mark.parametrize(("slo_ms", "expected"), [(50, 50.0), (0.5, 0.5), (1e9, 1e9)])
def test_a_latency_counts_from_the_arrival(slo_ms: float, expected: float) -> None:
    assert slack_ms({"slo_ms": slo_ms}, timeout_us=7) == expected


@pytest.mark.parametrize("offset_ms", [30, 0, -30])
def test_a_deadline_is_taken_from_unix_time_to_ours(offset_ms: int) -> None:
    assert slack_ms({"deadline_ns": NOW.unix_ns + offset_ms * MS}, timeout_us=7) == offset_ms


def test_tritons_timeout_comes_before_the_models_objective() -> None:
    assert slack_ms({}, timeout_us=20_000) == 20.0


def test_the_class_of_a_request_comes_before_the_models() -> None:
    assert due({"priority_class": 2}).priority == 2


def test_foreign_parameters_are_ignored() -> None:
    assert due({"trace": "on"}) == due({})


@pytest.mark.parametrize(
    ("given", "timeout_us"),
    [({}, 2**64 - 1), ({"deadline_ns": 2**63 - 1}, 0), ({"slo_ms": 1e9}, 0), ({"deadline_ns": 1}, 0)],
)
def test_every_deadline_that_a_client_can_ask_for_fits_a_message(given: dict[str, object], timeout_us: int) -> None:
    asked = due({**given, "priority_class": 2**63 - 1}, timeout_us)
    event = Arrive((Request(1, 1, NOW.monotonic_ns, asked.deadline_ns, asked.priority, -(2**61)),))
    assert decode_event(encode(event)) == event


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1.0", "0", "-1", "", "first", "1_0", "٣", "1" * 21, None])
def test_a_class_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(RequestError) as refused:
        due({"priority_class": value})
    assert str(refused.value) == f"priority_class is {value!r}; it must be a whole number from 1, the highest class"


@pytest.mark.parametrize("value", NOT_MS)
def test_a_latency_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(RequestError) as refused:
        due({"slo_ms": value})
    assert str(refused.value) == f"slo_ms is {value!r}; it must be a number of milliseconds above 0, at most 1e9"


@pytest.mark.parametrize("value", [0, -1, True, 1e18, "soon", "0", "1e18", "17.0", "", None])
def test_a_deadline_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(RequestError) as refused:
        due({"deadline_ns": value})
    assert str(refused.value) == f"deadline_ns is {value!r}; it must be a Unix time in whole nanoseconds"


@pytest.mark.parametrize(("text", "expected"), [("50", 50.0), (" 0.5 ", 0.5), ("5e1", 50.0), ("1e9", 1e9), (".5", 0.5)])
def test_a_latency_in_a_string_is_the_number_it_spells(text: str, expected: float) -> None:
    assert slack_ms({"slo_ms": text}) == expected


def test_whole_numbers_in_strings_are_the_numbers_they_spell() -> None:
    given: dict[str, object] = {"deadline_ns": str(NOW.unix_ns + 30 * MS), "priority_class": " 2 "}
    assert slack_ms(given) == 30
    assert due(given).priority == 2


def test_a_class_lower_than_a_message_can_say_is_the_lowest() -> None:
    asked = due({"priority_class": "9" * 20})
    event = Arrive((Request(1, 1, NOW.monotonic_ns, None, asked.priority, 0),))
    assert decode_event(encode(event)) == event


def test_both_at_once_are_refused() -> None:
    with pytest.raises(RequestError) as refused:
        due({"deadline_ns": NOW.unix_ns, "slo_ms": 5})
    assert str(refused.value) == "slo_ms and deadline_ns are both given; give one of them"


# Tensors


def spec(datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec("x", BY_CONFIG[f"TYPE_{datatype}"], shape)


@pytest.mark.parametrize("datatype", [d for d in Datatype if d.config != "TYPE_STRING"], ids=lambda d: d.config)
def test_a_tensor_is_copied_in_its_type(datatype: Datatype) -> None:
    given = np.arange(6).reshape(2, 3).astype(datatype.numpy)
    taken = read_tensor(TensorSpec("x", datatype, (3,)), given, batching=True)
    assert taken.dtype == given.dtype
    assert np.array_equal(taken, given)
    assert not np.shares_memory(taken, given)


@pytest.mark.parametrize(
    ("shape", "batching", "given", "taken"),
    [
        ((3,), True, (5, 3), (5, 3)),
        ((-1, 2), True, (5, 7, 2), (5, 7, 2)),
        ((-1,), True, (1, 0), (1, 0)),
        ((), True, (5, 1), (5,)),
        ((), True, (5,), (5,)),
        ((), False, (1,), ()),
        ((2, -1), False, (2, 9), (2, 9)),
    ],
)
def test_shapes_that_fit(
    shape: tuple[int, ...], batching: bool, given: tuple[int, ...], taken: tuple[int, ...]
) -> None:
    assert read_tensor(spec("FP32", *shape), np.zeros(given, np.float32), batching).shape == taken


@pytest.mark.parametrize(
    ("shape", "batching", "given", "sentence"),
    [
        ((3,), True, (5, 4), "input 'x' has shape [4] per request; the model takes [3]"),
        ((3,), True, (3,), "input 'x' has 0 rows, as Triton counts them modulo 2^32; it must have 1 or more"),
        ((3,), False, (1, 3), "input 'x' has shape [1, 3] per request; the model takes [3]"),
        ((), True, (5, 2), "input 'x' has shape [2] per request; the model takes []"),
        ((-1, 2), True, (5, 2, 3), "input 'x' has shape [2, 3] per request; the model takes [-1, 2]"),
    ],
)
def test_shapes_that_do_not_fit(shape: tuple[int, ...], batching: bool, given: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_tensor(spec("FP32", *shape), np.zeros(given, np.float32), batching)
    assert str(refused.value) == sentence


def test_another_type_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        read_tensor(spec("FP32", 3), np.zeros((1, 3)), batching=True)
    assert str(refused.value) == "input 'x' is float64; the model takes float32"


class _NoRoom(np.ndarray[Any, Any]):
    def copy(self, *_: Any, **__: Any) -> Any:
        raise MemoryError


def test_a_tensor_that_there_is_no_memory_for_is_named_with_its_size() -> None:
    with pytest.raises(MemoryError) as full:
        read_tensor(spec("FP32", -1), np.zeros((1, 500_000), np.float32).view(_NoRoom), batching=True)
    assert str(full.value) == "input 'x' of 2.0 MB cannot be copied: the model's process has no memory left"


def test_strings_become_text() -> None:
    given = np.array([["grün".encode(), b""], ["já", b"\x00"]], dtype=np.object_)
    taken = read_tensor(spec("STRING", 2), given, batching=True)
    assert taken.tolist() == [["grün", ""], ["já", "\x00"]]
    assert given[0, 0] == "grün".encode()


def test_a_string_per_request() -> None:
    given = np.array([[b"a"], [b"b"]], dtype=np.object_)
    assert read_tensor(spec("STRING"), given, batching=True).tolist() == ["a", "b"]


def test_strings_without_any_element() -> None:
    assert read_tensor(spec("STRING", -1), np.empty((1, 0), dtype=np.object_), batching=True).shape == (1, 0)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(RequestError) as refused:
        read_tensor(spec("STRING", 1), np.array([[b"\xff"]], dtype=np.object_), batching=True)
    assert str(refused.value) == "input 'x' holds bytes that are not UTF-8 text: invalid start byte"


def test_strings_that_do_not_lie_in_a_row_are_read_in_their_order() -> None:
    given = np.array([[b"a", b"b"], [b"c", b"d"]], dtype=np.object_).T
    assert read_tensor(spec("STRING", 2), given, batching=True).tolist() == [["a", "c"], ["b", "d"]]
