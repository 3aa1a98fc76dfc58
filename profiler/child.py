"""Runs a module of this code in a child process, so that memory needed for a moment does not stay in the caller."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import msgspec

_PR_SET_PDEATHSIG = 1
Attend = Callable[[subprocess.Popen[bytes]], AbstractContextManager[None]]
T = TypeVar("T")
CODE_ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the package `profiler`."""


class ChildError(RuntimeError):
    """The child did not answer; its text is one sentence that names the module and the reason."""


def run_module(
    module: str,
    arguments: Sequence[str],
    *,
    timeout_s: float,
    python: str = sys.executable,
    under: Sequence[str] = (),
    attend: Attend | None = None,
) -> bytes:
    """The last line that `python -m module arguments` prints, started by the command `under`, such as a profiler.

    attend: context in which the child is waited for. Raises `ChildError`.
    """
    command = [*under, *python_command(module, python), *arguments]
    try:
        status, stdout, stderr = _run(command, timeout_s, attend=attend)
    except subprocess.TimeoutExpired:
        raise ChildError(f"{module} did not finish within {timeout_s:g} s") from None
    except OSError as error:
        raise ChildError(f"{module} could not be started with {command[0]}: {error.strerror}") from None
    if status != 0:
        raise ChildError(f"{module} failed with status {status}: {_last_line(stderr)}")
    return stdout.strip().rpartition(b"\n")[2]


def python_command(module: str, python: str = sys.executable) -> list[str]:
    """Command that runs a module of this code."""
    if not Path(python).name.startswith("python"):  # a program that embeds Python names itself, or nothing
        python = shutil.which("python3") or "python3"
    return [python, "-m", module]


def answer_of(
    module: str, arguments: Sequence[str], kind: type[T], *, timeout_s: float, attend: Attend | None = None
) -> T:
    """The value in the last line that the module prints, which is JSON; see `run_module`. Raises `ChildError`."""
    answer = run_module(module, arguments, timeout_s=timeout_s, attend=attend)
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ChildError(f"{module} gave an answer that cannot be read: {error}") from None


def _run(command: Sequence[str], timeout_s: float, *, attend: Attend | None) -> tuple[int, bytes, bytes]:
    """Status, stdout and stderr. Where it is broken off, nothing that it started is left behind."""
    with subprocess.Popen(
        command,
        # -m puts the working folder first on sys.path: it must be ours, not the server's.
        cwd=CODE_ROOT,
        env={**os.environ, "PYTHONPATH": search_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    ) as process:
        try:
            with nullcontext() if attend is None else attend(process):
                stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, stdout, stderr


def end_with_parent() -> None:
    """Let the kernel kill the calling process once the thread that started it is gone.

    A child that stands still by then, as some context it is waited for in has it, would do so for ever.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def search_path() -> str:
    """Our code, then the library folders of this process, which in an embedded interpreter may be set by hand."""
    libraries = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join([str(CODE_ROOT), *inherited, *libraries])


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no message"
