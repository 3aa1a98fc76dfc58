"""The blocks of a page run in order: shell commands, Python, and `isochrone serve` in the background."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.runtime_dir import VARIABLE as RUNTIME_DIR
from backend.server.ports import free_ports
from tests.docs.blocks import ROOT, Block

READY_TIMEOUT_S = 120.0
BLOCK_TIMEOUT_S = 300.0
_SERVE = re.compile(r"\A((?:\w+=\S+\s+)*)(?:make serve|(\S*isochrone serve))(?=\s)")
_ADDRESS = re.compile(r"\b(127\.0\.0\.1|localhost):(8000|8001|8002)\b")
_DONE = "-- the block is done --"
_PYTHON = f"""
import json, sys
names = {{"__name__": "__main__"}}
for line in sys.stdin:
    exec(compile(json.loads(line), "block", "exec"), names)
    print({_DONE!r}, flush=True)
"""
"""Runs blocks that come as JSON strings, a line each; they share their names."""


class BlockFailedError(AssertionError):
    """A block did not do what the page says."""


class Session:
    """One page's folder, ports, server and Python.

    The folder has `.venv`, `deploy`, and `model_repository` with the models that are named in `page`, its text: to load
    the others as well takes long.
    """

    def __init__(self, folder: Path, page: str) -> None:
        self._folder = folder
        self._ports = dict(zip(("8000", "8001", "8002"), map(str, free_ports(3)), strict=True))
        self._log = folder.parent / "server.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._python: subprocess.Popen[str] | None = None
        folder.mkdir()
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "deploy").symlink_to(ROOT / "deploy")
        for config in (ROOT / "model_repository").glob("*/config.pbtxt"):
            model = config.parent
            if model.name in page:  # folders of its own, since `isochrone profile` writes there
                shutil.copytree(model, folder / "model_repository" / model.name, copy_function=os.symlink)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._env = os.environ | {"PATH": path, RUNTIME_DIR: str(folder.parent / "run"), "COLUMNS": "160"}

    def run(self, block: Block) -> str:
        """What it printed. Raises BlockFailedError."""
        if block.tag == "python":
            return self._run_python(block)
        commands = _ADDRESS.sub(self._on_free_port, block.commands)
        if _SERVE.match(commands):
            self._serve(commands, block)
            return ""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise BlockFailedError(f"{block.place}: exit code {done.returncode}\n{done.stdout}{self._log_end()}")
        return done.stdout

    def close(self) -> None:
        """Ends what the page started."""
        if self._python is not None:
            self._python.communicate()
        self._stop_server()

    def _run_python(self, block: Block) -> str:
        if self._python is None:
            command = [sys.executable, "-c", _PYTHON]
            pipe = subprocess.PIPE
            self._python = subprocess.Popen(
                command, cwd=self._folder, env=self._env, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
            )
        assert self._python.stdin and self._python.stdout
        code = _ADDRESS.sub(self._on_free_port, block.text)
        self._python.stdin.write(json.dumps(code) + "\n")
        self._python.stdin.flush()
        printed: list[str] = []
        for line in self._python.stdout:
            if line.rstrip() == _DONE:
                return "".join(printed)
            printed.append(line)
        raise BlockFailedError(f"{block.place}:\n{''.join(printed)}{self._log_end()}")

    def _serve(self, commands: str, block: Block) -> None:
        """Starts it in the place of the server before, and waits until its models are ready."""
        self._stop_server()
        http, grpc, metrics = self._ports.values()
        ports = f" --http-port {http} --grpc-port {grpc} --metrics-port {metrics}"
        command = _SERVE.sub(
            lambda m: f"{m[1]}exec {m[2] or 'isochrone serve --model-repository model_repository'}{ports}", commands
        )
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                ["bash", "-c", command], cwd=self._folder, env=self._env, stdout=log, stderr=subprocess.STDOUT
            )
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not _is_ready(f"http://127.0.0.1:{http}/v2/health/ready"):
            if self._server.poll() is not None or time.monotonic() > deadline_s:
                raise BlockFailedError(f"{block.place}: the server is not ready\n{self._log_end()}")
            time.sleep(0.05)

    def _stop_server(self) -> None:
        """As Ctrl-C does."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait()
            self._server = None

    def _on_free_port(self, found: re.Match[str]) -> str:
        return f"{found[1]}:{self._ports[found[2]]}"

    def _log_end(self) -> str:
        return f"\nthe server's log:\n{self._log.read_text()[-4_000:]}" if self._log.exists() else ""


@contextmanager
def session(folder: Path, page: str) -> Iterator[Session]:
    opened = Session(folder, page)
    try:
        yield opened
    finally:
        opened.close()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
