"""Seeded generator of broken requests as they travel: over gRPC, over HTTP, or by tritonclient.

Each is a request of `request_faults`, sent as it is or with something wrong in its bytes besides. Sends nothing.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from tests.server.malformed.asked import REFUSED, Asked, Expected, Tensor, expected, to_grpc, to_http
from tests.server.malformed.request_faults import broken, right


@dataclass(frozen=True)
class GrpcCase:
    """what: of the fault. body: the message's bytes."""

    what: str
    body: bytes
    expected: Expected
    asked: Asked


@dataclass(frozen=True)
class HttpCase:
    """what: of the fault. cut: the client sends no more than this, says so, and reads on."""

    what: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    expected: Expected
    asked: Asked
    closes: bool = False


@dataclass(frozen=True)
class ClientCase:
    """A request that tritonclient sends, over "http" or "grpc"."""

    what: str
    protocol: str
    expected: Expected
    asked: Asked


Case = GrpcCase | HttpCase | ClientCase


def cases(seed: int, count: int, broken_share: float = 0.9) -> Iterator[Case]:
    """That many requests, always the same for a seed. The share that is right must be answered."""
    random = Random(seed)
    for _ in range(count):
        asked = right(random)
        what = "right"
        if random.random() < broken_share:
            what = broken(asked, random)
        if broken_share:
            yield random.choice((_grpc, _grpc, _http, _http, _client))(what, asked, random)
        else:
            yield ClientCase(what, random.choice(("http", "grpc")), expected(asked), asked)


def _client(what: str, asked: Asked, random: Random) -> Case:
    return ClientCase(what, random.choice(("http", "grpc")), expected(asked), asked)


def _grpc(what: str, asked: Asked, random: Random) -> Case:
    try:
        body: bytes = to_grpc(asked).SerializeToString()
    except (ValueError, OverflowError):  # what no field can hold: HTTP has it
        return _http(what, asked, random)
    if random.random() < 0.7:
        return GrpcCase(what, body, expected(asked), asked)
    message = service_pb2.ModelInferRequest.FromString(body)
    roll = random.randrange(6)
    what += f" + message {roll}"
    if roll == 0 and message.inputs:
        message.inputs[0].contents.fp32_contents.extend([1.0] * random.choice((1, 4, 1000)))
    elif roll == 1:
        message.raw_input_contents.extend([bytes(16)] * random.choice((1, 3, 1000)))
    elif roll == 2:
        del message.raw_input_contents[:]
        for tensor in message.inputs:
            _typed_contents(tensor, random)
    elif roll == 3:
        message.parameters["slo_ms"].Clear()  # there, and no value of any type
    elif roll == 4:
        return _cut(what, body[: random.randrange(len(body) + 1)], asked)
    else:
        at = random.randrange(len(body) + 1)
        return _cut(
            what, body[:at] + random.choice((b"\xff", b"\xff" * 20, b"\0", random.randbytes(9))) + body[at:], asked
        )
    return GrpcCase(what, message.SerializeToString(), Expected(None, sure=False), asked)


def _typed_contents(tensor: Any, random: Random) -> None:
    contents, kind = tensor.contents, random.randrange(4)
    if kind == 0:
        contents.bytes_contents.extend([b"\xff\xfe", b""])
    elif kind == 1:
        contents.int64_contents.extend([2**63 - 1, -1])
    elif kind == 2:
        contents.fp64_contents.extend([float("nan")] * 40)
    else:
        contents.bool_contents.extend([True] * 4)


def _cut(what: str, body: bytes, asked: Asked) -> Case:
    """Bytes that may be no message, or another one."""
    try:
        service_pb2.ModelInferRequest.FromString(body)
    except DecodeError:
        return GrpcCase(what, body, REFUSED, asked)
    return GrpcCase(what, body, Expected(None, sure=False), asked)


def _http(what: str, asked: Asked, random: Random) -> Case:
    binary = random.random() < 0.5 or any(_too_large_for_json(tensor) for tensor in asked.inputs)
    try:
        head, tail = to_http(asked, binary)
    except (ValueError, UnicodeDecodeError):
        binary = True
        head, tail = to_http(asked, binary)
    path = f"/v2/models/{_quoted(asked.model, random)}"
    if asked.version:
        path += f"/versions/{_quoted(asked.version, random)}"
    path += "/infer"
    headers = [("Inference-Header-Content-Length", str(len(head)))] if binary else []
    right = HttpCase(what, "POST", path, tuple(headers), head + tail, expected(asked), asked)
    if random.random() < 0.6:
        return right
    kind, wrong = random.choice(_HTTP_FAULTS)
    return wrong(f"{what} + {kind}", right, len(head), random)


def _too_large_for_json(tensor: Tensor) -> bool:
    """True where tritonserver 2.51 would set memory aside for what the shape says, which ends it: see test_limits."""
    return abs(math.prod(tensor.shape)) > 10**7


def _quoted(name: str, random: Random) -> str:
    if random.random() < 0.5:
        return "".join(c if c.isalnum() and c.isascii() else "".join(f"%{b:02x}" for b in c.encode()) for c in name)
    return name.replace("\0", "%00").replace("\r\n", "%0d%0a").replace(" ", "%20").replace("ü", "%c3%bc")


def _made(case: HttpCase, what: str, expected: Expected, **changes: Any) -> HttpCase:
    return HttpCase(**{**vars(case), "what": what, "expected": expected, **changes})


def _header_length(what: str, case: HttpCase, head: int, random: Random) -> HttpCase:
    lengths = (
        0,
        -1,
        1,
        head - 1,
        head + 1,
        len(case.body) + 1,
        2**31,
        2**63,
        "abc",
        "",
        "1e3",
        f"{head} ",
        "9" * 400,
        f"+{head}",
        f"{head}.0",
    )
    length = str(random.choice(lengths))
    allowed = case.expected if length.strip().removeprefix("+") == str(head) else Expected(None, sure=False)
    return _made(case, f"{what} {length[:20]}", allowed, headers=(("Inference-Header-Content-Length", length),))


def _short_body(what: str, case: HttpCase, head: int, random: Random) -> HttpCase:
    """Fewer bytes than Content-Length, and then no more."""
    body = case.body[: random.choice((0, 1, head - 1, head, random.randrange(len(case.body) + 1)))]
    headers = (*case.headers, ("Content-Length", str(len(case.body) + 1)))
    return _made(case, what, REFUSED, body=body, headers=headers, closes=True)


def _cut_body(what: str, case: HttpCase, head: int, random: Random) -> HttpCase:
    """Content-Length is right, the JSON is not."""
    return _made(case, what, REFUSED, body=case.body[: random.randrange(head)])


def _json_text(what: str, case: HttpCase, head: int, random: Random) -> HttpCase:  # noqa: ARG001 - one of several
    """Another text in the JSON's place."""
    deep = random.choice((50, 10_000))  # 100,000 end tritonserver 2.51: see test_limits
    texts = (
        b"",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"{}",
        b"{",
        b'{"inputs": 3}',
        b'{"inputs": {}}',
        b'{"inputs": [3]}',
        b'{"inputs": [{}]}',
        b'{"inputs": [{"name": 3, "shape": "x", "datatype": [], "data": {}}]}',
        b"\xff\xfe",
        b"\0" * 10,
        random.randbytes(100),
        b"[" * deep,
        b'{"inputs": ' + b"[" * deep + b"]" * deep + b"}",
        b'{"inputs": [], "outputs": [[]]}',
        b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ["a", null, {}, []]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 1e999]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [[[[1, 2, 3]]]]}]}',
        b'{"inputs": [{"name": "x", "shape": [1.5, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": -1}}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 1e30}}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}], "parameters": []}',
    )
    return _made(case, what, REFUSED, body=random.choice(texts), headers=())


def _json_value(what: str, case: HttpCase, head: int, random: Random) -> HttpCase:
    """Another value at one place of the JSON."""
    document = json.loads(case.body[:head])
    places: list[tuple[Any, Any]] = []
    _places(document, places)
    # A number in a shape may be one that `_too_large_for_json` is about.
    places = [
        (holder, key)
        for holder, key in places
        if not (isinstance(key, int) and all(isinstance(n, int) for n in holder))
    ]
    holder, key = random.choice(places)
    if random.random() < 0.2:
        del holder[key]
    else:
        holder[key] = random.choice((None, True, -1, 1.5, 2**63, 10**30, "", "x", [], {}, [[]], {"a": []}))
    body = json.dumps(document).encode()
    headers = tuple((name, str(len(body))) for name, _ in case.headers)
    return _made(case, f"{what} {key}", Expected(None, sure=False), body=body + case.body[head:], headers=headers)


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys)[:50]:
        found.append((value, key))
        _places(value[key], found)


def _method(what: str, case: HttpCase, head: int, random: Random) -> HttpCase:  # noqa: ARG001 - one of several
    return _made(case, what, REFUSED, method=random.choice(("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")))


def _encoding(what: str, case: HttpCase, head: int, random: Random) -> HttpCase:  # noqa: ARG001 - one of several
    encoding = random.choice(("gzip", "deflate", "br", "x", "gzip, gzip"))
    body = random.choice((case.body, gzip.compress(case.body)[:-9], random.randbytes(64), b""))
    return _made(
        case, what, Expected(None, sure=False), body=body, headers=(*case.headers, ("Content-Encoding", encoding))
    )


def _path(what: str, case: HttpCase, head: int, random: Random) -> HttpCase:  # noqa: ARG001 - one of several
    paths = (
        "/v2/models/target/infer/",
        "/v2/models//infer",
        "/v2/models/target/versions//infer",
        "/v2/models/../models/target/infer",
        "/v2/models/target/versions/1/infer/x",
        "/v2//models/target/infer",
        "/",
        "/v2/models/target/inferx",
        "/v2/models/%/infer",
        "/v2/models/target/generate",
        "/v2/models/target/generate_stream",
        "/v2/models/target?x=1",
        "/v3/models/target/infer",
        "/v2/models/" + "a/" * 3000 + "infer",
        "/v2/models/%00/infer",
        "/v2/models/target/versions/%2e%2e/infer",
    )
    return _made(case, what, REFUSED, path=random.choice(paths))


_HTTP_FAULTS: tuple[tuple[str, Callable[[str, HttpCase, int, Random], HttpCase]], ...] = (
    ("header length", _header_length),
    ("short body", _short_body),
    ("cut body", _cut_body),
    ("JSON text", _json_text),
    ("JSON value", _json_value),
    ("JSON value", _json_value),
    ("method", _method),
    ("encoding", _encoding),
    ("path", _path),
)
