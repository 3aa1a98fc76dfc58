"""Parts of a whole in nanoseconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.reporting.exact_split import split_exactly

WEIGHTS = st.dictionaries(st.text(max_size=3), st.floats(0.0, 1e18, allow_nan=False), min_size=1, max_size=8)


@given(st.integers(-(10**15), 10**15), WEIGHTS)
def test_parts_add_up_to_the_whole_and_follow_the_weights(whole_ns: int, weights: dict[str, float]) -> None:
    parts, total = split_exactly(whole_ns, weights), sum(weights.values())
    if total <= 0.0:
        assert parts == {}
        return
    assert sum(parts.values()) == whole_ns
    for key, part_ns in parts.items():
        assert abs(part_ns - whole_ns * (weights[key] / total)) <= len(weights)


def test_no_weight_is_no_part() -> None:
    assert split_exactly(7, {"a": 0.0, "b": 2.0}) == {"b": 7}
    assert split_exactly(7, {}) == {}
