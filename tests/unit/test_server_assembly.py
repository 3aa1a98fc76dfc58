"""Finding a tritonserver, assembling its backends, checking options; each error is held to its sentence."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backend import cli
from backend.errors import ConfigError, IsochroneError, ServerError
from backend.server import interpreter, locate
from backend.server.assemble import assemble, working_directory
from backend.server.interpreter import Libpython, libpython_dir, libpython_of
from backend.server.launch import ServeOptions, check, command
from backend.server.paths import temporary_base
from backend.server.ports import free_ports, is_free

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


# options and command


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    return tmp_path / "models"


def options(repository: Path, *extra: str, **ports: int) -> ServeOptions:
    http, grpc, metrics = free_ports(3)
    asked = ServeOptions(repository, http_port=http, grpc_port=grpc, metrics_port=metrics, extra=extra)
    return replace(asked, **ports)  # type: ignore[arg-type]


def test_the_repository_must_be_a_folder_with_a_model(tmp_path: Path) -> None:
    with fails(f"--model-repository {tmp_path}/none does not exist", ConfigError):
        check(options(tmp_path / "none"))
    (tmp_path / "file").touch()
    with fails(f"--model-repository {tmp_path}/file is not a directory", ConfigError):
        check(options(tmp_path / "file"))
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    with fails(
        f"--model-repository {tmp_path}/empty holds no model; a model is a folder with a config.pbtxt and a numbered "
        f"version folder, such as {tmp_path}/empty/resnet50/1/model.onnx",
        ConfigError,
    ):
        check(options(tmp_path / "empty"))


def test_a_model_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "mine" / "1").mkdir(parents=True)
    (tmp_path / "mine" / "config.pbtxt").touch()
    with fails(
        f"--model-repository {tmp_path}/mine is a model, for it holds a config.pbtxt; a repository is the folder that "
        f"holds models, such as {tmp_path}",
        ConfigError,
    ):
        check(options(tmp_path / "mine"))


UNFIT = (
    "which Triton's Python backend cannot take: paths and names of models may hold ASCII letters, digits and the "
    "characters . _ - + , : @ % = only"
)


@pytest.mark.parametrize("name", ["my models", "m\u00f6dels", "it's", "$models"])
def test_a_path_that_tritons_python_backend_cannot_take(name: str, tmp_path: Path) -> None:
    (tmp_path / name / "mine").mkdir(parents=True)
    with fails(f"--model-repository is '{tmp_path}/{name}', {UNFIT}", ConfigError):
        check(options(tmp_path / name))
    with fails(f"a model's name is '{name}', {UNFIT}", ConfigError):
        (tmp_path / "models" / name).mkdir(parents=True)
        check(options(tmp_path / "models"))


def test_a_temporary_folder_that_it_cannot_take_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, used in (("t m p", "/tmp"), ("tmp", str(tmp_path / "tmp"))):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        assert temporary_base() == used


def test_what_only_the_schedulers_log_would_tell(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOCHRONE_SAMPLES", "/nowhere/samples.jsonl")
    with fails("ISOCHRONE_SAMPLES is '/nowhere/samples.jsonl', but nothing can be written to '/nowhere'", ConfigError):
        check(options(repository))
    monkeypatch.delenv("ISOCHRONE_SAMPLES")
    monkeypatch.setenv("ISOCHRONE_SCHEDULER", "nope:x")
    with fails("ISOCHRONE_SCHEDULER must be module:function, got 'nope:x': No module named 'nope'", ConfigError):
        check(options(repository))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port(repository: Path, port: int) -> None:
    with fails(f"--grpc-port {port} is not a port; it must lie between 1 and 65535", ConfigError):
        check(options(repository, grpc_port=port))


def test_two_endpoints_on_one_port(repository: Path) -> None:
    with fails("--metrics-port and --http-port are both 9000; each needs a port of its own", ConfigError):
        check(options(repository, http_port=9000, metrics_port=9000))


def test_a_port_in_use(repository: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with fails(f"port {port} on 127.0.0.1 is already in use; choose another with --metrics-port", ConfigError):
            check(options(repository, metrics_port=port))
        check(options(repository, "--allow-metrics=false", metrics_port=port))
        check(options(repository, "--metrics-port", "1234", metrics_port=port))


def test_an_address_of_another_machine() -> None:
    with fails(f"--host {'x' * 64} cannot be a name: between dots it has 1 to 63 characters", ConfigError):
        is_free("x" * 64, 9000)
    with fails("--host 192.0.2.1 is not an address of this machine", ConfigError):
        is_free("192.0.2.1", 8000)


def test_arguments_after_the_dashes(repository: Path) -> None:
    with fails("unexpected argument 'models'; options for tritonserver follow after --", ConfigError):
        check(options(repository, "models"))
    with fails(
        "--backend-directory cannot be given to tritonserver, because isochrone assembles one; put further backends "
        "into the backends folder of your tritonserver, where isochrone finds them",
        ConfigError,
    ):
        check(options(repository, "--backend-directory=/opt"))


def test_the_command(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/cuda/compat")
    binary = install(tmp_path / "opt", stub_minor=None)
    (tmp_path / "opt/backends/python" / locate.STUB).write_bytes(b"libpython3.%d.so.1.0" % MINOR)
    (tmp_path / f"opt/lib/libpython3.{MINOR}.so.1.0").touch()
    extra = ("--log-file=server.log", "--cache-directory", "cache", "--model-repository=s3://b/m", "--log-verbose=1")
    asked = ServeOptions(Path("models"), "0.0.0.0", 1, 2, 3, binary, extra)
    made = command(asked, tmp_path / "made")
    assert made.argv == (
        str(binary),
        f"--backend-directory={tmp_path}/made/backends",
        f"--model-repository={repository}",
        *("--http-address=0.0.0.0", "--http-port=1", "--grpc-address=0.0.0.0", "--grpc-port=2"),
        *("--metrics-address=0.0.0.0", "--metrics-port=3"),
        f"--backend-config=python,shm-region-prefix-name={made.regions}",
        f"--log-file={tmp_path}/server.log",
        *("--cache-directory", f"{tmp_path}/cache"),
        *("--model-repository=s3://b/m", "--log-verbose=1"),
    )
    assert re.fullmatch(r"triton_isochrone_[0-9a-f]{16}_", made.regions)
    assert made.regions != command(asked, tmp_path / "again").regions
    assert made.env["LD_LIBRARY_PATH"] == f"/usr/local/cuda/compat:{tmp_path}/opt/lib"
    assert made.env["PATH"].startswith(f"{Path(sys.executable).parent}:")
    assert [entry.name for entry in made.cwd.iterdir()] == ["model.py"]


# command line


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["isochrone", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_an_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(monkeypatch, "serve", "--model-repository", "/nowhere") == 2
    assert capsys.readouterr() == ("", "isochrone: --model-repository /nowhere does not exist\n")


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("isochrone ")


def test_serve_hands_its_options_over_and_its_exit_code_back(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[ServeOptions] = []

    def run(asked: ServeOptions) -> int:
        handed.append(asked)
        return 7

    monkeypatch.setattr(cli, "run_server", run)
    arguments = ["--model-repository", "m", "--host", "::1", "--http-port", "1", "--grpc-port", "2"]
    arguments += ["--metrics-port", "3", "--tritonserver", "t", "--", "--log-verbose", "1"]
    assert run_cli(monkeypatch, "serve", *arguments) == 7
    assert handed == [ServeOptions(Path("m"), "::1", 1, 2, 3, Path("t"), ("--log-verbose", "1"))]
