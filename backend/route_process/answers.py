"""Envoy's access log, sent to the router as requests end: which picks have their answers. No request waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from envoy.service.accesslog.v3 import als_pb2

PICK_METADATA, PICK_KEY = "isochrone", "pick"
"""Metadata in which a request carries its pick to the access log."""
_METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


class Answers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The service that Envoy logs to. answered: called with each pick that has its answer."""

    def __init__(self, answered: Callable[[str], None]) -> None:
        self._answered = answered
        self._handler = grpc.stream_unary_rpc_method_handler(self._stream)

    def service(self, call: Any) -> Any:
        """Find the handler of a method, None where it is not this service's."""
        return self._handler if call.method == _METHOD else None

    async def _stream(self, logged: AsyncIterator[bytes], _: Any) -> bytes:
        async for message in logged:
            self.take(message)
        return b""

    def take(self, message: bytes) -> None:
        """Take one StreamAccessLogsMessage, serialised."""
        for entry in als_pb2.StreamAccessLogsMessage.FromString(message).http_logs.log_entry:
            metadata = entry.common_properties.metadata.filter_metadata
            if PICK_METADATA in metadata:
                self._answered(metadata[PICK_METADATA].fields[PICK_KEY].string_value)
