"""Opens a model file for a trial and runs it, with a limit on the time of each run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from backend.engines.onnxruntime.session import first_line, input_specs, open_session, output_specs
from backend.engines.protocol import EngineOptions, OnnxOptions
from backend.errors import EngineError
from backend.tensors import Array, TensorSpec
from backend.trial.intermediate_tensors import Look, is_small, with_all_outputs
from backend.trial.messages import Question
from backend.trial.search import Run

RUN_LIMIT_S = 4.0
_NOTHING_LOGGED = 4


class Opened(NamedTuple):
    """A model that is open. outputs: names of those that can be served; run: gives these.

    look: gives all tensors inside, None where that cannot be had.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[str]
    run: Run
    look: Look | None


@contextmanager
def opened(question: Question) -> Iterator[Opened]:
    """Open the model. ONNX runs on one CPU core wherever it is served: whether rows mix depends on the graph.

    Raises IsochroneError.
    """
    if question.engine == "onnxruntime":
        file = Path(question.file)
        session = open_session(file, onnx_options=question.onnx)
        outputs = [spec.name for spec in output_specs(session, file)]
        look = partial(_look, cache(partial(_with_all_outputs, file, question.onnx)))
        inputs = input_specs(session, file)
        yield Opened(inputs, outputs, partial(_run, session, outputs), look if is_small(file) else None)
        return
    from backend.engines.tensorrt.loading import open_plan  # noqa: PLC0415 - needs a GPU

    engine = open_plan(Path(question.file), EngineOptions(question.device_id, 1, question.rows_max))
    try:
        names = [spec.name for spec in engine.outputs]
        yield Opened(
            engine.inputs, names, lambda feeds: engine.run(0, {n: [a] for n, a in feeds.items()}, names).outputs, None
        )
    finally:
        engine.close()


def _with_all_outputs(file: Path, asked: OnnxOptions) -> tuple[onnxruntime.InferenceSession, list[str]]:
    content, names = with_all_outputs(file)
    return open_session(file, optimize=False, content=content, onnx_options=asked), names


def _look(
    open_once: Callable[[], tuple[onnxruntime.InferenceSession, list[str]]], feeds: Mapping[str, Array]
) -> Mapping[str, Array]:
    """Run for all tensors. Raises EngineError, also where the graph cannot be opened so."""
    try:
        session, names = open_once()
    except Exception as error:  # whatever onnx raises
        raise EngineError(first_line(error)) from None
    found = zip(names, _run(session, names, feeds), strict=True)
    return {name: array for name, array in found if isinstance(array, np.ndarray)}  # others are sequences


def _run(session: onnxruntime.InferenceSession, outputs: list[str], feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _NOTHING_LOGGED
    # A run that takes too long is terminated: ONNX Runtime checks between two operators.
    limit = threading.Timer(RUN_LIMIT_S, setattr, (options, "terminate", True))
    limit.daemon = True
    limit.start()
    try:
        found: list[Array] = session.run(outputs, dict(feeds), options)
    except Exception as error:  # ONNX Runtime's share no base class of their own
        if options.terminate:
            raise EngineError(f"it does not end within {RUN_LIMIT_S:g} s") from None
        raise EngineError(first_line(error)) from None
    finally:
        limit.cancel()
    return found
