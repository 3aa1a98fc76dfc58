"""Envoy's access log, in the messages that Envoy sends."""

from __future__ import annotations

from envoy.service.accesslog.v3 import als_pb2

from backend.route_process.answers import Answers


def test_each_picked_request_in_the_log_has_its_answer() -> None:
    message = als_pb2.StreamAccessLogsMessage()
    for pick in ("a:1", None, "a:2"):
        metadata = message.http_logs.log_entry.add().common_properties.metadata.filter_metadata
        metadata["envoy.lb"]["x-gateway-destination-endpoint"] = "10.0.0.1:8000"
        if pick is not None:
            metadata["isochrone"]["pick"] = pick
    found: list[str] = []
    answers = Answers(found.append)
    answers.take(message.SerializeToString())
    answers.take(als_pb2.StreamAccessLogsMessage().SerializeToString())
    assert found == ["a:1", "a:2"]
