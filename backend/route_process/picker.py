"""Envoy's side of the router: its external processing calls, one message and its answer each.

The stream is closed after the answer, so that neither side keeps it for as long as the request runs. Whatever goes
wrong here leaves the request to Envoy's own balancing.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as messages
from google.protobuf.unknown_fields import UnknownFieldSet

from backend.errors import RequestError
from backend.route_process.answers import PICK_KEY, PICK_METADATA
from backend.route_process.envoy_config import DESTINATION, DESTINATION_METADATA, EXTRACTION
from backend.route_process.model_name import Asked, is_grpc, read_head
from backend.route_process.subscriptions import say

_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
_METADATA_CONTEXT = 8
"""Number of ProcessingRequest.metadata_context, which the messages of xds-protos 1.62 do not name."""
_GRPC_STATUS = {400: 3, 404: 5, 503: 14}
"""HTTP's status to gRPC's: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE."""
_ANSWERS_KEPT = 4096


class Destinations(NamedTuple):
    """Addresses, the best first; none leaves the request to Envoy. pick: by which its answer is known; "" for none."""

    addresses: tuple[str, ...] = ()
    pick: str = ""


class Refusal(NamedTuple):
    """An answer in a server's place: a sentence, and HTTP's status."""

    reason: str
    status: int


Route = Callable[[Asked], Destinations | Refusal]


class Picker(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The service that Envoy calls. failed: called once for each request that an error of ours left to Envoy."""

    def __init__(self, route: Route, failed: Callable[[], None]) -> None:
        self._route, self._failed = route, failed
        # Envoy's stream, of which one message is read: answer and status leave in one write.
        self._handler = grpc.unary_unary_rpc_method_handler(self._process)

    def service(self, call: Any) -> Any:
        """Find the handler of a method, None where it is not this service's."""
        return self._handler if call.method == f"/{_SERVICE}/Process" else None

    async def _process(self, message: bytes, _: Any) -> bytes:
        return self.answer(message)

    def answer(self, message: bytes) -> bytes:
        """Answer a ProcessingRequest by a ProcessingResponse, both serialised."""
        try:
            request = messages.ProcessingRequest.FromString(message)
            if not request.HasField("request_headers"):
                return _continue(request.WhichOneof("request"))
            headers = _headers(request)
            try:
                found = self._route(read_head(headers, _extracted(request)))
            except RequestError as error:
                found = Refusal(str(error), 400)
            if isinstance(found, Refusal):
                return _refuse(found, over_grpc=is_grpc(headers))
            if not found.addresses:
                return _continue("request_headers")
            return _send_to(",".join(found.addresses)) + (_mark(found.pick) if found.pick else b"")
        except Exception:
            say(f"a request is left to Envoy, by an error of the router: {traceback.format_exc()}")
            self._failed()
            return _continue("request_headers")


def _headers(request: Any) -> dict[str, str]:
    """Envoy gives values as bytes or, if it is old, as text."""
    return {
        header.key: header.raw_value.decode(errors="replace") if header.raw_value else header.value
        for header in request.request_headers.headers.headers
    }


def _extracted(request: Any) -> dict[str, list[str]]:
    """Fields that Envoy's filter found in the message."""
    for field in UnknownFieldSet(request):
        if field.field_number == _METADATA_CONTEXT:
            metadata = base_pb2.Metadata.FromString(field.data)
            fields = metadata.filter_metadata[EXTRACTION].fields
            return {name: [v.string_value for v in found.list_value.values] for name, found in fields.items()}
    return {}


@lru_cache(_ANSWERS_KEPT)
def _send_to(addresses: str) -> bytes:
    response = messages.ProcessingResponse()
    mutation = response.request_headers.response.header_mutation
    _set_header(mutation, DESTINATION, addresses)
    response.dynamic_metadata.get_or_create_struct(DESTINATION_METADATA)[DESTINATION] = addresses
    return bytes(response.SerializeToString())


def _mark(pick: str) -> bytes:
    """Metadata for the access log, to go behind a response: fields of one message add up."""
    response = messages.ProcessingResponse()
    response.dynamic_metadata.get_or_create_struct(PICK_METADATA)[PICK_KEY] = pick
    return bytes(response.SerializeToString())


@lru_cache(_ANSWERS_KEPT)
def _refuse(refusal: Refusal, *, over_grpc: bool) -> bytes:
    response = messages.ProcessingResponse()
    answer = response.immediate_response
    answer.status.code = refusal.status
    answer.details = "isochrone"
    if over_grpc:
        answer.grpc_status.status = _GRPC_STATUS[refusal.status]
        answer.body = refusal.reason
    else:
        answer.body = json.dumps({"error": refusal.reason})
        _set_header(answer.headers, "content-type", "application/json")
    return bytes(response.SerializeToString())


@lru_cache(16)
def _continue(kind: str | None) -> bytes:
    """Answer that changes nothing, for a message of this kind."""
    response = messages.ProcessingResponse()
    if kind is not None:
        getattr(response, kind).SetInParent()
    return bytes(response.SerializeToString())


def _set_header(mutation: Any, name: str, value: str) -> None:
    option = mutation.set_headers.add()
    option.header.key, option.header.raw_value = name, value.encode()
    option.append_action = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
