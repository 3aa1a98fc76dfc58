"""`isochrone serve`: its checks before it starts a server, with each error's sentence, and the server's command."""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from backend.commands import main as cli
from backend.errors import ConfigError
from backend.server import locate
from backend.server.checks import check
from backend.server.command import assemble_command
from backend.server.options import ServeOptions
from backend.server.paths import temporary_base
from backend.server.ports import free_ports, is_free
from tests.unit.server.test_assemble import MINOR, fails, install


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


@pytest.mark.parametrize(
    ("extra", "starts"),
    [
        (["--model-control-mode=explicit"], True),
        (["--model-control-mode", "poll"], True),
        (["--model-control-mode=explicit", "--model-control-mode=none"], False),
        (["--model-control-mode"], False),
        (["--load-model=*"], False),
    ],
)
def test_a_repository_may_be_empty_where_models_may_come(extra: list[str], starts: bool, tmp_path: Path) -> None:
    asked = options(tmp_path, *extra)
    if starts:
        check(asked)
        return
    with pytest.raises(ConfigError, match="holds no model"):
        check(asked)


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


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (
            "ISOCHRONE_SAMPLES",
            "/nowhere/samples.jsonl",
            "ISOCHRONE_SAMPLES is '/nowhere/samples.jsonl', but nothing can be written to '/nowhere'",
        ),
        (
            "ISOCHRONE_EVENTS",
            "/nowhere/events.jsonl",
            "ISOCHRONE_EVENTS is '/nowhere/events.jsonl', but nothing can be written to '/nowhere'",
        ),
        (
            "ISOCHRONE_SCHEDULER",
            "nope:x",
            "ISOCHRONE_SCHEDULER must be module:function, got 'nope:x': No module named 'nope'",
        ),
        ("ISOCHRONE_EMULATED_TIME", "0.5", 'ISOCHRONE_EMULATED_TIME is "0.5"; it must be a number from 1 to 1000'),
        (
            "ISOCHRONE_CLASS_COST_PERCENT",
            "101",
            'ISOCHRONE_CLASS_COST_PERCENT is "101"; it must be a number from 0 to 100',
        ),
    ],
)
def test_what_only_the_schedulers_log_would_tell(
    repository: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    with fails(sentence, ConfigError):
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
    made = assemble_command(asked, tmp_path / "made")
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
    assert made.regions != assemble_command(asked, tmp_path / "again").regions
    assert made.env["LD_LIBRARY_PATH"] == f"/usr/local/cuda/compat:{tmp_path}/opt/lib"
    assert made.env["PATH"].startswith(f"{Path(sys.executable).parent}:")
    assert [entry.name for entry in made.cwd.iterdir()] == ["model.py"]
    published = assemble_command(replace(asked, state_port=8003), tmp_path / "published")
    assert published.env["ISOCHRONE_STATE_ADDRESS"] == "0.0.0.0:8003"
    assert "ISOCHRONE_STATE_ADDRESS" not in made.env


def test_glibc_keeps_an_arena_per_core_unless_it_is_told_otherwise(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(options(repository), tritonserver=install(tmp_path / "opt"))
    cores = len(os.sched_getaffinity(0))
    for given, expected in ((None, max(2, cores)), ("7", 7)):
        monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
        if given:
            monkeypatch.setenv("MALLOC_ARENA_MAX", given)
        assert assemble_command(asked, tmp_path / f"made-{given}").env["MALLOC_ARENA_MAX"] == str(expected)


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


# The published state


def test_the_state_port_stands_beside_the_host(repository: Path) -> None:
    asked = options(repository)
    assert asked.state_address is None
    assert replace(asked, state_port=8003).state_address == "127.0.0.1:8003"
    assert replace(asked, state_port=8003, host="::1").state_address == "[::1]:8003"


def test_a_state_port_beyond_this_machine_needs_a_token(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    asked = replace(options(repository), state_port=port)
    monkeypatch.delenv("ISOCHRONE_STATE_TOKEN", raising=False)
    check(asked)
    with pytest.raises(ConfigError, match="ISOCHRONE_STATE_TOKEN is not set"):
        check(replace(asked, host="0.0.0.0"))
    monkeypatch.setenv("ISOCHRONE_STATE_TOKEN", "secret")
    check(replace(asked, host="0.0.0.0"))


def test_a_state_address_of_the_environment_is_checked(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = options(repository)
    monkeypatch.delenv("ISOCHRONE_STATE_TOKEN", raising=False)
    monkeypatch.setenv("ISOCHRONE_STATE_ADDRESS", "127.0.0.1:8003")
    check(asked)
    monkeypatch.setenv("ISOCHRONE_STATE_ADDRESS", "0.0.0.0:8003")
    with pytest.raises(ConfigError, match="ISOCHRONE_STATE_TOKEN is not set"):
        check(asked)
    monkeypatch.setenv("ISOCHRONE_STATE_ADDRESS", "8003")
    with pytest.raises(ConfigError, match=r"ISOCHRONE_STATE_ADDRESS is '8003', but must be HOST:PORT"):
        check(asked)
    (port,) = free_ports(1)
    check(replace(asked, state_port=port))  # which goes before


def test_a_state_port_is_one_of_its_own(repository: Path) -> None:
    asked = options(repository)
    with pytest.raises(ConfigError, match="each needs a port of its own"):
        check(replace(asked, state_port=asked.http_port))
    with pytest.raises(ConfigError, match="--state-port 70000 is not a port"):
        check(replace(asked, state_port=70_000))
