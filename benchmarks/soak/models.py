"""Models of a soak: batched and alone, of any length, text, large answers, strict deadlines, short queues.

Each draws requests whose right answer is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from numpy.random import Generator
from onnx import helper

from tests.server.harness import batchmates, graph, identity, mlp, mlp_answer, write_model

Array = npt.NDArray[np.generic]
SHARED_SHAPE = (1, 16_384)
"""Of the tensors that travel in the client's shared memory."""
_WIDTH, _TABLE_ROWS, _ROWS_MAX = 16, 256, 4
_LENGTH_MAX, _TEXTS_MAX = 4_096, 40
_LARGE_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Few sizes, so that what allocators keep of each is kept soon."""
_WORDS = ("", "a", "grün", "Ω" * 50, "longer " * 30, "\n\t", "末")


@dataclass(frozen=True)
class SoakRequest:
    """Inputs, parameters, and a check of the answer `y`. refused: "" or the outcome that this request is to have."""

    inputs: Mapping[str, Array]
    right: Callable[[Array], bool]
    parameters: Mapping[str, str | int | float] = field(default_factory=dict)
    refused: str = ""


@dataclass(frozen=True)
class SoakModel:
    """A model, its config.pbtxt and how requests for it are drawn.

    solo_ms, max_batch_size: as if it had been profiled before, which saves the measuring at each load.
    """

    name: str
    model: onnx.ModelProto
    config: str
    draw: Callable[[Generator], SoakRequest]
    solo_ms: float = 0.2
    max_batch_size: int = 8

    def write(self, repository: Path, **parameters: str) -> None:
        """Writes its folder. parameters: of this backend, beside those of its configuration."""
        write_model(repository, self.name, self.model, self.config + "".join(_lines(parameters)))


def soak_models(large_mb: float) -> list[SoakModel]:
    """large_mb: of the largest answer."""
    one, two, three, four, five = (mlp(_WIDTH, 3, seed, hidden=256) for seed in range(5))
    return [
        SoakModel("batched", one, _config(8), _rows_of(one)),
        SoakModel("in_order", two, _config(8, interference_aware="false"), _rows_of(two)),
        SoakModel("in_engine_process", three, _config(8, engine_process="shared"), _rows_of(three)),
        SoakModel("reloaded", four, _config(8), _rows_of(four)),
        SoakModel("comes_and_goes", five, _config(8), _rows_of(five)),
        SoakModel("lengths", _doubled(), _config(8), _any_length),
        SoakModel("texts", identity(object, ("n",)), _config(8), _any_text),
        SoakModel("large", _spread(), _config(0), _answers_up_to(large_mb), 5.0, 0),
        SoakModel("shared", identity(np.float32, SHARED_SHAPE[1:]), _config(8), _of_the_shared_shape),
        SoakModel("strict", batchmates(3.0), _config(8, on_miss="reject"), _with_deadlines, 3.0),
        SoakModel("short_queue", batchmates(4.0), _config(4, max_queue_size="4"), _numbered, 4.0, 4),
        SoakModel("given_up", batchmates(100.0), _config(1), _numbered, 100.0, 1),
    ]


def numbered(number: int) -> SoakRequest:
    """A request to a model of `batchmates`, which answers with the numbers of all that ran with it."""
    return SoakRequest({"x": np.full((1, 1), number, np.float32)}, lambda y: number in y.ravel())


def _config(max_batch_size: int, **parameters: str) -> str:
    return "".join(['backend: "isochrone"\n', f"max_batch_size: {max_batch_size}\n", *_lines(parameters)])


def _lines(parameters: Mapping[str, str]) -> list[str]:
    return [f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in parameters.items()]


def _doubled() -> onnx.ModelProto:
    """`x` FP32 [batch, n] → `y`, twice as much."""
    tensor = (np.float32, ["batch", "n"])
    return graph([helper.make_node("Add", ["x", "x"], ["y"])], {"x": tensor}, {"y": tensor})


def _spread() -> onnx.ModelProto:
    """`n` INT64 [1] → `y` FP32 [n] of ones."""
    nodes = [helper.make_node("Expand", ["one", "n"], ["y"])]
    return graph(nodes, {"n": (np.int64, [1])}, {"y": (np.float32, ["many"])}, {"one": np.ones(1, np.float32)})


def _rows_of(model: onnx.ModelProto) -> Callable[[Generator], SoakRequest]:
    x = np.random.default_rng(0).standard_normal((_TABLE_ROWS, _WIDTH)).astype(np.float32)
    y = mlp_answer(model, x)

    def draw(random: Generator) -> SoakRequest:
        rows = int(random.integers(1, _ROWS_MAX + 1))
        at = int(random.integers(0, _TABLE_ROWS - rows))
        expected = y[at : at + rows]
        return SoakRequest({"x": x[at : at + rows]}, lambda got: _close(got, expected), _objective(random))

    return draw


def _objective(random: Generator) -> dict[str, str | int | float]:
    """Nothing, or an objective and a class."""
    if random.random() < 0.5:
        return {}
    return {"slo_ms": float(random.choice([5.0, 20.0, 100.0])), "priority_class": int(random.integers(1, 4))}


def _any_length(random: Generator) -> SoakRequest:
    x = random.standard_normal((int(random.integers(1, 3)), int(random.integers(1, _LENGTH_MAX)))).astype(np.float32)
    return SoakRequest({"x": x}, lambda y: np.array_equal(y, x + x))


def _any_text(random: Generator) -> SoakRequest:
    words = random.choice(np.array(_WORDS, object), (1, int(random.integers(1, _TEXTS_MAX))))
    expected = [word.encode() for word in words.ravel()]
    return SoakRequest({"x": words}, lambda y: y.ravel().tolist() == expected)


def _answers_up_to(large_mb: float) -> Callable[[Generator], SoakRequest]:
    def draw(random: Generator) -> SoakRequest:
        count = int(random.choice(_LARGE_SHARES) * large_mb * 1e6 / 4)
        return SoakRequest({"n": np.array([count], np.int64)}, lambda y: y.shape == (count,) and bool(np.all(y == 1)))

    return draw


def _of_the_shared_shape(random: Generator) -> SoakRequest:
    x = random.standard_normal(SHARED_SHAPE).astype(np.float32)
    return SoakRequest({"x": x}, lambda y: np.array_equal(y, x))


def _numbered(random: Generator) -> SoakRequest:
    return numbered(int(random.integers(1 << 20)))


def _with_deadlines(random: Generator) -> SoakRequest:
    request = _numbered(random)
    slo_ms = float(random.choice([0.001, 2.0, 10.0, 60.0, 1_000.0]))
    return SoakRequest(request.inputs, request.right, {"slo_ms": slo_ms, "priority_class": int(random.integers(1, 4))})


def _close(got: Array, expected: npt.NDArray[np.float32]) -> bool:
    return got.shape == expected.shape and np.allclose(got.astype(np.float32), expected, rtol=1e-3, atol=1e-4)
