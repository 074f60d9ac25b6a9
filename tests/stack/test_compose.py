"""Compose files of every backend: valid, hardened, fast to start.

Needs Docker and the lab's images.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import urllib.request
import uuid

import pytest
from offline.recipes import BACKENDS, STACK
from support.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

UP_DEADLINE_S = 60
SOCKET = "/var/run/docker.sock"


@functools.cache  # one value per session, even if the stack's files change meanwhile
def variables_of(backend: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, STACK / "bootstrap.py", "env", "--backend", backend],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0:
        pytest.skip(f"the lab of {backend} cannot run here: {done.stderr.strip()}")
    return json.loads(done.stdout)


def compose(backend: str, project: str, *arguments: str, ports: dict[str, str] | None = None) -> str:
    override = [] if backend == "ollama" else ["-f", str(STACK / f"compose.{backend}.yaml")]
    files = ["-f", str(STACK / "compose.yaml"), *override]
    done = subprocess.run(
        ["docker", "compose", "-p", project, *files, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=UP_DEADLINE_S + 30,
        env={**os.environ, **variables_of(backend), **(ports or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=BACKENDS)
def config(request):
    """The merged Compose configuration of one backend, with all profiles."""
    text = compose(
        request.param,
        "setup-config",
        *("--profile", "remediator", "--profile", "grafana", "--profile", "scale", "config", "--format", "json"),
        ports={"LLMCHAOS_SCALE": "on"},
    )
    return json.loads(text)


def each(config, claim):
    """Names of the services for which `claim` does not hold."""
    return [name for name, service in config["services"].items() if not claim(service)]


def test_all_services_of_the_lab_are_there(config):
    assert set(config["services"]) == {
        "api", "model-1", "model-2", "model-3", "model-4", "prometheus", "pushgateway", "docker-proxy", "remediator",
        "autoscaler", "grafana",
    }  # fmt: skip


def test_no_service_runs_as_root(config):
    assert each(config, lambda service: service["user"] == "65534:65534") == []


def test_every_service_is_read_only_and_without_capabilities(config):
    assert each(config, lambda service: service["read_only"] is True) == []
    assert each(config, lambda service: service["cap_drop"] == ["ALL"] and "cap_add" not in service) == []
    assert each(config, lambda service: service["security_opt"] == ["no-new-privileges:true"]) == []
    assert each(config, lambda service: not service.get("privileged")) == []


def test_every_service_has_limits_of_memory_and_processes_and_no_swap(config):
    assert each(config, lambda service: 0 < int(service["mem_limit"]) <= 2**30) == []
    assert each(config, lambda service: service["memswap_limit"] == service["mem_limit"]) == []
    assert each(config, lambda service: 0 < service["pids_limit"] <= 256) == []


def test_no_service_has_a_restart_policy(config):
    """Else Docker's recovery would be credited to the remediator."""
    assert each(config, lambda service: service["restart"] == "no") == []


def test_every_service_ends_quickly_and_reaps_its_children(config):
    assert each(config, lambda service: service["init"] is True) == []
    assert each(config, lambda service: service["stop_grace_period"] == "1s") == ["autoscaler"]
    assert config["services"]["autoscaler"]["stop_grace_period"] == "3s"


def test_every_service_has_a_health_check(config):
    assert each(config, lambda service: service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}) == []


def test_ports_are_published_on_loopback_only(config):
    published = {
        name: {port["host_ip"] for port in service.get("ports", ())} for name, service in config["services"].items()
    }

    assert {name for name, hosts in published.items() if hosts} == {"api", "prometheus", "pushgateway", "grafana"}
    assert set().union(*published.values()) == {"127.0.0.1"}


def test_only_the_proxy_sees_the_docker_socket(config):
    seen = [
        name
        for name, service in config["services"].items()
        if any(SOCKET in (mount.get("source", ""), mount["target"]) for mount in service.get("volumes", ()))
    ]

    assert seen == ["docker-proxy"]


def test_the_proxy_is_reached_by_remediator_autoscaler_and_prometheus_only(config):
    assert list(config["services"]["docker-proxy"]["networks"]) == ["control"]
    assert {name for name, service in config["services"].items() if "control" in service["networks"]} == {
        "docker-proxy", "remediator", "autoscaler", "prometheus",
    }  # fmt: skip


def test_models_and_proxy_cannot_reach_the_outside(config):
    assert config["networks"]["backend"]["internal"] is True
    assert config["networks"]["control"]["internal"] is True
    for name in ("model-1", "model-2", "model-3", "model-4", "docker-proxy", "remediator", "autoscaler"):
        assert "edge" not in config["services"][name]["networks"]


def test_host_folders_are_mounted_read_only(config):
    writable = [
        mount["source"]
        for service in config["services"].values()
        for mount in service.get("volumes", ())
        if mount["type"] == "bind" and not mount.get("read_only")
    ]

    assert writable == [SOCKET]


def test_two_stacks_do_not_meet_in_names(config):
    assert each(config, lambda service: "container_name" not in service and "hostname" not in service) == []


def test_every_image_is_pinned(config):
    """By digest or content hash, never by a tag that can move."""
    assert (
        each(config, lambda service: "@sha256:" in service["image"] or service["image"].startswith("llmchaos/")) == []
    )


def test_each_backend_is_probed_where_it_answers(config):
    model, api = config["services"]["model-1"], config["services"]["api"]

    assert api["environment"]["LAB_HEALTH_PATH"] == model["healthcheck"]["test"][3]


@pytest.fixture(params=BACKENDS)
def running(request, free_ports):
    """A whole lab of one backend: the time it took to start, and its api's address."""
    project = f"setup-{uuid.uuid4().hex[:8]}"
    names = ("LLMCHAOS_API_PORT", "LLMCHAOS_PROMETHEUS_PORT", "LLMCHAOS_PUSHGATEWAY_PORT")
    ports = dict(zip(names, map(str, free_ports(3)), strict=True))
    profile = ("--profile", "remediator")
    try:
        compose(request.param, project, *profile, "up", "-d", "--wait", f"--wait-timeout={UP_DEADLINE_S}", ports=ports)
        yield request.param, project, ports
    finally:
        compose(request.param, project, *profile, "down", "-v", "-t", "1", ports=ports)


@pytest.fixture
def free_ports():
    def draw(count: int) -> list[int]:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        numbers = [each_socket.getsockname()[1] for each_socket in sockets]
        for each_socket in sockets:
            each_socket.close()
        return numbers

    return draw


def get(url: str, body: dict[str, object] | None = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_a_started_lab_answers_is_scraped_and_leaves_no_orphans(running):
    backend, project, ports = running
    api, prometheus = (f"http://127.0.0.1:{ports[f'LLMCHAOS_{name}_PORT']}" for name in ("API", "PROMETHEUS"))
    scraped = {"api", "prometheus", "pushgateway", "docker-proxy", "remediator"}
    scraped |= set() if backend == "ollama" else {"model-1", "model-2"}  # Ollama has no metrics of its own
    question = {"model": "smollm2:135m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}

    answer = get(f"{api}/v1/chat/completions", question)

    def up():
        found = get(f"{prometheus}/api/v1/query?query=up")["data"]["result"]
        return {series["metric"]["service"] for series in found if series["value"][1] == "1"}

    assert until(lambda: scraped <= up(), f"{sorted(scraped)} are up", 20, every_s=0.2, seen=lambda: sorted(up()))
    compose(backend, project, "--profile", "remediator", "down", "-v", "-t", "1", ports=ports)
    label = f"label=com.docker.compose.project={project}"
    left = [
        subprocess.run(["docker", *kind, "-q", "--filter", label], check=True, capture_output=True, text=True).stdout
        for kind in (["ps", "-a"], ["network", "ls"], ["volume", "ls"])
    ]

    assert answer["choices"][0]["message"]["content"]
    assert left == ["", "", ""]
