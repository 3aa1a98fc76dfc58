"""Messages of a device's state: what is written can be read, what is no message is a sentence, all is bounded."""

from __future__ import annotations

import msgspec
import pytest

from backend.fleet.snapshot import (
    FLEET_PROTOCOL,
    MAX_HELLO_BYTES,
    MAX_LINE_BYTES,
    MAX_MODELS,
    DeviceSnapshot,
    MachineFacts,
    ModelState,
    Refused,
    RunningState,
    Subscribe,
    decode,
    decode_hello,
    encode,
)


def model(name: str = "m") -> ModelState:
    waiting = {"1": 3, "2": 1}
    return ModelState(name, "1", 8, 40, waiting, 4, [(1, 2_000_000), (8, 7_000_000)], 1.0, 0.3, 0.5, None, 1)


def snapshot(*models: ModelState) -> DeviceSnapshot:
    running = [RunningState("m", 4, 1, 3_000_000, None), RunningState("m", 1, 2, 500_000, -20)]
    machine = MachineFacts("a machine", emulated=False, compute_tflops=312.0)
    return DeviceSnapshot(
        FLEET_PROTOCOL, "0a1b", 7, 1_800_000_000_000_000_000, "gpu-1", 2, machine, 9_000_000, list(models), running
    )


@pytest.mark.parametrize("message", [snapshot(), snapshot(model()), Refused("no")], ids=["idle", "busy", "refused"])
def test_what_a_publisher_writes_is_read(message: DeviceSnapshot | Refused) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == decode(line.rstrip()) == message


def test_what_a_subscriber_writes_is_read() -> None:
    assert decode_hello(encode(Subscribe(FLEET_PROTOCOL, "secret"))) == Subscribe(FLEET_PROTOCOL, "secret")
    assert decode_hello(b'{"type": "subscribe", "protocol": 1}') == Subscribe(1)


def test_a_token_is_in_no_text_of_a_subscription() -> None:
    assert "secret" not in repr(Subscribe(FLEET_PROTOCOL, "secret"))


def test_fields_that_are_not_known_are_ignored() -> None:
    line = (
        encode(snapshot(model())).replace(b'"lanes":', b'"colour":"red","lanes":').replace(b'"rows":', b'"r":1,"rows":')
    )
    assert decode(line) == snapshot(model())


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (b"", "is no device's state"),
        (b"HTTP/1.1 400 Bad Request\r\n", "is no device's state"),
        (b"\xff\xfe\x00", "is no device's state"),
        (b"[" * 50_000, "is no device's state"),
        (encode(Subscribe(1)), "is no device's state"),
        (encode(snapshot()).replace(b'"protocol":1', b'"protocol":2'), "protocol 2 is not spoken here, only 1"),
        (b'{"type":"snapshot","protocol":3}', "protocol 3, where 1 is spoken here"),
        (encode(snapshot()).replace(b'"lanes":2', b'"lanes":0'), "lanes"),
        (encode(snapshot(model())).replace(b'"base":1.0', b'"base":-1.0'), "base"),
        (encode(snapshot(model())).replace(b"[[1,2000000],[8,7000000]]", b"[]"), "solo_ns"),
        (b" " * (MAX_LINE_BYTES + 1), f"at most {MAX_LINE_BYTES}"),
    ],
    ids=range(11),
)
def test_what_is_no_state_of_a_device_is_refused_with_a_sentence(sent: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decode(sent)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (b"", '"type":"subscribe"'),
        (b"GET / HTTP/1.1", '"type":"subscribe"'),
        (b'{"type":"subscribe","protocol":1,"token":["secret"]}', '"type":"subscribe"'),
        (b'{"type":"subscribe","protocol":2}', "protocol 2 is not spoken here, only 1"),
        (b'{"type":"hello","protocol":2}', "protocol 2, where 1 is spoken here"),
        (b" " * (MAX_HELLO_BYTES + 1), f"at most {MAX_HELLO_BYTES} bytes"),
    ],
    ids=range(6),
)
def test_what_is_no_subscription_is_refused_with_a_sentence_without_a_token(sent: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        decode_hello(sent)
    assert "secret" not in str(caught.value)


def test_a_line_that_would_be_too_long_loses_its_last_models() -> None:
    models = [model(f"{i:03}" + "x" * 400) for i in range(MAX_MODELS)]
    line = encode(snapshot(*models))
    found = decode(line)
    assert isinstance(found, DeviceSnapshot)
    assert 0.8 * MAX_LINE_BYTES < len(line) <= MAX_LINE_BYTES
    assert found.models == models[: len(found.models)]
    assert len(found.models) > 200


def test_more_than_is_allowed_is_not_read() -> None:
    many = msgspec.json.encode(snapshot(*[model(str(i)) for i in range(MAX_MODELS + 1)]))
    with pytest.raises(ValueError, match="models"):
        decode(many)
