"""A numpy that tritonserver does not understand beside it: the load says so, instead of answers without a byte."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, load
from tests.server.harness import identity, write_model

pytestmark = pytest.mark.slow

NUMPY = "2.4.6"


def test_numpy_2_beside_a_server_that_does_not_know_it(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    for name, dtype in (("numbers", np.float32), ("bools", np.bool_), ("texts", object)):
        write_model(repository, name, identity(dtype), 'backend: "isochrone"\nmax_batch_size: 8\n')
    path = f"{environment(tmp_path / 'venv')}{os.pathsep}{os.environ['PATH']}"
    with EmbeddedServer(repository, extra=EXPLICIT, env={"PATH": path}) as server:
        sentences = load(server, ["numbers", "bools", "texts"])
        assert len(sentences) == 3
        for model, sentence in sentences.items():
            assert (
                f"isochrone cannot load model '{model}': this tritonserver misreads the arrays of numpy {NUMPY}: "
                "pip install 'numpy<2', or use a newer tritonserver"
            ) in sentence
        assert "is not healthy" not in server.log_text()


def environment(folder: Path) -> Path:
    """This one with another numpy before its own; returns its folder of programs."""
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", f"numpy=={NUMPY}"], check=True)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    behind = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "behind.pth").write_text("\n".join([*behind, str(Path(__file__).resolve().parents[2])]))
    return folder / "bin"
