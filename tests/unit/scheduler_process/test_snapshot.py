"""A scheduler's state as plain data: the same to the last bit when it comes back, and no way to run code."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from backend.scheduler.core import Scheduler
from backend.scheduler_process.snapshot import Snapshot, decode, encode
from predictor.link_sharing import Span
from predictor.workload import Load
from tests.fakes.recorded import Recorded


def there_and_back(found: object) -> Any:
    return decode(msgspec.json.decode(msgspec.json.encode(encode(found)), type=Snapshot))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "text",
        2**63 - 1,
        -(2**200),
        0.1 + 0.2,
        float("inf"),
        [1, (2.5, "a"), {3}, frozenset({(4, 5)})],
        {(1, 2): [None], "k": {}},
        Span(1.0, 2.0),
        Load(5, 0.1, 0.2, 0.3),
    ],
)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    found = there_and_back(value)
    assert found == value
    assert type(found) is type(value)


def test_a_deque_keeps_its_bound() -> None:
    assert there_and_back(deque([1, 2], 2)).maxlen == 2


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_in_its_order_and_can_be_written_to(order: str) -> None:
    array = np.asarray([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], order=order)  # type: ignore[call-overload]
    found = there_and_back(array)
    assert found.tobytes("A") == array.tobytes("A")
    assert found.flags.c_contiguous == array.flags.c_contiguous
    found += 1.0


def test_shared_objects_stay_shared_and_circles_stay_closed() -> None:
    shared: list[object] = [1]
    circle: dict[str, object] = {"a": shared, "b": shared}
    circle["self"] = circle
    found = there_and_back(circle)
    assert found["a"] is found["b"]
    assert found["self"] is found


def test_functions_are_left_out_and_other_things_refused() -> None:
    assert there_and_back([print]) == [None]
    for value in (np.array(["a"], object), b"bytes", iter(())):
        with pytest.raises(TypeError, match="is not to be encoded"):
            encode(value)


def test_a_busy_scheduler_comes_back_whole(tmp_path: Path) -> None:
    with Recorded(tmp_path / "events") as recorded:
        recorded.run(3_000)
        first = encode(recorded.core)
        found = there_and_back(recorded.core)
        assert isinstance(found, Scheduler)
        found.check_invariants()
        assert encode(found) == first
        assert found.latency.predictor.state() == recorded.core.latency.predictor.state()


_HOSTILE = {
    "another's class": Snapshot(["subprocess:Popen"], ["object", 0]),
    "a module beside ours": Snapshot(["backend.errors:ConfigError"], ["object", 0]),
    "a name of ours": Snapshot(["backend.scheduler.core:replace"], ["object", 0]),
    "what a module imported": Snapshot(["predictor.state_file:Path"], ["object", 0]),
    "no class": Snapshot([], ["object", 0]),
    "no module": Snapshot(["predictor.nothing:A"], ["object", 0]),
    "an attribute of Python's": Snapshot(["backend.scheduler.core:Scheduler"], ["object", 0, "__class__", 1]),
    "a later object": Snapshot([], ["list", ["#", 7]]),
    "no kind": Snapshot([], ["code", "1"]),
    "an array too short": Snapshot([], ["array", "float64", "C", [2], "AAAA"]),
    "an array of objects": Snapshot([], ["array", "object", "C", [1], "AAAAAAAAAAA="]),
    "an array of negative size": Snapshot([], ["array", "float64", "C", [-1], ""]),
    "a record of too few": Snapshot(["predictor.workload:Load"], ["record", 0, 1]),
    "an impossible profile": Snapshot(["predictor.workload:ModelProfile"], ["record", 0, ["tuple"], ["tuple"]]),
    "half a pair": Snapshot([], ["dict", 1]),
    "an unhashable key": Snapshot([], ["dict", ["list"], 1]),
    "an empty list": Snapshot([], []),
}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_a_hostile_snapshot_is_a_value_error(kind: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(_HOSTILE[kind])
