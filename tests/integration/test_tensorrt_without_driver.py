"""A plan on a machine without a driver: the sentence for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.engines.tensorrt.importing import import_tensorrt

trt: Any = import_tensorrt()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "model.plan"
    file.write_bytes(b"plan")
    return file


def test_a_tensorrt_that_cannot_start_cuda(file: Path) -> None:
    """The real one, where there is no driver; in a process of its own, which must live to say so."""
    code = (
        "import sys, pathlib\n"
        "from backend.errors import ConfigError\n"
        "from backend.engines.tensorrt.plan import TensorRtPlan\n"
        "try:\n"
        "    TensorRtPlan(pathlib.Path(sys.argv[1]))\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(rf"^TensorRT {trt.__version__} cannot use the GPU: .*CUDA initialization failure", done.stdout)


# Which TensorRT
