"""A server of a user whom no file knows, as orchestrators choose one, that keeps its state in a volume of root's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton_http

from backend.runtime_dir import VARIABLE
from backend.server.ports import free_ports
from tests.server.control import eventually, request
from tests.server.harness import mlp, mlp_answer, write_model
from tests.server.test_serve import environment, listens, port_options, serve_command

USER = 54321
AS_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    # This Python and this code may lie in a folder of root's; no other rule is bent.
    *(
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
    ),
)


def able() -> bool:
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return False
    return subprocess.run([*AS_USER, "true"], check=False, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not able(), reason="only root can be another user, and util-linux has to be there")


@pytest.fixture
def volume() -> Iterator[Path]:
    """As Kubernetes makes an emptyDir: root's, and everyone's."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="iso-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def processes() -> list[int]:
    """The user's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.stat().st_uid == USER:
                found.append(int(process.name))
    return found


def test_an_arbitrary_user_serves_from_an_empty_dir(volume: Path) -> None:
    model, ports = mlp(), [str(port) for port in free_ports(3)]
    for name in ("models", "state", "tmp"):
        (volume / name).mkdir()
        (volume / name).chmod(0o777)
    write_model(volume / "models", "mine", model, 'backend: "isochrone"\nmax_batch_size: 8\n')
    argv = [*AS_USER, *serve_command("--model-repository", str(volume / "models"), *port_options(ports))]
    env = environment() | {VARIABLE: str(volume / "state"), "TMPDIR": str(volume / "tmp"), "HOME": "/"}
    with (volume / "log").open("wb") as log:
        serve = subprocess.Popen(argv, cwd=volume, env=env, stdout=log, stderr=log)
    try:
        eventually(lambda: serve.poll() is not None or listens("127.0.0.1", int(ports[2])), timeout_s=60.0)
        assert serve.poll() is None, (volume / "log").read_text()
        with closing(triton_http.InferenceServerClient(f"127.0.0.1:{ports[0]}")) as client:
            x = np.ones((1, 16), np.float32)
            answer = client.infer("mine", request(triton_http, {"x": x})).as_numpy("y")
        np.testing.assert_allclose(answer, mlp_answer(model, x), rtol=1e-4)
        private = volume / "state" / f"isochrone-{USER}"
        assert (private.stat().st_uid, private.stat().st_mode & 0o777) == (USER, 0o700)
        assert (private / "cpu.sock").exists(), "the scheduler does not run"
        serve.terminate()
        assert serve.wait(timeout=40) == 0
        eventually(lambda: not processes())  # the scheduler outlives its models for some seconds
    finally:
        for pid in processes():
            os.kill(pid, signal.SIGKILL)
        serve.wait()
