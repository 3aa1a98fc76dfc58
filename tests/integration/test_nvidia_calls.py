"""Every call of TensorRT, CUDA and NVML that our code makes exists in NVIDIA's real modules, as we call it.

mypy finds the calls in our own syntax trees and checks them against stubs that were read off the real classes. No GPU.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.fakes.nvidia_stubs import LEAN, WHOLE, empty_libraries, functions_stub, tensorrt_stub

ROOT = Path(__file__).resolve().parents[2]
NVIDIA = ("tensorrt", "cuda", "pynvml")


def imports_nvidia(file: Path) -> bool:
    """Whether one of ours calls NVIDIA's, by what it imports."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return any(name.split(".")[0] in NVIDIA for name in names)


CALLERS = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("backend/**/*.py") if imports_nvidia(file))
RUNNING = [file for file in CALLERS if not file.startswith("backend/building/")]
FUNCTIONS = ("cuda.bindings.runtime", "pynvml")
MODULES = ("trt", "runtime", "pynvml")
"""What our files call them."""


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stubs of what serving a plan needs: TensorRT's lean runtime can be imported as it is."""
    folder = tmp_path_factory.mktemp("lean")
    tensorrt_stub(LEAN, folder)
    for module in FUNCTIONS:
        functions_stub(module, folder)
    return folder


@pytest.fixture(scope="module")
def whole(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the whole TensorRT, whose bindings want libraries; a compiler makes some that hold nothing."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to stand in for TensorRT's libraries, so its builder cannot be imported")
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(lean, folder, dirs_exist_ok=True)
    tensorrt_stub(WHOLE, folder, empty_libraries(folder / "libraries", compiler))
    return folder


def test_the_callers_are_found() -> None:
    assert "backend/engines/tensorrt/plan.py" in RUNNING
    assert "backend/building/tensorrt_builder.py" in CALLERS


def test_what_serves_a_plan_calls_what_there_is(lean: Path) -> None:
    assert complaints(check(RUNNING, lean)) == []


def test_what_builds_a_plan_calls_what_there_is(whole: Path) -> None:
    assert complaints(check(CALLERS, whole)) == []


def test_no_call_is_out_of_sight(whole: Path, tmp_path: Path) -> None:
    """Of whatever NVIDIA's names are asked, mypy knows what it is; a name that is none would then be a complaint."""
    spoilt, asked = {}, set()
    for file in CALLERS:
        spoilt[file], lines = revealed((ROOT / file).read_text(), names_in(whole))
        asked |= {(file, line) for line in lines}
    said = check(spoilt, whole, shadows(spoilt, tmp_path))
    known = re.findall(r'^(\S+):(\d+): note: Revealed type is "(.*)"', said, re.MULTILINE)
    assert len(asked) > 50
    assert {(file, int(line)) for file, line, _ in known} == asked
    assert [place for place in known if place[2] == "Any"] == []


RENAMED = {
    "engine.get_tensor_mode(name)": "engine.get_tensor_io_mode(name)",
    "engine.get_tensor_profile_shape(t.name, index)": "engine.get_tensor_profile_shape(t.name)",
    "self._context.execute_async_v3(stream)": "self._context.execute_async_v3(stream, None)",
    "self._context.device_memory = address": "self._context.device_memory_v2 = address",
    "runtime.cudaStreamCreateWithPriority(runtime.cudaStreamNonBlocking, level)": (
        "runtime.cudaStreamCreateWithPriority(runtime.cudaStreamNonBlocking)"
    ),
    "runtime.cudaStreamWaitEvent(stream, event, runtime.cudaEventWaitDefault)": "runtime.cudaStreamWaitEvent(stream)",
    "runtime.cudaEventElapsedTime(start, end)": "runtime.cudaEventElapsed(start, end)",
    "_E.cudaErrorLaunchTimeout,": "_E.cudaErrorLaunchTimedOut,",
    "runtime.cudaDeviceGetPCIBusId(_PCI_BUS_ID_CHARS, index)": "runtime.cudaDeviceGetPCIBusId(index)",
    "pynvml.nvmlDeviceGetName(self._handle)": "pynvml.nvmlDeviceName(self._handle)",
    'config.set_timing_cache(config.create_timing_cache(b""), False)': 'config.set_timing_cache(b"", False)',
    "parser.parse_from_file(str(onnx))": "parser.parse_file(str(onnx))",
}


def test_a_call_that_is_renamed_does_not_pass(whole: Path, tmp_path: Path) -> None:
    spoilt, lines = {}, []
    for file in CALLERS:
        text = (ROOT / file).read_text()
        for right, wrong in RENAMED.items():
            if right in text:
                lines.append(f"{file}:{text[: text.index(right)].count(chr(10)) + 1}")
                text = text.replace(right, wrong)
        spoilt[file] = text
    assert len(lines) == len(RENAMED)
    found = [complaint.split(": ")[0] for complaint in complaints(check(spoilt, whole, shadows(spoilt, tmp_path)))]
    assert sorted(found) == sorted(lines)


def names_in(stubs: Path) -> set[str]:
    text = "".join(path.read_text() for path in stubs.rglob("*.pyi"))
    return set(re.findall(r"^\s*(?:def |class )?(\w+)(?=[(:]| =)", text, re.MULTILINE))


def revealed(source: str, names: set[str]) -> tuple[str, list[int]]:
    """With `reveal_type` around whatever is asked for one of the names, and the lines of that."""
    tree = ast.parse(source)
    annotations = {id(part) for node in ast.walk(tree) for note in _annotations(node) for part in ast.walk(note)}
    asked = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in names
        and id(node) not in annotations
        and not (isinstance(node.value, ast.Name) and node.value.id in MODULES)
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    ]
    places = [(node.lineno, node.col_offset, "reveal_type(") for node in asked]
    places += [(node.end_lineno or 0, node.end_col_offset or 0, ")") for node in asked]
    lines = source.splitlines()
    for line, column, text in sorted(places, reverse=True):
        lines[line - 1] = lines[line - 1][:column] + text + lines[line - 1][column:]
    return "\n".join(lines) + "\n", [node.lineno for node in asked]


def _annotations(node: ast.AST) -> list[ast.expr]:
    found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    return [note for note in found if note is not None]


def shadows(spoilt: Mapping[str, str], folder: Path) -> list[str]:
    """Options by which mypy reads these texts in place of the files."""
    options = []
    for file, text in spoilt.items():
        shadow = folder / file.replace("/", "_")
        shadow.write_text(text)
        options += ["--shadow-file", str(ROOT / file), str(shadow)]
    return options


def check(files: Iterable[str], stubs: Path, options: Sequence[str] = ()) -> str:
    """What mypy says of our files beside these stubs."""
    config = stubs / "mypy.ini"
    config.write_text(
        f"[mypy]\nmypy_path = {stubs}\nstrict = True\nwarn_unused_ignores = False\ndisallow_untyped_calls = False\n"
        "follow_imports = silent\n[mypy-tensorrt,cuda.*,pynvml]\nignore_errors = True\n"
    )
    command = ["--config-file", str(config), "--cache-dir", str(stubs.parent / "cache"), *options]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *command, *(str(ROOT / file) for file in files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def complaints(said: str) -> list[str]:
    return [line for line in said.splitlines() if ": error: " in line]
