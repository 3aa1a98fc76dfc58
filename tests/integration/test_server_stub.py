"""The module `model` as a stub of Triton imports it: that of the assembled backend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backend.server.assemble import working_directory

# interpreter


def test_the_stub_imports_the_model_of_its_backend_and_no_other(tmp_path: Path) -> None:
    """The working directory's model.py stands in for the last `model` on sys.path, as a stub of Triton leaves it."""
    for name in ("user", "site", "backend"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(f"WHO = {name!r}; FILE = __file__")
    cwd = working_directory(tmp_path / "cwd")
    path = ["", *sys.path[1:], *(str(tmp_path / name) for name in ("site", "backend", "python"))]
    script = f"import sys; sys.path[:] = {path!r}; import model; print(model.WHO, model.FILE)"
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, text=True, capture_output=True, check=True)
    assert done.stdout == f"backend {tmp_path}/backend/model.py\n"
