"""The picker's answers, in the messages that Envoy sends and reads."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as messages

from backend.errors import RequestError
from backend.route_process.model_name import Asked
from backend.route_process.picker import Destinations, Picker, Refusal

HTTP = {":path": "/v2/models/m/infer"}
GRPC = {":path": "/inference.GRPCInferenceService/ModelInfer", "content-type": "application/grpc"}
KEY = "x-gateway-destination-endpoint"


class Router:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, answer: Destinations | Refusal | Exception) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.failures = 0

    def route(self, asked: Asked) -> Destinations | Refusal:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def failed(self) -> None:
        self.failures += 1


def question(
    headers: Mapping[str, str], extracted: Mapping[str, list[str]] | None = None, *, as_text: bool = False
) -> bytes:
    request = messages.ProcessingRequest()
    for name, value in headers.items():
        header = request.request_headers.headers.headers.add(key=name)
        if as_text:
            header.value = value
        else:
            header.raw_value = value.encode()
    data: bytes = request.SerializeToString()
    if extracted is not None:
        metadata = base_pb2.Metadata()
        found = metadata.filter_metadata["envoy.filters.http.grpc_field_extraction"]
        for name, values in extracted.items():
            found.get_or_create_list(name).extend(values)
        context = metadata.SerializeToString()
        assert len(context) < 1 << 14
        data += bytes([8 << 3 | 2, len(context) & 0x7F | 0x80, len(context) >> 7]) + context
    return data


def asked(router: Router, message: bytes) -> messages.ProcessingResponse:
    return messages.ProcessingResponse.FromString(Picker(router.route, router.failed).answer(message))


@pytest.mark.parametrize("as_text", [False, True])
def test_the_picked_addresses_are_in_header_and_metadata(as_text: bool) -> None:
    router = Router(Destinations(("10.0.0.1:8000", "10.0.0.2:8000"), "7:1"))
    found = asked(router, question(HTTP, as_text=as_text))

    (option,) = found.request_headers.response.header_mutation.set_headers
    assert (option.header.key, option.header.raw_value) == (KEY, b"10.0.0.1:8000,10.0.0.2:8000")
    assert found.dynamic_metadata["envoy.lb"][KEY] == "10.0.0.1:8000,10.0.0.2:8000"
    assert found.dynamic_metadata["isochrone"]["pick"] == "7:1"
    assert router.asked == [Asked(False, "m", "", True)]


def test_the_model_is_what_envoy_extracted() -> None:
    router = Router(Destinations())
    asked(router, question(GRPC, {"model_name": ["bert"], "inputs.shape": ["4", "2"]}))
    assert router.asked == [Asked(True, "bert", "", True, rows=4)]


def test_with_nothing_to_say_envoy_goes_on_by_itself() -> None:
    found = asked(Router(Destinations()), question(HTTP))
    assert found.WhichOneof("response") == "request_headers"
    assert not found.request_headers.response.header_mutation.set_headers
    assert not found.dynamic_metadata.fields


def test_a_refusal_over_http_is_in_tritons_words() -> None:
    found = asked(Router(Refusal('no server holds model "m"', 404)), question(HTTP)).immediate_response
    assert found.status.code == 404
    assert json.loads(found.body) == {"error": 'no server holds model "m"'}
    (option,) = found.headers.set_headers
    assert (option.header.key, option.header.raw_value) == ("content-type", b"application/json")


@pytest.mark.parametrize(("status", "grpc_status"), [(404, 5), (503, 14), (400, 3)])
def test_a_refusal_over_grpc_has_its_status(status: int, grpc_status: int) -> None:
    found = asked(Router(Refusal("no", status)), question(GRPC)).immediate_response
    assert (found.grpc_status.status, found.body) == (grpc_status, "no")


def test_a_bad_header_is_the_requests_own_fault() -> None:
    router = Router(Destinations())
    found = asked(router, question(HTTP | {"x-isochrone-slo-ms": "soon"})).immediate_response
    assert found.status.code == 400
    assert "header 'x-isochrone-slo-ms' is 'soon'" in found.body
    assert router.asked == []
    refused = asked(Router(RequestError("so")), question(HTTP)).immediate_response
    assert (refused.status.code, json.loads(refused.body)) == (400, {"error": "so"})


@pytest.mark.parametrize("message", [question(HTTP), b"\xff\xff"])
def test_an_error_of_the_router_leaves_the_request_to_envoy(message: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    router = Router(KeyError("a bug"))
    found = asked(router, message)
    assert found.WhichOneof("response") == "request_headers"
    assert not found.request_headers.response.header_mutation.set_headers
    assert router.failures == 1
    assert "a request is left to Envoy, by an error of the router" in capsys.readouterr().err


def test_other_messages_change_nothing() -> None:
    message = messages.ProcessingRequest()
    message.response_headers.SetInParent()
    assert asked(Router(Destinations()), message.SerializeToString()).WhichOneof("response") == "response_headers"
