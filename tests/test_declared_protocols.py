"""Services whose settings show that they take TLS or HTTP/2 only."""

import json

import pytest

from pytest_llmchaos.runtime.docker import attach_preflight, docker_cli, reach
from pytest_llmchaos.runtime.docker.declared_protocols import Declared, in_file, unreadable

CURL = ["CMD", "curl", "-kf"]


def port(target, **more):
    return {"target": target, "protocol": "tcp", **more}


@pytest.mark.parametrize(
    ("service", "shown"),
    [
        ({"ports": [port(8000, app_protocol="https")]}, "TLS on port 8000 (app_protocol: https)"),
        ({"ports": [port(8000, app_protocol="GRPC")]}, "HTTP/2 on port 8000 (app_protocol: GRPC)"),
        ({"ports": [port(8000, app_protocol="kubernetes.io/h2c")]}, "HTTP/2 on port 8000"),
        ({"ports": [port(8000, app_protocol="http")]}, ""),
        ({"ports": [port(8000, app_protocol="https"), port(9000)]}, ""),
        ({"ports": [port(8000, app_protocol="https"), port(53, protocol="udp")]}, "TLS on port 8000"),
        ({"ports": [port(8000, app_protocol="https")], "expose": ["9000/tcp"]}, ""),
        (
            {"ports": [port(8443)], "healthcheck": {"test": [*CURL, "https://localhost:8443/health"]}},
            "TLS on port 8443 (its health check requests https://localhost:8443)",
        ),
        ({"healthcheck": {"test": ["CMD-SHELL", "wget -q https://127.0.0.1/ || exit 1"]}}, "TLS on port 443"),
        ({"expose": ["8080"], "healthcheck": {"test": [*CURL, "https://localhost:8443/health"]}}, ""),
        ({"healthcheck": {"test": [*CURL, "https://localhost.example.org/"]}}, ""),
        ({"healthcheck": {"test": [*CURL, "https://models.example.org/"]}}, ""),
        ({"healthcheck": {"test": [*CURL, "http://localhost:8080/"]}}, ""),
        ({"healthcheck": {"test": ["CMD", "grpc_health_probe", "-addr=:50051"]}}, "HTTP/2 on port 50051"),
        ({"command": ["vllm", "serve", "--ssl-keyfile", "/k"]}, "TLS (its command has --ssl-keyfile)"),
        (
            {"entrypoint": ["llama-server", "--ssl-cert-file", "/c"], "expose": ["8080"]},
            "TLS (its command has --ssl-cert",
        ),
        ({"command": ["serve", "--ssl-ca-certs", "/c"]}, ""),
        ({"command": None, "entrypoint": None, "healthcheck": {"test": None}, "expose": ["3000-3005"]}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_a_compose_file_shows_them(service, shown):
    config = reach.read_config(json.dumps({"services": {"web": service}}))

    found = unreadable(in_file(config))

    assert [name for name, _ in found] == (["web"] if shown else [])
    assert all(reason.startswith(shown) for _, reason in found)


def test_they_come_by_name():
    tls = Declared(ports={443: "https"})

    assert [name for name, _ in unreadable({"web": tls, "api": tls, "db": Declared(ports={5432: ""})})] == [
        "api",
        "web",
    ]


def test_running_containers_show_them_too(monkeypatch):
    def run(command, **_):
        config = {
            "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
            "Entrypoint": ["serve"],
            "Cmd": None,
            "Healthcheck": {"Test": [*CURL, "https://localhost:8443/"]},
            "ExposedPorts": {"8443/tcp": {}, "8443/udp": {}},
        }
        found = {"Name": "/shop-web-1", "Config": config, "HostConfig": {"RestartPolicy": {}}}
        return "aaa" if "ps" in command else json.dumps([found])

    monkeypatch.setattr(docker_cli, "run", run)
    members = attach_preflight.Members(project="shop")

    (found,) = attach_preflight._settings_of(members).values()

    assert unreadable({"web": found.declared}) == (
        ("web", "TLS on port 8443 (its health check requests https://localhost:8443)"),
    )
