"""The wheel as it would be published: built from this tree, installed apart from it, and used."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import msgspec.toml
import pytest

from tests.deploy_files import ROOT

PACKAGES = ("backend", "predictor", "profiler")
IMPORT_ALL = """
import importlib, json, sys
sys.path.append(sys.argv[1])
found = {}
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    found[name] = module.__file__
print(json.dumps(found))
"""


def tracked(suffixes: tuple[str, ...] = ("",)) -> set[str]:
    """Files of the three packages in the tree, and model.py."""
    files = {path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    kept = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    return {name for name in kept | {"model.py"} if name.endswith(suffixes)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without network from a copy of the tree, in which setuptools leaves its folders."""
    source = tmp_path_factory.mktemp("source")
    for name in (*tracked(), "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    into = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(into), str(source)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = into.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing but the wheel."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_has_all_files_of_the_packages_and_no_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == tracked()


def test_its_dependencies_are_those_of_the_project_each_pinned(installed: Path) -> None:
    project = msgspec.toml.decode((ROOT / "pyproject.toml").read_text())["project"]
    (site,) = (installed / "lib").glob("python*/site-packages")
    (found,) = importlib.metadata.distributions(name="isochrone", path=[str(site)])
    required = [each for each in found.requires or () if "extra ==" not in each]
    assert required == project["dependencies"]
    assert all("==" in each for each in found.requires or ())
    assert found.version == project["version"]
    assert {point.name: point.value for point in found.entry_points} == project["scripts"]


def use_dependencies(installed: Path) -> Path:
    """Let the environment find what the tests have installed, behind the wheel, and not this tree."""
    (site,) = (installed / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return installed


def run(folder: Path, *command: str) -> str:
    """Standard output of a command of the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ISOCHRONE"))}
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_package_is_imported_from_the_wheel(installed: Path) -> None:
    modules = sorted(
        ".".join(Path(name).parent.parts if name.endswith("__init__.py") else Path(name).with_suffix("").parts)
        for name in tracked(("__init__.py",))
    )
    script = (str(installed / "bin" / "python"), "-I", "-c", IMPORT_ALL)
    found = json.loads(run(installed, *script, sysconfig.get_path("purelib"), *modules))
    assert sorted(found) == modules
    assert all(Path(file).is_relative_to(installed) for file in found.values()), found


@pytest.mark.slow
def test_unit_tests_pass_on_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Of the parts that the scheduler decides by, from a folder that has the tests and not the code."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__", "corpus"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    found = "import backend, sys; sys.exit(not backend.__file__.startswith(sys.prefix))"
    python = str(use_dependencies(installed) / "bin" / "python")
    run(tmp_path, python, "-c", found)
    folders = [f"tests/unit/{name}" for name in ("engine_process", "fleet", "scheduler", "predictor")]
    said = run(tmp_path, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders)
    assert " passed" in said
    assert "failed" not in said


def test_the_command_says_what_it_does(installed: Path) -> None:
    """The script that pip wrote, in the environment's Python, with the dependencies that the tests have."""
    said = run(installed, str(use_dependencies(installed) / "bin" / "isochrone"), "--help")
    for command in ("serve", "profile", "evaluate", "bench", "simulate", "explain", "report"):
        assert command in said
