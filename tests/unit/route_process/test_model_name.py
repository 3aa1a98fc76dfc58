"""What a request's head gives away of it."""

from __future__ import annotations

import pytest

from backend.errors import RequestError
from backend.route_process.model_name import Asked, read_head

INFER = "/inference.GRPCInferenceService/ModelInfer"


def over_http(path: str, **headers: str) -> Asked:
    return read_head({":path": path} | {name.replace("_", "-"): value for name, value in headers.items()}, {})


def over_grpc(path: str = INFER, extracted: dict[str, list[str]] | None = None, **headers: str) -> Asked:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_head({":path": path, "content-type": "application/grpc"} | named, extracted or {})


@pytest.mark.parametrize(
    ("path", "model", "version", "infers"),
    [
        ("/v2/models/resnet50/infer", "resnet50", "", True),
        ("/v2/models/resnet50/versions/3/infer", "resnet50", "3", True),
        ("/v2/models/resnet50/infer?x=1", "resnet50", "", True),
        ("/v2/models/a%20b/generate", "a b", "", True),
        ("/v2/models/m/generate_stream", "m", "", True),
        ("/v2/models/m", "m", "", False),
        ("/v2/models/m/ready", "m", "", False),
        ("/v2/models/m/versions/1/stats", "m", "1", False),
        ("/v2/models/inference", "inference", "", False),
        ("/v2/models//infer", "", "", False),
        ("/v2/models", "", "", False),
        ("/v2/health/ready", "", "", False),
        ("/v2/repository/index", "", "", False),
        ("/", "", "", False),
    ],
)
def test_the_model_of_an_http_request_is_in_its_path(path: str, model: str, version: str, infers: bool) -> None:
    assert over_http(path) == Asked(False, model, version, infers)


def test_the_model_of_a_grpc_request_is_what_envoy_found_in_its_message() -> None:
    found = {"model_name": ["bert"], "model_version": ["2"], "inputs.shape": ["8", "3", "224"]}
    assert over_grpc(extracted=found) == Asked(True, "bert", "2", True, rows=8)


def test_a_grpc_client_may_name_the_model_itself() -> None:
    found = {"model_name": ["other"], "model_version": [], "inputs.shape": ["8"]}
    assert over_grpc(extracted=found, x_isochrone_model="bert") == Asked(True, "bert", "", True)
    assert over_grpc(x_isochrone_model="bert", x_isochrone_model_version="2").version == "2"


def test_other_grpc_calls_name_a_model_too() -> None:
    found = {"name": ["bert"], "version": ["2"]}
    assert over_grpc("/inference.GRPCInferenceService/ModelReady", found) == Asked(True, "bert", "2")


def test_a_grpc_request_that_names_no_model_has_none() -> None:
    assert over_grpc() == Asked(True, infers=True)
    assert over_grpc("/inference.GRPCInferenceService/ServerLive") == Asked(True)


@pytest.mark.parametrize(("shape", "rows"), [([], 1), (["0"], 1), (["-1"], 1), (["x"], 1), (["4", "2"], 4)])
def test_rows_are_the_first_dimension_of_the_first_input(shape: list[str], rows: int) -> None:
    assert over_grpc(extracted={"model_name": ["m"], "inputs.shape": shape}).rows == rows


def test_objective_and_class_are_in_headers() -> None:
    asked = over_http("/v2/models/m/infer", x_isochrone_slo_ms="12.5", x_isochrone_priority="2")
    assert (asked.slo_ns, asked.priority) == (12_500_000, 2)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-isochrone-slo-ms", "0"),
        ("x-isochrone-slo-ms", "-1"),
        ("x-isochrone-slo-ms", "nan"),
        ("x-isochrone-slo-ms", "soon"),
        ("x-isochrone-slo-ms", "1e300"),
        ("x-isochrone-priority", "0"),
        ("x-isochrone-priority", "1.5"),
        ("x-isochrone-priority", ""),
    ],
)
def test_a_header_that_says_nothing_usable_is_named(header: str, value: str) -> None:
    with pytest.raises(RequestError, match=f"header '{header}' is '{value}', but must be"):
        read_head({":path": "/v2/models/m/infer", header: value}, {})
