"""One case on a running server: loaded with `backend: "isochrone"` alone, asked over gRPC, judged, unloaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.onnx_nodes.cases import Case, is_random
from tests.onnx_nodes.reference import Arrays, Reference, difference, reference
from tests.server.control import load, request
from tests.server.harness import write_model

CONFIG = 'backend: "isochrone"\n'
_ANSWER_S = 30.0
_SHIPPED = 1e-3
"""How far ONNX's own answers may be off, as a share of the largest value: they come from another implementation."""
_SENTENCE = "isochrone cannot load model "
_TRITONS_TRACE = "\n\nAt:\n"
"""What pybind11 puts after the message of any exception that a Python model raises."""

Kind = Literal["equal", "refused", "fails", "wrong"]


@dataclass(frozen=True)
class Verdict:
    """refused: at load, as it had to be. fails: its request, as in ONNX Runtime itself. wrong: anything else.

    why: of one that is wrong, all that is known; of the others, in a word or two.
    """

    case: Case
    kind: Kind
    why: str = ""


def write(repository: Path, case: Case) -> None:
    write_model(repository, case.name, case.file.read_bytes(), CONFIG)


def judge(server: EmbeddedServer, case: Case) -> Verdict:
    """Never raises for what a server may do; the model is unloaded at the end."""
    inputs = case.inputs()
    right = reference(case.file, inputs)
    sentence = load(server, [case.name]).get(case.name, "")
    if sentence:
        return _refused(case, right, sentence)
    with closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        try:
            answer = client.infer(case.name, _inputs(inputs or {}), client_timeout=_ANSWER_S)
        except InferenceServerException as error:
            return _failed(case, right, error)
        finally:
            client.unload_model(case.name)
    got = {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}
    return _answered(case, right, got)


def _inputs(arrays: Arrays) -> list[Any]:
    """Triton's tensors have dimensions, and its text is an array of objects."""
    return request(triton_grpc, {name: array.reshape(array.shape or (1,)) for name, array in arrays.items()})


def _refused(case: Case, right: Reference, text: str) -> Verdict:
    sentence = text.partition(_SENTENCE)[2].partition(_TRITONS_TRACE)[0]
    if right.outputs is not None or right.fails == "run":
        return Verdict(case, "wrong", f"refused: {sentence or text}")
    if not sentence or "\n" in sentence or right.sign not in sentence:
        return Verdict(case, "wrong", f"not refused in a sentence that says why: {text}")
    return Verdict(case, "refused", _reason(right))


def _reason(right: Reference) -> str:
    if right.fails == "load":
        return "ONNX Runtime cannot load it"
    return "not a type of Triton's" if right.sign.startswith("tensor") else "a sequence or an optional"


def _failed(case: Case, right: Reference, error: InferenceServerException) -> Verdict:
    if right.fails == "run" and error.status() == "StatusCode.INTERNAL" and "\n" not in str(error):
        return Verdict(case, "fails")
    return Verdict(case, "wrong", f"failed: {error}")


def _answered(case: Case, right: Reference, got: Mapping[str, Any]) -> Verdict:
    if right.outputs is None:
        return Verdict(case, "wrong", f"answered, but {right.fails}")
    if set(got) != set(right.outputs):
        return Verdict(case, "wrong", f"answered with {sorted(got)}, not {sorted(right.outputs)}")
    values = not is_random(case.model())
    for name, wanted in right.outputs.items():
        if why := difference(got[name], wanted, values):
            return Verdict(case, "wrong", f"'{name}' {why}")
    return Verdict(case, "equal", "" if _as_shipped(case, got) else "ONNX Runtime differs from ONNX's own answer")


def _as_shipped(case: Case, got: Mapping[str, Any]) -> bool:
    answers = case.answers() or {}
    return all(not difference(got[name], wanted, share=_SHIPPED) for name, wanted in answers.items())
