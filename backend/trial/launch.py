"""Runs the trial of a model file in a process of its own, and keeps its result in the runtime folder."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec

from backend.errors import ServerError
from backend.runtime_dir import runtime_dir
from backend.trial.messages import SCHEMA, Question, Trial
from backend.trial.process import WALL_S
from profiler.child import Attend, ChildError, answer_of
from profiler.store import keep_newest, read_json, write_json

_FILES_MAX = 256
_NOT_LASTING_S = 120.0
"""Life of a result that another trial may not repeat: a load asks twice."""


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trial in a file."""

    schema: int
    question: Question
    trial: Trial


def try_file(question: Question, *, batch: bool, attend: Attend | None = None) -> Trial:
    """Result of the file's trial, run now where none is kept. Never raises: a trial that fails says why.

    batch: try batching, too.
    """
    path = _remembered_path(question)
    if path is not None and (known := _read(path, question)) is not None and (known.batch or not batch):
        return known
    arguments = [msgspec.json.encode(question).decode(), *(["batch"] if batch else [])]
    try:
        found = answer_of("backend.trial.process", arguments, Trial, timeout_s=WALL_S, attend=attend)
    except ChildError as error:
        found = Trial(batch=batch, why=f"its trial on synthetic inputs failed ({error})", lasting=False)
    if path is not None:
        remember(path, question, found)
    return found


def _remembered_path(question: Question) -> Path | None:
    """File of a question's trial, None where the runtime folder cannot be used."""
    try:
        return runtime_dir() / "trials" / remembered_name(question)
    except ServerError:
        return None


def remembered_name(question: Question) -> str:
    """Name of the file that keeps a question's trial."""
    return f"{hashlib.sha256(msgspec.json.encode((SCHEMA, question))).hexdigest()}.json"


def remember(path: Path, question: Question, trial: Trial) -> None:
    """Keep a result for the next load, where the folder lets it."""
    try:
        write_json(path, Remembered(SCHEMA, question, trial))
        keep_newest(path.parent, _FILES_MAX)
    except OSError:
        return


def _read(path: Path, question: Question) -> Trial | None:
    found = read_json(path, Remembered)
    if found is None or (found.schema, found.question) != (SCHEMA, question):
        return None
    if not found.trial.lasting and time.time() - path.stat().st_mtime > _NOT_LASTING_S:
        return None
    return found.trial
