"""Processes of two releases on one device: they refuse each other in words, and every model goes on serving."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from backend.device_process import connect_or_start
from backend.model_process import scheduler_client
from backend.runtime_dir import meeting_point
from backend.scheduler.messages import MAX_MESSAGE_BYTES, PROTOCOL, Join, Refused, decode_reply, encode
from tests.fakes.builders import join, profile
from tests.fakes.fake_model import (
    PATIENCE_S,
    FakeModel,
    decided_by_a_scheduler,
    eventually,
    pending,
    scheduler_pid,
    until_connected,
)
from tests.fakes.other_release import NEWER, OLDER, scheduler_of_another_release

_LOAD = [[1, 8], [[1_000_000, 0.1, 0.1, 0.1], [2_000_000, 0.1, 0.1, 0.1]]]
JOINS = {
    "protocol 1": ["join", 1, "theirs", "1", 8, 2, _LOAD, True, False],
    "protocol 2": ["join", 2, "theirs", "1", 8, 2, _LOAD, True, False],
    "protocol 3": ["join", 3, "theirs", "1", 8, 2, _LOAD, True, False, 0],
    "protocol 4": ["join", 4, "theirs", "1", 8, 2, _LOAD, True, False, 0, 0],
    "protocol 99": ["join", 99, "theirs", {"of": "another shape"}],
}
"""As these releases of the messages wrote it, and as a later one might."""


@pytest.mark.parametrize("protocol", [OLDER, NEWER])
def test_a_model_serves_without_a_scheduler_of_another_release_and_takes_over_once_that_is_gone(
    protocol: int, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduler_client, "_REFUSED_S", 0.05)
    device = f"gpu-{protocol}"  # which no scheduler of ours lingers on
    with (
        scheduler_of_another_release(runtime_dir, protocol, device) as theirs,
        FakeModel("ours", device=device) as model,
    ):
        model.gate.clear()
        requests = model.submit(*[pending() for _ in range(20)])
        model.gate.set()
        batches = model.wait_for(*requests)
        assert all(batch.launch is None for batch in batches)
        in_order = sorted(model.started, key=lambda batch: -batch.id)
        assert [r.id for batch in in_order for r in batch.requests] == [r.id for r in requests]
        log = meeting_point(device).log
        eventually(lambda: str(PROTOCOL) in log.read_text())
        said = [r.getMessage() for r in caplog.records if "of another release" in r.getMessage()]
        theirs.kill()
        theirs.wait()
        until_connected(model)
        assert decided_by_a_scheduler(model)
    assert len(said) == 1
    assert said[0].startswith("isochrone: model 'ours' launches without its scheduler: the scheduler of device 'gpu-")
    spoken = "an earlier protocol" if protocol == OLDER else f"protocol {protocol}"
    assert f"speaks {spoken}, this model's process {PROTOCOL}; it said: " in said[0]
    if protocol == NEWER:
        refused = f"model 'ours' speaks protocol {PROTOCOL}, this scheduler {NEWER}: they are of different releases"
        assert log.read_text().count(refused) == 1  # though it was asked again and again


@pytest.mark.parametrize("joins", JOINS.values(), ids=JOINS)
def test_a_model_of_another_release_is_refused_in_words_and_the_others_go_on(
    joins: list[object], model: FakeModel
) -> None:
    pid, log = scheduler_pid(), meeting_point("cpu").log
    sentence = (
        f"model 'theirs' speaks protocol {joins[1]}, this scheduler {PROTOCOL}: "
        "they are of different releases of Isochrone"
    )
    for _ in range(3):
        assert answer_to(msgspec.msgpack.encode(joins)) == Refused(sentence, PROTOCOL)
    assert decided_by_a_scheduler(model)
    assert scheduler_pid() == pid
    assert log.read_text().count(sentence) == 1


def test_models_that_are_refused_keep_no_scheduler_from_ending() -> None:
    """They ask again and again, and take over once it has ended."""
    joins = msgspec.msgpack.encode(JOINS["protocol 4"])
    assert isinstance(answer_to(joins, "gpu-8"), Refused)
    first = scheduler_pid("gpu-8")

    def another_runs() -> bool:
        with suppress(ConnectionError, msgspec.DecodeError):  # it ends just now
            answer_to(joins, "gpu-8")
        return scheduler_pid("gpu-8") != first

    eventually(another_runs)


def test_a_refusal_is_understood_by_every_release() -> None:
    """The beginnings of these two messages are what releases tell each other by."""
    older = msgspec.defstruct("Refused", [("reason", str)], tag="refused", array_like=True)
    assert msgspec.msgpack.decode(encode(Refused("why", PROTOCOL)), type=older) == older("why")
    assert decode_reply(msgspec.msgpack.encode(["refused", "why"])) == Refused("why", 0)
    assert decode_reply(msgspec.msgpack.encode(["refused", "why", 99, "more"])) == Refused("why", 99)
    assert Join.__struct_fields__[:2] == ("protocol", "model")
    assert msgspec.msgpack.decode(encode(join(profile(1.0), protocol=7)))[:2] == ["join", 7]


def answer_to(packet: bytes, device: str = "cpu") -> object:
    connection: socket.socket = connect_or_start(meeting_point(device), PATIENCE_S, "--lanes", "2")
    with connection:
        connection.settimeout(PATIENCE_S)
        connection.send(packet)
        reply = decode_reply(connection.recv(MAX_MESSAGE_BYTES))
        assert connection.recv(MAX_MESSAGE_BYTES) == b""
        return reply
