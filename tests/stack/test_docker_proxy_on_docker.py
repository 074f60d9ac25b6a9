"""The allow-list proxy's container in front of real Docker.

Containers of its own project and of another one are present.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "stack" / "docker-proxy" / "haproxy.cfg"
CALLS: dict[str, dict[str, dict[str, Any]]] = json.loads(
    (ROOT / "tests" / "data" / "docker_proxy_calls.json").read_text()
)
SERVICES = ("api", "model-1", "model-2")
DOCKER_SOCKET = "/var/run/docker.sock"
DEADLINE_S = 15.0

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def images() -> dict[str, str]:
    """The lab's images. Skips with the reason if they or Docker are missing."""
    if subprocess.run(["docker", "version"], capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("needs a Docker daemon")
    done = subprocess.run(
        [sys.executable, str(ROOT / "stack" / "bootstrap.py"), "env", "--backend", "sim"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs the lab's images: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Sleeping containers of two projects, and the proxy of the first."""

    project: str
    foreign: str
    proxy: str
    port: int
    names: dict[str, str] = field(default_factory=dict)

    def name(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def ask(self, call: dict[str, Any]) -> tuple[int, bytes]:
        """Send a request byte by byte as the table has it. Returns status and body."""
        body = str(call.get("body", ""))
        headers = {"Host": "docker", "Connection": "close", **call.get("headers", {})}
        if body and "Transfer-Encoding" not in headers:
            headers["Content-Length"] = str(len(body))
        first = f"{call['method']} {call['path'].format(**self.names)} HTTP/1.1"
        lines = [first, *(f"{name}: {value}" for name, value in headers.items()), "", body]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall("\r\n".join(lines).encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), content

    def read(self, name: str) -> Any:
        """The JSON answer of an allowed GET."""
        path = CALLS["allowed"][name]["path"].format(**self.names)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return json.load(answer)

    def state(self, container: str) -> dict[str, Any]:
        return dict(json.loads(docker("inspect", "-f", "{{json .State}}", container)))

    def everything(self) -> list[str]:
        """The project's containers, volumes and networks with ids and start times."""
        marks = docker("ps", "-a", "--no-trunc", "--filter", f"name={self.project}", "--format", "{{.ID}} {{.Names}}")
        started = [f"{line} {self.state(line.split()[1])['StartedAt']}" for line in sorted(marks.splitlines())]
        others = docker("volume", "ls", "-q", "--filter", f"name={self.project}")
        return [*started, others, docker("network", "ls", "-q", "--filter", f"name={self.project}")]


def sleeper(name: str, project: str, service: str, image: str) -> str:
    labels = [f"com.docker.compose.project={project}", f"com.docker.compose.service={service}"]
    marks = [part for label in labels for part in ("--label", label)]
    return docker("run", "-d", "--init", "--network", "none", "--name", name, *marks, image, "sleep", "600")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    variables = images()
    project = f"remediator-proxy-{uuid.uuid4().hex[:8]}"
    foreign, proxy = f"{project}b-api-1", f"{project}-docker-proxy-1"
    made = [*(f"{project}-{service}-1" for service in SERVICES), foreign, proxy]
    try:
        ids = [
            sleeper(f"{project}-{service}-1", project, service, variables["LLMCHAOS_SERVICES_IMAGE"])
            for service in SERVICES
        ]
        sleeper(foreign, f"{project}b", "api", variables["LLMCHAOS_SERVICES_IMAGE"])
        environment = [f"LAB_PROJECT={project}", f"LAB_REPAIRS={','.join(SERVICES)}", "LAB_HOST=0.0.0.0"]
        environment.append("LAB_SCALED=model-1,model-2")
        group = str(Path(DOCKER_SOCKET).stat().st_gid)
        docker(
            *("run", "-d", "--init", "--name", proxy, "--user", "65534:65534", "--group-add", group, "--read-only"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "-p", "127.0.0.1::2375"),
            *(part for variable in environment for part in ("-e", variable)),
            *("-v", f"{CONFIG}:/usr/local/etc/haproxy/haproxy.cfg:ro", "-v", f"{DOCKER_SOCKET}:{DOCKER_SOCKET}"),
            *(os.environ.get("LLMCHAOS_HAPROXY_IMAGE") or variables["LLMCHAOS_HAPROXY_IMAGE"],),
            *("haproxy", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"),
        )
        port = int(docker("port", proxy, "2375/tcp").rsplit(":", 1)[1])
        names = {"project": project, "foreign": foreign, "id": ids[0], "short_id": ids[0][:12]}
        running = Lab(project=project, foreign=foreign, proxy=proxy, port=port, names=names)
        until(lambda: answers(running), "answer of the proxy", DEADLINE_S)
        yield running
    finally:
        subprocess.run(["docker", "rm", "-f", "-v", *made], capture_output=True, timeout=60, check=False)


def answers(lab: Lab) -> bool:
    try:
        return lab.ask(CALLS["allowed"]["inspect the api"])[0] == 200
    except (OSError, IndexError):
        return False


@pytest.mark.parametrize("name", CALLS["denied"])
def test_a_forbidden_call_is_403(lab: Lab, name: str) -> None:
    status, body = lab.ask(CALLS["denied"][name])

    assert status == 403
    assert body.startswith(b'{"message": "denied') or CALLS["denied"][name]["method"] == "HEAD"


def test_all_forbidden_calls_together_change_nothing_and_each_is_logged(lab: Lab) -> None:
    before = lab.everything()
    for call in CALLS["denied"].values():
        lab.ask(call)
    wanted = {(call["method"], call["path"].format(**lab.names)) for call in CALLS["denied"].values()}

    def logged() -> set[tuple[str, str]]:
        lines = [json.loads(line) for line in docker("logs", lab.proxy).splitlines() if line[:1] + line[-1:] == "{}"]
        return {(line["method"], line["url"]) for line in lines if (line["verdict"], line["status"]) == ("denied", 403)}

    until(lambda: wanted <= logged(), "line for every call", DEADLINE_S)

    assert lab.everything() == before


def test_the_list_shows_the_project_and_nothing_else(lab: Lab) -> None:
    assert {name for one in lab.read("list the project") for name in one["Names"]} == {
        f"/{lab.name(name)}" for name in SERVICES
    }


def test_a_killed_container_is_seen_and_started_through_the_proxy(lab: Lab) -> None:
    foreign = lab.state(lab.foreign)
    killed, _ = lab.ask(CALLS["allowed"]["kill"])
    dead = lab.read("inspect the api")["State"]
    started, _ = lab.ask(CALLS["allowed"]["start"])
    alive = lab.state(lab.name("api"))

    assert (killed, started) == (204, 204)
    assert (dead["Status"], dead["ExitCode"]) == ("exited", 137)
    assert alive["Running"]
    assert lab.state(lab.foreign) == foreign


def test_a_running_container_is_restarted_and_stopped_through_the_proxy(lab: Lab) -> None:
    before = lab.state(lab.name("api"))["StartedAt"]
    restarted, _ = lab.ask(CALLS["allowed"]["restart at once"])
    after = lab.state(lab.name("api"))["StartedAt"]
    stopped, _ = lab.ask(CALLS["allowed"]["stop"])
    down = lab.state(lab.name("model-1"))["Running"]
    started, _ = lab.ask({"method": "POST", "path": "/containers/{project}-model-1-1/start"})

    assert (restarted, stopped, started) == (204, 204, 204)
    assert after > before
    assert not down


def test_the_proxy_runs_without_root_on_a_read_only_file_system(lab: Lab) -> None:
    config = json.loads(docker("inspect", "-f", "{{json .HostConfig}}", lab.proxy))
    users = docker("exec", lab.proxy, "cat", "/proc/1/status").splitlines()

    assert config["ReadonlyRootfs"]
    assert next(line for line in users if line.startswith("Uid:")).split()[1:] == ["65534"] * 4
    assert next(line for line in users if line.startswith("CapEff:")).split()[1] == "0" * 16
