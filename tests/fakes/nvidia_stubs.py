"""Type stubs of NVIDIA's packages, read off the real modules, so that mypy can hold our calls against them.

TensorRT's classes carry their signatures in docstrings, which mypy's own stubgen reads; the functions of CUDA and NVML
carry them where `inspect` finds them.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import keyword
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEAN = "tensorrt_lean_bindings.tensorrt_lean"
WHOLE = "tensorrt_bindings.tensorrt"
_WHOLE_NEEDS = {
    "libnvinfer.so.10": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "libnvinfer_plugin.so.10": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.10": (
        "createNvOnnxParserRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "getNvOnnxParserVersion",
    ),
}
"""What the bindings of the whole TensorRT want of its gigabytes of libraries to be imported; nothing calls it."""


def tensorrt_stub(module: str, stubs: Path, libraries: Path | None = None) -> None:
    """As `tensorrt`. libraries: a folder to find shared libraries in."""
    environment = os.environ | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})
    out = stubs / "stubgen"
    stubgen = str(Path(sys.executable).with_name("stubgen"))
    command = [stubgen, "--inspect-mode", "--quiet", "-m", module, "-o", str(out)]
    done = subprocess.run(command, timeout=60, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (out / f"{module.replace('.', '/')}.pyi").read_text()
    shutil.rmtree(out)
    text = "\n".join(line for line in text.splitlines() if _is_python(line))
    text = re.sub(r"(?<=[:>] )bool\b", "builtins.bool", text)  # TensorRT has a `bool` of its own
    _write(stubs / "tensorrt" / "__init__.pyi", f"import builtins\n{text}\n__version__: str\n")


def _is_python(line: str) -> bool:
    """Some docstrings put parameters with a default before others; what has no stub cannot be called."""
    try:
        ast.parse(line.strip()) if line.strip().startswith("def ") else None
    except SyntaxError:
        return False
    return True


def empty_libraries(folder: Path, compiler: str) -> Path:
    """Shared libraries with the names that the whole TensorRT's bindings look for, and nothing behind them."""
    folder.mkdir()
    for library, names in _WHOLE_NEEDS.items():
        source = "".join(f"void {name}(void) {{}}\n" for name in names)
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / library)]
        subprocess.run(command, input=source, text=True, check=True, timeout=60)
    return folder


def functions_stub(module: str, stubs: Path) -> None:
    """A module of functions, constants and plain classes, under its own name."""
    members = vars(importlib.import_module(module))
    lines = [line for name, value in members.items() if _is_public(name) for line in _member(module, name, value)]
    path = stubs.joinpath(*module.split(".")).with_suffix(".pyi")
    _write(path, "\n".join(["from enum import IntEnum", "from typing import Any, ClassVar", *lines]) + "\n")
    for package in path.relative_to(stubs).parents:
        if package.name:
            _write(stubs / package / "__init__.pyi", "")


def _member(module: str, name: str, value: Any) -> Iterator[str]:
    if isinstance(value, int):
        yield f"{name}: int"
    elif getattr(value, "__module__", "") != module:
        return  # what it imports itself
    elif isinstance(value, type) and issubclass(value, enum.IntEnum):
        yield f"class {name}(IntEnum):"
        yield from (f"    {member} = {number.value}" for member, number in value.__members__.items())
    elif isinstance(value, type):
        yield f"class {name}({'Exception' if issubclass(value, Exception) else 'object'}):"
        yield "    __slots__ = ()"
        yield from (f"    {attribute}: ClassVar[Any]" for attribute in dir(value) if _is_public(attribute))
    elif callable(value):
        parameters = inspect.signature(value).parameters.values()
        yield f"def {name}({', '.join(map(_parameter, parameters))}) -> Any: ..."


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
    default = "" if parameter.default is inspect.Parameter.empty else " = ..."
    return f"{stars}{parameter.name}: Any{default}"


def _is_public(name: str) -> bool:
    return name.isidentifier() and not name.startswith("_") and not keyword.iskeyword(name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
