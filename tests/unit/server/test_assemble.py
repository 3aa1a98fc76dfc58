"""Finding a tritonserver and assembling its backends; each error is held to its sentence."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.errors import IsochroneError, ServerError
from backend.server import interpreter, locate
from backend.server.assemble import assemble
from backend.server.interpreter import Libpython, libpython_dir, libpython_of

MINOR = sys.version_info.minor


def install(prefix: Path, stub_minor: int | None = MINOR) -> Path:
    """A tree like /opt/tritonserver with empty files; returns the binary."""
    backend = prefix / "backends" / "python"
    for folder in (prefix / "bin", prefix / "lib", backend, prefix / "backends" / "onnxruntime"):
        folder.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / name).write_text(name)
    if stub_minor is not None:
        write_stub(backend / locate.STUB, stub_minor)
    binary = prefix / "bin" / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    return binary


def install_wheel(site: Path, minors: tuple[int, ...] = (MINOR - 1, MINOR)) -> Path:
    binary = install(site / "pytriton" / "tritonserver", stub_minor=None)
    (site / "nvidia_pytriton.libs").mkdir()
    for minor in minors:
        folder = binary.parents[1] / "python_backend_stubs" / f"3.{minor}"
        folder.mkdir(parents=True)
        write_stub(folder / locate.STUB, minor)
    return binary


def write_stub(file: Path, minor: int) -> None:
    file.write_bytes(b"\x7fELF\0libstdc++.so.6\0libpython3.%d.so.1.0\0" % minor)
    file.chmod(0o755)


def fails(message: str, kind: type[IsochroneError] = ServerError) -> pytest.RaisesExc[IsochroneError]:
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


@pytest.fixture
def no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """PATH is one empty folder."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


# locate


def test_an_explicit_path_comes_first(tmp_path: Path, no_path: Path) -> None:
    (no_path / "tritonserver").symlink_to(install(tmp_path / "b"))
    binary = install(tmp_path / "a")
    server = locate.locate(binary, wheel=lambda: install_wheel(tmp_path / "site"))
    assert server == locate.TritonServer(
        binary=binary,
        python_backend=tmp_path / "a/backends/python",
        stub=tmp_path / "a/backends/python" / locate.STUB,
        library_dirs=(tmp_path / "a/lib",),
        origin="--tritonserver",
    )


def test_path_comes_before_the_wheel_and_links_are_followed(tmp_path: Path, no_path: Path) -> None:
    (no_path / "tritonserver").symlink_to(install(tmp_path / "b"))
    server = locate.locate(wheel=lambda: install_wheel(tmp_path / "site"))
    assert (server.binary, server.origin) == (tmp_path / "b/bin/tritonserver", "PATH")


@pytest.mark.usefixtures("no_path")
def test_the_wheel_has_its_stubs_and_libraries_apart(tmp_path: Path) -> None:
    server = locate.locate(wheel=lambda: install_wheel(tmp_path / "site"))
    assert server.origin == "the nvidia-pytriton wheel"
    assert server.stub == tmp_path / f"site/pytriton/tritonserver/python_backend_stubs/3.{MINOR}" / locate.STUB
    assert tmp_path / "site/nvidia_pytriton.libs" in server.library_dirs


def test_the_wheel_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = install_wheel(tmp_path)
    (tmp_path / "pytriton" / "__init__.py").write_text("raise ImportError('its dependencies are missing')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert locate.wheel_binary() == binary


@pytest.mark.usefixtures("no_path")
def test_no_server_anywhere() -> None:
    with fails(
        "no tritonserver was found on PATH nor in an nvidia-pytriton wheel; run inside NVIDIA's Triton container, "
        "or pip install --no-deps nvidia-pytriton==0.7.0, or name one with --tritonserver PATH"
    ):
        locate.locate(wheel=lambda: None)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda _path: None])
def test_an_explicit_path_that_is_no_executable(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "tritonserver"
    make(path)
    with fails(
        f"{path} (from --tritonserver) is not an executable file; --tritonserver takes the path of the tritonserver "
        f"binary, such as /opt/tritonserver/bin/tritonserver"
    ):
        locate.locate(path)


def test_a_server_without_python_backend(tmp_path: Path) -> None:
    binary = install(tmp_path)
    (tmp_path / "backends/python/libtriton_python.so").unlink()
    with fails(
        f"the tritonserver {binary} (from --tritonserver) has no Python backend: libtriton_python.so and "
        f"triton_python_backend_utils.py were sought in {tmp_path}/backends/python and "
        f"/opt/tritonserver/backends/python; use a Triton release that includes the Python backend"
    ):
        locate.locate(binary)


def test_a_stub_for_another_python(tmp_path: Path) -> None:
    binary = install(tmp_path, stub_minor=7)
    with fails(
        f"{tmp_path}/backends/python/triton_python_backend_stub is built for Python 3.7, but isochrone runs on "
        f"Python 3.{MINOR}; install isochrone for python3.7 and run it from there"
    ):
        locate.locate(binary)


def test_a_wheel_without_a_stub_for_this_python(tmp_path: Path) -> None:
    binary = install_wheel(tmp_path, minors=(10, 9))
    if MINOR in (9, 10):
        pytest.skip("this Python has a stub there")
    with fails(
        f"the Triton Python backend in {binary.parents[1]}/backends/python has no stub for Python 3.{MINOR} "
        f"(it has 3.9, 3.10); run isochrone with a Python that it has a stub for"
    ):
        locate.locate(binary)


# interpreter


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"..\0libpython3.11.so.1.0\0..", Libpython(11, "libpython3.11.so.1.0")),
        (b"..\0libpython3-419a3a08.13.so.1.0\0..", Libpython(13, "libpython3-419a3a08.13.so.1.0")),
        (b"no such name", None),
    ],
)
def test_the_libpython_that_a_stub_needs(tmp_path: Path, content: bytes, expected: Libpython | None) -> None:
    (tmp_path / "stub").write_bytes(content)
    assert libpython_of(tmp_path / "stub") == expected


def test_a_python_without_shared_libpython(tmp_path: Path) -> None:
    with fails(
        f"{sys.executable} has no shared library libpython3.11.so.1.0, which Triton's Python stub needs; use a Python "
        f"built with --enable-shared (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared; Debian and Ubuntu: apt-get install "
        f"libpython3.{MINOR})"
    ):
        libpython_dir("libpython3.11.so.1.0", lookup={"LIBDIR": str(tmp_path)}.get)


def test_libpython_of_the_server_of_the_interpreter_and_of_debian(tmp_path: Path) -> None:
    lookup = {"LIBDIR": str(tmp_path), "MULTIARCH": "x86_64-linux-gnu"}.get
    bundled, debian = tmp_path / "bundled", tmp_path / "x86_64-linux-gnu"
    for folder in (debian, tmp_path, bundled):  # later ones take precedence
        folder.mkdir(exist_ok=True)
        (folder / "libpython3.11.so.1.0").touch()
        assert libpython_dir("libpython3.11.so.1.0", [bundled], lookup) == folder


def test_an_interpreter_without_python3_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3.99"))
    with fails(
        f"{tmp_path} has no python3 beside python3.99, so Triton's Python stub would find another Python's packages; "
        f"run isochrone from a virtual environment"
    ):
        interpreter.bin_dir()


# assemble


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "model.py").touch()
    return folder


def test_an_installed_server_is_linked_folder_by_folder(tmp_path: Path, code: Path) -> None:
    server = locate.locate(install(tmp_path / "opt"))
    (server.backends / "isochrone").mkdir()  # an installed one makes way for this one
    backends = assemble(server, tmp_path / "made", code)
    assert {entry.name: entry.is_symlink() for entry in backends.iterdir()} == {
        "isochrone": False,
        "onnxruntime": True,
        "python": True,
    }
    assert (backends / "isochrone/model.py").resolve() == code / "model.py"


def test_the_wheels_python_backend_is_hard_linked_with_the_right_stub(tmp_path: Path, code: Path) -> None:
    server = locate.locate(install_wheel(tmp_path / "site"))
    backends = assemble(server, tmp_path / "made", code)
    stub = backends / "python" / locate.STUB
    assert stub.read_bytes() == server.stub.read_bytes()
    assert not stub.samefile(server.stub), "Triton sets its mode"
    assert (backends / "python/libtriton_python.so").samefile(server.python_backend / "libtriton_python.so")
    assert not any(file.is_symlink() for file in (backends / "python").iterdir())


def test_files_are_copied_where_links_are_refused(tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    server = locate.locate(install_wheel(tmp_path / "site"))
    backends = assemble(server, tmp_path / "made", code)
    assert (backends / "python/libtriton_python.so").read_text() == "libtriton_python.so"
    assert os.access(backends / "python" / locate.STUB, os.X_OK)


def test_a_stub_that_is_not_executable_is_copied_and_stays_as_it_is(tmp_path: Path, code: Path) -> None:
    server = locate.locate(install_wheel(tmp_path / "site"))
    server.stub.chmod(0o644)
    backends = assemble(server, tmp_path / "made", code)
    assert (backends / "python" / locate.STUB).stat().st_mode & 0o777 == 0o755
    assert server.stub.stat().st_mode & 0o777 == 0o644


def test_a_broken_installation(tmp_path: Path) -> None:
    server = locate.locate(install(tmp_path / "opt"))
    with fails(f"{tmp_path}/model.py, which Triton loads as this backend, is missing; reinstall isochrone"):
        assemble(server, tmp_path / "made", tmp_path)
