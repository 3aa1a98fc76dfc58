"""deploy/kubernetes against Kubernetes' own schemas, and its parts against each other. It was never on a cluster."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
from ruamel.yaml import YAML

from backend.commands.main import app
from backend.route_process.endpoints_file import parse_address, read_endpoints
from tests.deploy_files import DEPLOY, ROOT, yaml

FOLDER = DEPLOY / "kubernetes"
MANIFESTS = ("servers.yaml", "route.yaml")
ROUTE_DOCKERFILE = DEPLOY / "route.Dockerfile"
VERSION = "1.37"


def objects() -> dict[str, dict[str, Any]]:
    """All objects by kind and name."""
    found = [one for name in MANIFESTS for one in YAML(typ="safe", pure=True).load_all(FOLDER / name)]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found}


def containers(owner: str, kind: str = "containers") -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in objects()[owner]["spec"]["template"]["spec"][kind]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", objects())
def test_a_manifest_fits_kubernetes_own_schema(name: str) -> None:
    kubernetes_validate.validate(objects()[name], VERSION, strict=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_schema_refuses_what_is_no_field() -> None:
    wrong = objects()["Service triton"]
    wrong["spec"]["portz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_the_kustomization_names_what_is_there() -> None:
    kustomization = yaml(FOLDER / "kustomization.yaml")
    assert tuple(kustomization["resources"]) == MANIFESTS
    (config,) = kustomization["configMapGenerator"]
    volumes = objects()["Deployment isochrone-route"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "endpoints", "configMap": {"name": config["name"]}} in volumes
    assert all((FOLDER / file).is_file() for file in config["files"])


def test_the_endpoints_are_the_pods_of_the_servers() -> None:
    servers = objects()["StatefulSet triton"]["spec"]
    endpoints = read_endpoints(FOLDER / "endpoints.toml")
    assert [one.name for one in endpoints] == [f"triton-{i}" for i in range(servers["replicas"])]
    ports = {port["name"]: port["containerPort"] for port in containers("StatefulSet triton")["triton"]["ports"]}
    assert objects()[f"Service {servers['serviceName']}"]["spec"]["clusterIP"] == "None"
    for one in endpoints:
        for kind, address in (("http", one.http), ("grpc", one.grpc), ("state", *one.state)):
            found = parse_address(address)
            assert (found.host, found.port) == (f"{one.name}.{servers['serviceName']}", ports[kind])


def test_servers_and_router_have_one_token() -> None:
    environment = {one["name"]: one for one in containers("StatefulSet triton")["triton"]["env"]}
    secret = environment["ISOCHRONE_STATE_TOKEN"]["valueFrom"]["secretKeyRef"]
    volumes = objects()["Deployment isochrone-route"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "token", "secret": {"secretName": secret["name"]}} in volumes
    (mount,) = [
        one for one in containers("Deployment isochrone-route")["router"]["volumeMounts"] if one["name"] == "token"
    ]
    for one in read_endpoints(FOLDER / "endpoints.toml"):
        assert one.token_file == f"{mount['mountPath']}/{secret['key']}"


def test_the_routers_arguments_are_options_of_the_command() -> None:
    program: Any = typer.main.get_command(app)
    known = {name for option in program.commands["route"].params for name in option.opts}
    router = containers("Deployment isochrone-route")["router"]
    configure = containers("Deployment isochrone-route", "initContainers")["configure"]
    for container in (router, configure):
        command, *options = container["args"]
        assert command == "route"
        assert {option.partition("=")[0] for option in options} <= known


def test_envoy_reads_what_the_router_wrote() -> None:
    """On the port that its Service names, from the volume that both mount."""
    (written,) = [
        arg.partition("=")[2]
        for arg in containers("Deployment isochrone-route", "initContainers")["configure"]["args"]
        if arg.startswith("--write-envoy-config=")
    ]
    envoy = containers("Deployment isochrone-route")["envoy"]
    assert written in envoy["args"]
    assert {one["name"]: one["containerPort"] for one in envoy["ports"]} == {"http": 8000, "grpc": 8001}


def test_every_image_of_the_manifests_is_pinned_and_ours_have_our_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for owner in ("StatefulSet triton", "Deployment isochrone-route"):
        for container in containers(owner).values():
            name, _, tag = container["image"].rpartition(":")
            assert tag == version[1] if name.startswith("registry.example/") else re.fullmatch(r"v\d+\.\d+\.\d+", tag)


def test_hadolint_finds_nothing_in_the_routers_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    command = [str(hadolint), "--no-color", "--failure-threshold", "style", str(ROUTE_DOCKERFILE)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_all_that_the_routers_image_copies_exists_and_is_let_through() -> None:
    copies = [line.split()[1:-1] for line in ROUTE_DOCKERFILE.read_text().splitlines() if line.startswith("COPY")]
    allowed = (DEPLOY / "route.Dockerfile.dockerignore").read_text().splitlines()
    for source in (source for sources in copies for source in sources):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in allowed
