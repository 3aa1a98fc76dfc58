"""Batching changes no answer: models whose rows meet, requests that fail, on a real server with one lane.

`backend: "isochrone"` is all that config.pbtxt says where a test does not name more. Each answer is held against ONNX
Runtime's to the request alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.batching_models import BARE, STATED
from tests.server.control import EXPLICIT, eventually, load, metric, remember_profile, request
from tests.server.harness import batchmates, write_model

F, I64 = np.float32, np.int64
Arrays = dict[str, npt.NDArray[Any]]
ONE_LANE = 'backend: "isochrone"\nparameters { key: "device_lanes" value { string_value: "1" } }\n'
SLOW_MS = 300
UNBATCHED = ("transpose", "detections", "sets", "sixty_fours", "quantised", "disagrees")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("models")
    for name, model in BARE.items():
        write_model(repository, name, model, ONE_LANE)
    for name, (model, stated) in STATED.items():
        write_model(repository, name, model, f"{ONE_LANE}{stated}\n")
    slow = write_model(repository, "slow", batchmates(SLOW_MS), f"{ONE_LANE}max_batch_size: 1\n")
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        remember_profile(server, slow, SLOW_MS)
        assert load(server, [*BARE, *STATED, "slow"]) == {}
        yield server


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[Any]:
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        yield client


def model_of(name: str) -> onnx.ModelProto:
    return BARE[name] if name in BARE else STATED[name][0]


def alone(name: str, arrays: Arrays) -> list[Any]:
    """ONNX Runtime's own answer."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model_of(name).SerializeToString(), options, ["CPUExecutionProvider"])
    found: list[Any] = session.run(["y"], arrays)
    return found


def ask(client: Any, name: str, arrays: Arrays) -> Any:
    return client.infer(name, request(triton_grpc, arrays)).as_numpy("y")


def ask_together(server: EmbeddedServer, client: Any, name: str, requests: Sequence[Arrays]) -> list[Any]:
    """Answers, or what was raised, of requests that wait for the lane together."""
    before = metric(server, "isochrone_requests_total", model="slow")
    with ThreadPoolExecutor(len(requests) + 1) as pool:
        held = pool.submit(client.infer, "slow", request(triton_grpc, {"x": np.zeros((1, 1), F)}))
        time.sleep(0.05)  # threads start in any order, and one that finds the lane free runs alone
        answers = [pool.submit(_answer, client, name, arrays) for arrays in requests]
        held.result()
        found = [answer.result() for answer in answers]
    eventually(lambda: metric(server, "isochrone_requests_total", model="slow") > before)
    return found


def _answer(client: Any, name: str, arrays: Arrays) -> Any:
    try:
        return ask(client, name, arrays)
    except InferenceServerException as error:
        return error


def assert_as_alone(name: str, requests: Sequence[Arrays], answers: Sequence[Any]) -> None:
    for arrays, answer in zip(requests, answers, strict=True):
        assert not isinstance(answer, Exception), answer
        (expected,) = alone(name, arrays)
        assert answer.shape == np.asarray(expected).shape
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)


def batches(server: EmbeddedServer, name: str) -> float:
    return metric(server, "isochrone_batches_total", model=name)


def rows_of(*values: float, width: int = 8) -> Arrays:
    """One row with these values first, and −1 after them."""
    row = np.full((1, width), -1, F)
    row[0, : len(values)] = values
    return {"x": row}


def some(shape: Sequence[int], seed: int) -> Arrays:
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(F)}


TOGETHER: Mapping[str, tuple[str, Sequence[Arrays]]] = {
    "time-major, of three steps": ("transpose", [some((1, 3, 4), 1), some((1, 3, 4), 2)]),
    "time-major, of two steps, as many as requests": ("transpose", [some((1, 2, 4), 1), some((1, 2, 4), 2)]),
    "two positives and none": ("detections", [rows_of(1, 2), rows_of()]),
    "one positive each": ("detections", [rows_of(1), rows_of(-1, 1)]),
    "one, one and two positives": ("detections", [rows_of(1), rows_of(-1, 1), rows_of(1, 1)]),
    "rows that look at each other": ("sets", [some((3, 4), 1), some((3, 4), 2), some((1, 4), 3)]),
    "the same, with max_batch_size: 0": ("sets_0", [some((3, 4), 1), some((3, 4), 2)]),
    "a scale for the whole batch": ("quantised", [some((1, 8), 1), {"x": 100 * some((1, 8), 2)["x"]}]),
    "a batch of 1 baked in": ("baked", [some((1, 16), 1), some((1, 16), 2)]),
    "a first dimension that two readings disagree on": ("disagrees", [some((1, 16), 1), some((1, 16), 2)]),
    "that one, with max_batch_size: 0": ("disagrees_0", [some((1, 16), 1), some((1, 16), 2)]),
    "that one, with max_batch_size: 1": ("disagrees_1", [some((1, 16), 1), some((1, 16), 2)]),
    "as many rows as 64 values": ("sixty_fours", [some((1, 128), 1), some((2, 64), 2)]),
    "batched against what the shapes say": (
        "transpose_8",
        [some((1, 3, 4), 1), some((1, 3, 4), 2), some((1, 3, 4), 3)],
    ),
    "a label per row": ("label", [some((1, 8), 1), some((2, 8), 2), some((1, 8), 3)]),
    "rows that mind their own business": ("plain", [some((1, 4), 1), some((3, 4), 2), some((1, 4), 3)]),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_requests_that_run_together_are_answered_as_alone(case: str, server: EmbeddedServer, client: Any) -> None:
    name, requests = TOGETHER[case]
    assert_as_alone(name, requests, ask_together(server, client, name, requests))


def test_a_model_is_batched_where_that_changes_nothing(server: EmbeddedServer, client: Any) -> None:
    before = batches(server, "plain")
    requests = [some((1, 4), seed) for seed in range(4)]
    assert_as_alone("plain", requests, ask_together(server, client, "plain", requests))
    eventually(lambda: batches(server, "plain") > before)
    assert batches(server, "plain") - before < len(requests)


@pytest.mark.parametrize("name", UNBATCHED)
def test_a_model_that_must_not_be_batched_is_not_and_the_log_says_why(
    name: str, server: EmbeddedServer, client: Any
) -> None:
    assert client.get_model_config(name, as_json=True)["config"].get("max_batch_size", 0) == 0
    assert f"isochrone: model '{name}': requests are not batched: " in server.log_text()


def test_dynamic_quantisation_is_named(server: EmbeddedServer) -> None:
    assert "it is quantised dynamically (DynamicQuantizeLinear)" in server.log_text()


def test_what_the_user_states_is_kept_and_a_warning_names_the_output(server: EmbeddedServer, client: Any) -> None:
    assert client.get_model_config("sets_8", as_json=True)["config"]["max_batch_size"] == 8
    assert (
        "isochrone: model 'sets_8': max_batch_size in config.pbtxt is 8, but batching changes answers: output 'y' "
    ) in server.log_text()
    assert client.get_model_config("plain_0", as_json=True)["config"].get("max_batch_size", 0) == 0


@pytest.mark.parametrize("name", ["table", "table_8"])
def test_of_a_batch_that_fails_only_the_bad_request_does(name: str, server: EmbeddedServer, client: Any) -> None:
    good = [{"ids": np.array([[i, i + 1, i + 2]], I64)} for i in range(5)]
    before = metric(server, "isochrone_batches_rerun_total", model=name)
    bad = {"ids": np.array([[1, 2, 1000]], I64)}

    def failed_are(count: int) -> bool:
        return metric(server, "isochrone_requests_total", model=name, outcome="failed") == count

    for asked in range(1, 6):
        *answers, error = ask_together(server, client, name, [*good, bad])
        assert_as_alone(name, good, answers)
        assert isinstance(error, InferenceServerException)
        assert "1000" in str(error)
        eventually(partial(failed_are, asked))
        if metric(server, "isochrone_batches_rerun_total", model=name) > before:  # else the bad one ran by itself
            break
    assert metric(server, "isochrone_batches_rerun_total", model=name) > before


def test_a_model_that_is_found_out_is_batched_no_more(server: EmbeddedServer, client: Any) -> None:
    """Its rows double where a value is larger than any that was tried."""
    requests = [some((1, 4), seed) for seed in range(4)]
    before = batches(server, "doubles_8")
    assert_as_alone("doubles_8", requests, ask_together(server, client, "doubles_8", requests))
    eventually(lambda: batches(server, "doubles_8") > before)
    assert batches(server, "doubles_8") < before + len(requests)
    large = [*requests, {"x": np.full((1, 4), 1e7, F)}]
    for _ in range(5):  # where the large one ran by itself, nothing was found out
        assert_as_alone("doubles_8", large, ask_together(server, client, "doubles_8", large))
        if "model 'doubles_8' cannot be batched" in server.log_text():
            break
    eventually(lambda: metric(server, "isochrone_batches_rerun_total", model="doubles_8") == 1)
    assert "isochrone: model 'doubles_8' cannot be batched: output 'y' has shape [" in server.log_text()
    before = batches(server, "doubles_8")
    assert_as_alone("doubles_8", large, ask_together(server, client, "doubles_8", large))
    eventually(lambda: batches(server, "doubles_8") == before + len(large))


@pytest.mark.parametrize("rows", [8, 12, 100])
def test_a_request_may_have_more_rows_than_batches_grow_to(rows: int, client: Any) -> None:
    for name, width in (("plain", 4), ("label", 8)):
        arrays = some((rows, width), rows)
        assert_as_alone(name, [arrays], [ask(client, name, arrays)])


def test_a_label_per_row_has_one_dimension(client: Any) -> None:
    assert ask(client, "label", some((1, 8), 1)).shape == (1,)
    assert ask(client, "label", some((3, 8), 1)).shape == (3,)


def test_a_scalar_is_one(server: EmbeddedServer, client: Any) -> None:
    arrays = some((3, 4), 1)
    with closing(triton_http.InferenceServerClient(server.http_url)) as http:
        over_http = http.infer("scalar", request(triton_http, arrays)).as_numpy("y")
    for answer in (ask(client, "scalar", arrays), over_http):
        assert answer.shape == ()
        np.testing.assert_allclose(answer, arrays["x"].sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["by_an_input", "by_dims"])
def test_an_output_of_unknown_rank_is_served_as_it_comes(name: str, client: Any) -> None:
    x = some((4, 4), 1)["x"]
    shapes = [[16], [2, 8], [2, 2, 4]] if name == "by_an_input" else [[2, 8]]
    for shape in shapes:
        answer = ask(client, name, {"x": x, "shape": np.array(shape)})
        np.testing.assert_array_equal(answer, x.reshape(shape))


def test_a_squeezed_output_is_served(client: Any) -> None:
    x = some((1, 3, 1), 1)["x"]
    assert ask(client, "squeezed", {"x": x, "axes": np.array([0])}).shape == (3, 1)
    assert ask(client, "squeezed", {"x": x, "axes": np.array([0, 2])}).shape == (3,)


@pytest.mark.parametrize("how", ["concat", "unsqueeze", "nodes", "cast", "slice"])
def test_a_reshape_by_computed_constants_loads_and_answers(how: str, client: Any) -> None:
    arrays = some((1, 16), 1)
    name = f"constants_{how}"
    assert_as_alone(name, [arrays], [ask(client, name, arrays)])


def test_strings_are_batched_too(server: EmbeddedServer, client: Any) -> None:
    requests = [{"x": np.array([[f"{i}", "a", "ä", ""]], np.object_)} for i in range(3)]
    for arrays, answer in zip(requests, ask_together(server, client, "text", requests), strict=True):
        assert [item.decode() for item in answer.ravel()] == arrays["x"].ravel().tolist()
