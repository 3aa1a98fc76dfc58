"""When a request would end on each device, by what was told and what was sent since; and which device is chosen."""

from __future__ import annotations

import pytest

from backend.model_process.devices.forecast import ASK_EVERY_NS, PATIENCE_NS, STALE_NS, DeviceForecast, choose
from backend.scheduler.messages import DeviceLoad

MS = 1_000_000
SOLO = ((1, 10 * MS), (4, 16 * MS))


def told(starts_ms: float, now_ns: int, slowdown: float = 1.0, lanes: int = 1) -> DeviceForecast:
    forecast = DeviceForecast(SOLO, lanes)
    asks = forecast.ask(now_ns)
    assert asks is not None
    forecast.tell(DeviceLoad(asks, now_ns, round(starts_ms * MS), SOLO, slowdown))
    return forecast


def test_a_request_ends_once_a_lane_is_free_and_it_ran_beside_what_runs() -> None:
    forecast = told(30.0, 0, slowdown=1.5)
    assert forecast.end_ns(1, 0) == 45 * MS
    assert forecast.end_ns(1, 10 * MS) == 35 * MS
    assert forecast.end_ns(1, 90 * MS) == 15 * MS


@pytest.mark.parametrize(("rows", "alone_ms"), [(1, 10.0), (2, 12.0), (4, 16.0), (8, 32.0)])
def test_latency_alone_by_rows(rows: int, alone_ms: float) -> None:
    assert DeviceForecast(SOLO, 1).alone_ns(rows) == alone_ms * MS


def test_what_was_sent_to_an_idle_device_delays_the_next_and_passes() -> None:
    forecast = told(0.0, 0, lanes=2)
    forecast.send(1, 100 * MS)
    assert forecast.end_ns(1, 100 * MS) == 15 * MS  # half of 10 on each of two lanes, then its own 10
    assert forecast.end_ns(1, 103 * MS) == 12 * MS
    assert forecast.end_ns(1, 200 * MS) == 10 * MS


def test_what_is_sent_to_a_busy_device_shares_batches() -> None:
    forecast = told(20.0, 0)
    forecast.send(1, 0)
    assert forecast.end_ns(1, 0) == (20 + 4 + 10) * MS


def test_an_answer_has_what_was_sent_before_the_question_and_not_what_was_sent_after() -> None:
    forecast = told(20.0, 0)
    forecast.send(1, 1 * MS)
    asks = forecast.ask(10 * MS)
    assert asks is not None
    forecast.send(1, 11 * MS)
    forecast.tell(DeviceLoad(asks, 11 * MS, 40 * MS, SOLO, 1.0))
    assert forecast.end_ns(1, 11 * MS) == (40 + 4 + 10) * MS


def test_what_was_learned_replaces_what_was_known_at_load() -> None:
    forecast = DeviceForecast(SOLO, 1)
    asks = forecast.ask(0)
    assert asks == 1
    forecast.tell(DeviceLoad(asks, 0, 0, ((1, 3 * MS),), 1.0))
    assert forecast.end_ns(1, 0) == 3 * MS


def test_one_question_at_a_time_and_not_too_often() -> None:
    forecast = DeviceForecast(SOLO, 1)
    assert forecast.ask(0) == 1
    assert forecast.awaits
    assert forecast.ask(PATIENCE_NS - 1) is None
    assert forecast.ask(PATIENCE_NS) == 2
    forecast.tell(DeviceLoad(1, PATIENCE_NS, 90 * MS, SOLO, 1.0))  # to the older question
    assert forecast.awaits
    assert forecast.end_ns(1, PATIENCE_NS) == 10 * MS
    forecast.tell(DeviceLoad(2, PATIENCE_NS, 90 * MS, SOLO, 1.0))
    assert not forecast.awaits
    assert forecast.ask(PATIENCE_NS + ASK_EVERY_NS - 1) is None
    assert forecast.ask(PATIENCE_NS + ASK_EVERY_NS) == 3


def test_a_scheduler_is_silent_from_its_first_unanswered_question_on() -> None:
    forecast = told(0.0, 0)
    assert not forecast.is_silent(1 << 62)
    assert forecast.ask(ASK_EVERY_NS) == 2
    assert not forecast.is_silent(ASK_EVERY_NS + STALE_NS)
    assert forecast.is_silent(ASK_EVERY_NS + STALE_NS + 1)
    now_ns = ASK_EVERY_NS + PATIENCE_NS
    assert forecast.ask(now_ns) == 3
    assert forecast.is_silent(now_ns)
    forecast.tell(DeviceLoad(3, now_ns, 0, SOLO, 1.0))
    assert not forecast.is_silent(1 << 62)


def test_a_load_becomes_stale_also_where_requests_are_sent() -> None:
    forecast = told(0.0, 0)
    forecast.send(1, STALE_NS)
    assert not forecast.is_stale(STALE_NS)
    assert forecast.is_stale(STALE_NS + 1)


def test_a_device_without_scheduler_is_taken_to_be_idle() -> None:
    forecast = told(90.0, 0, slowdown=2.0)
    forecast.ask(ASK_EVERY_NS)
    forecast.forget()
    assert not forecast.awaits
    assert forecast.end_ns(1, ASK_EVERY_NS) == 10 * MS


@pytest.mark.parametrize(
    ("ends", "gone", "turn", "chosen"),
    [
        ([5.0, 4.0, 6.0], [False] * 3, 0, 1),
        ([5.0, 4.0, 6.0], [False, True, False], 0, 0),
        ([5.0, 4.0, 6.0], [True] * 3, 0, 1),
        ([4.0, 4.0, 4.0], [False] * 3, 0, 0),
        ([4.0, 4.0, 4.0], [False] * 3, 2, 2),
        ([4.0, 9.0, 4.0], [False] * 3, 1, 2),
        ([4.0, 4.0, 4.0], [False, False, True], 2, 0),
    ],
)
def test_the_first_to_end_is_chosen_and_of_equal_ones_the_next_by_turns(
    ends: list[float], gone: list[bool], turn: int, chosen: int
) -> None:
    assert choose(ends, gone, turn) == chosen
