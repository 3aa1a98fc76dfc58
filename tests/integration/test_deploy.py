"""The image, the services and the install lines of deploy/, as far as they can be judged without containers."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import msgspec.toml
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backend.runtime_dir import VARIABLE
from tests.deploy_files import (
    COMPOSE,
    DEPLOY,
    DOCKERFILE,
    ROOT,
    copied_sources,
    final_stage,
    install,
    install_lines,
    instructions,
    services,
    yaml,
)

PROJECT = msgspec.toml.decode((ROOT / "pyproject.toml").read_text())["project"]
PINS: dict[str, str] = {canonicalize_name(Requirement(pin).name): pin for pin in PROJECT["dependencies"]}
BIN = Path(sys.executable).parent
PIPES = "CUDA_MPS_PIPE_DIRECTORY"


def arguments(instruction: str) -> list[str]:
    """Of its occurrences in the final stage."""
    return [rest for name, rest in final_stage() if name == instruction]


def argument(instruction: str) -> str:
    """Of its only occurrence in the final stage."""
    [value] = arguments(instruction)
    return value


# Dockerfile


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    command = [str(BIN / "hadolint"), "--no-color", "--failure-threshold", "style", str(DOCKERFILE)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_image_runs_as_no_root() -> None:
    user, _, group = argument("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_image_is_healthy_when_triton_is_ready() -> None:
    options, _, command = argument("HEALTHCHECK").partition(" CMD ")
    assert ast.literal_eval(command)[-1] == "http://127.0.0.1:8000/v2/health/ready"
    assert "--fail" in ast.literal_eval(command)
    assert all(f"--{name}=" in options for name in ("interval", "timeout", "start-period", "retries"))


def test_triton_works_in_a_folder_from_which_every_backend_is_found() -> None:
    """As `isochrone serve` does, see `backend.server.stub_entry`; no volume is laid over it."""
    copied = [rest.split()[1:] for name, rest in final_stage() if name == "COPY"]
    assert ["/source/backend/server/stub_entry.py", f"{argument('WORKDIR')}/model.py"] in copied
    for service in services().values():
        assert "working_dir" not in service
        assert not [volume for volume in service.get("volumes", []) if argument("WORKDIR") in volume]


def test_triton_listens_beyond_its_containers_loopback() -> None:
    command = ast.literal_eval(argument("CMD"))
    assert command[0] == "tritonserver"  # whose own default is every address; `isochrone serve` would say 127.0.0.1
    assert not [option for option in command if "address" in option]


def test_what_outlives_a_container_belongs_to_its_user() -> None:
    made = argument("RUN").split()
    user, _, group = argument("USER").partition(":")
    assert {f"--owner={user}", f"--group={group}", "--mode=0700"} <= set(made)
    assert f"{VARIABLE}=/var/lib/isochrone" in arguments("ENV")
    kept = {"/var/lib/isochrone", services()["mps"]["environment"][PIPES]}
    assert kept <= set(made)
    for name in ("triton-cpu", "triton-gpu"):
        assert "state:/var/lib/isochrone" in services()[name]["volumes"]


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for source in copied_sources():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in allowed


# Versions


def test_every_image_is_pinned() -> None:
    images = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    images += [service["image"] for service in services().values()]
    assert len(images) == 7
    for image in images:
        assert re.fullmatch(r"[\w./-]+:v?\d+(\.\d+)+[\w.-]*", image), image


def test_the_images_of_this_project_have_its_version() -> None:
    ours = {name: service["image"] for name, service in services().items() if "build" in service}
    version = PROJECT["version"]
    cpu, gpu = f"isochrone:{version}", f"isochrone:{version}-gpu"
    assert ours == {"triton-cpu": cpu, "triton-gpu": gpu, "mps": gpu}


def test_the_install_lines_and_the_image_have_the_versions_of_the_tests() -> None:
    _, dependencies, _ = install_lines()
    assert set(dependencies.split()[2:]) < set(PINS.values())
    assert ("ARG", f"ONNXRUNTIME={PINS['onnxruntime']}") in instructions()
    gpu = services()["triton-gpu"]["build"]["args"]["ONNXRUNTIME"]
    assert gpu == PINS["onnxruntime"].replace("==", "-gpu==")


def test_the_install_lines_are_those_of_the_projects_readme() -> None:
    assert "\n".join(install_lines()) in (ROOT / "README.md").read_text()


def locked(file: str = "requirements.txt") -> dict[str, str]:
    """By name; another such file that it includes is left out."""
    lines = (DEPLOY / file).read_text().splitlines()
    return {canonicalize_name(pin.partition("==")[0]): pin for pin in lines if not pin.startswith(("#", "--"))}


def closure(requirements: list[str]) -> set[str]:
    """Names of these packages and all that they need on the image's Python, from what is installed here."""
    image = {"python_version": "3.12", "python_full_version": "3.12.3", "extra": ""}
    names: set[str] = set()
    while requirements:
        requirement = Requirement(requirements.pop())
        name = canonicalize_name(requirement.name)
        if name in names or (requirement.marker and not requirement.marker.evaluate(image)):
            continue
        names.add(name)
        requirements += importlib.metadata.requires(name) or []
    return names


def test_the_image_gets_what_the_install_lines_get_all_of_it_pinned() -> None:
    pins = locked()
    assert set(pins) | {"onnxruntime"} == closure(install_lines()[1].split()[2:])
    for name, pin in pins.items():
        assert re.fullmatch(r"[\w-]+==[\d.]+", pin), pin
        assert pin == PINS.get(name, pin)


def test_the_gpus_image_gets_what_a_model_on_a_gpu_needs_all_of_it_pinned() -> None:
    file = services()["triton-gpu"]["build"]["args"]["REQUIREMENTS"]
    assert "--requirement requirements.txt" in (DEPLOY / file).read_text().splitlines()
    assert ("ARG", "REQUIREMENTS=requirements.txt") in instructions()
    wanted = PROJECT["optional-dependencies"]["gpu"]
    assert set(locked(file)) == closure(list(wanted))
    assert set(wanted) <= set(locked(file).values())
    for pin in locked(file).values():
        assert re.fullmatch(r"[\w-]+==[\d.]+", pin), pin


# Compose


def test_compose_would_accept_the_file() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_port_is_published_beyond_loopback() -> None:
    published = {name: service.get("ports", []) for name, service in services().items()}
    assert {name for name, ports in published.items() if ports} == {"triton-cpu", "triton-gpu", "prometheus", "grafana"}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)
    assert not [name for name, service in services().items() if service.get("network_mode", "none") != "none"]


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_refers_only_to_what_is_there(profile: str) -> None:
    running = {name: s for name, s in services().items() if profile in s.get("profiles", [profile])}
    volumes = yaml(COMPOSE)["volumes"]
    assert f"triton-{profile}" in running
    for service in running.values():
        assert set(service.get("depends_on", [])) <= set(running)
        assert service.get("ipc", "").removeprefix("service:") in {*running, "", "shareable"}
        for volume in service["volumes"]:
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in volumes, volume
        if build := service.get("build"):
            assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DOCKERFILE)


def test_the_profiles_run_one_triton_each_and_the_cpu_one_asks_for_no_gpu() -> None:
    profiles = {name: service.get("profiles") for name, service in services().items()}
    assert profiles == {
        "triton-cpu": ["cpu"],
        "triton-gpu": ["gpu"],
        "mps": ["gpu"],
        "prometheus": None,
        "grafana": None,
    }
    assert {name for name, service in services().items() if "deploy" in service} == {"triton-gpu", "mps"}


def test_mps_and_its_clients_share_pipes_memory_gpu_and_user() -> None:
    server, client = services()["mps"], services()["triton-gpu"]
    for name in ("image", "deploy", "ulimits"):
        assert server[name] == client[name], name
    assert (server["ipc"], client["ipc"]) == ("shareable", "service:mps")
    assert server["environment"][PIPES] == client["environment"][PIPES]
    pipes = f"mps:{client['environment'][PIPES]}"
    assert pipes in server["volumes"]
    assert pipes in client["volumes"]
    assert server["entrypoint"] == ["nvidia-cuda-mps-control", "-f"]
    assert client["depends_on"]["mps"]["condition"] == "service_healthy"
    assert "healthcheck" in server  # the image's own one asks Triton


# Prometheus and Grafana


class Targets(msgspec.Struct, forbid_unknown_fields=True):
    targets: list[str]


class Job(msgspec.Struct, forbid_unknown_fields=True):
    job_name: str
    static_configs: list[Targets]


class Global(msgspec.Struct, forbid_unknown_fields=True):
    scrape_interval: str


class Prometheus(msgspec.Struct, forbid_unknown_fields=True, rename={"global_": "global"}):
    global_: Global
    scrape_configs: list[Job]


class Interval(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    time_interval: str


class Datasource(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    name: str
    uid: str
    type: str
    access: str
    url: str
    is_default: bool
    json_data: Interval


class Datasources(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    api_version: int
    datasources: list[Datasource]


class Folder(msgspec.Struct, forbid_unknown_fields=True):
    path: str


class Provider(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    name: str
    type: str
    allow_ui_updates: bool
    options: Folder


class Providers(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    api_version: int
    providers: list[Provider]


def provisioned(path: str, kind: type[Any]) -> Any:
    return msgspec.convert(yaml(DEPLOY / path), kind)


def test_prometheus_asks_whichever_triton_runs() -> None:
    config: Prometheus = provisioned("prometheus.yml", Prometheus)
    [job] = config.scrape_configs
    [target] = job.static_configs[0].targets
    host, _, port = target.partition(":")
    for name in ("triton-cpu", "triton-gpu"):
        assert host in services()[name]["networks"]["default"]["aliases"]
        assert f"127.0.0.1:{port}:{port}" in services()[name]["ports"]


def test_grafana_asks_prometheus_as_often_as_it_scrapes() -> None:
    found: Datasources = provisioned("grafana/provisioning/datasources/prometheus.yml", Datasources)
    config: Prometheus = provisioned("prometheus.yml", Prometheus)
    [source] = found.datasources
    assert source.type in services()
    assert source.url == f"http://{source.type}:9090"
    assert "127.0.0.1:9090:9090" in services()[source.type]["ports"]
    assert source.json_data.time_interval == config.global_.scrape_interval


def test_grafana_finds_the_dashboard_and_shows_it_first() -> None:
    found: Providers = provisioned("grafana/provisioning/dashboards/isochrone.yml", Providers)
    [provider] = found.providers
    grafana = services()["grafana"]
    mounts = {target: DEPLOY / source for source, target, _ in (v.split(":") for v in grafana["volumes"][:2])}
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (mounts[provider.options.path] / home.relative_to(provider.options.path)).is_file()
    assert (mounts["/etc/grafana/provisioning"] / "dashboards/isochrone.yml").is_file()


def test_grafana_lets_visitors_look_and_has_no_password() -> None:
    environment = services()["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


# Installation

AS_THE_STUB = """
import sys
from pathlib import Path
sys.path += {path!r}
import model, backend.scheduler_process.process
import importlib.metadata, json
site = Path({site!r})
tops = {{name.partition(".")[0] for name, module in list(sys.modules.items())
         if getattr(module, "__file__", None) and site in Path(module.__file__).parents}}
dists = importlib.metadata.packages_distributions()
print(json.dumps([model.__file__, backend.__file__, sorted({{d for top in tops for d in dists.get(top, [top])}})]))
"""


def test_the_install_lines_make_a_backend_that_loads_with_what_the_image_has(tmp_path: Path) -> None:
    """Imported as by Triton's stub, which appends the folders of the Python backend and of this one to its path.

    Without site's .pth files, which would put this repository on the path. `triton_python_backend_utils` is empty here;
    tests/server/test_deploy.py runs the same lines on a real tritonserver.
    """
    folder = install(tmp_path / "tritonserver", tmp_path / "source")
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "triton_python_backend_utils.py").touch()
    site = sysconfig.get_path("purelib")
    script = AS_THE_STUB.format(path=[site, str(tmp_path / "python"), str(folder)], site=site)
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    model, package, used = json.loads(done.stdout)
    assert (model, package) == (str(folder / "model.py"), str(folder / "backend/__init__.py"))
    assert {"msgspec", "numpy", "onnxruntime"} <= set(used)
    assert {canonicalize_name(name) for name in used} <= {*locked(), "onnxruntime"}
