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
        with _Limit() as limit:
            look = partial(_look, cache(partial(_with_all_outputs, file, question.onnx)), limit)
            yield Opened(
                input_specs(session, file),
                outputs,
                lambda feeds: _run(session, outputs, feeds, limit),
                look if is_small(file) else None,
            )
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
    open_once: Callable[[], tuple[onnxruntime.InferenceSession, list[str]]], limit: _Limit, feeds: Mapping[str, Array]
) -> Mapping[str, Array]:
    """Run for all tensors. Raises EngineError, also where the graph cannot be opened so."""
    try:
        session, names = open_once()
    except Exception as error:  # whatever onnx raises
        raise EngineError(first_line(error)) from None
    found = zip(names, _run(session, names, feeds, limit), strict=True)
    return {name: array for name, array in found if isinstance(array, np.ndarray)}  # others are sequences


def _run(
    session: onnxruntime.InferenceSession, outputs: list[str], feeds: Mapping[str, Array], limit: _Limit
) -> list[Array]:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _NOTHING_LOGGED
    try:
        with limit.of(lambda: setattr(options, "terminate", True)):
            found: list[Array] = session.run(outputs, dict(feeds), options)
    except Exception as error:  # ONNX Runtime's share no base class of their own
        if options.terminate:
            raise EngineError(f"it does not end within {RUN_LIMIT_S:g} s") from None
        raise EngineError(first_line(error)) from None
    return found


class _Limit:
    """A thread that terminates a run that takes too long: ONNX Runtime checks between two operators."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._expire: Callable[[], None] | None = None
        self._runs = 0
        self._closed = False
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Limit:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def of(self, expire: Callable[[], None]) -> Iterator[None]:
        with self._changed:
            self._expire, self._runs = expire, self._runs + 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._expire = None

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                if self._expire is None:
                    self._changed.wait()
                    continue
                run = self._runs
                self._changed.wait_for(lambda run=run: self._closed or self._runs != run, RUN_LIMIT_S)  # type: ignore[misc]
                if self._expire is not None and self._runs == run:
                    self._expire()
                    self._expire = None
