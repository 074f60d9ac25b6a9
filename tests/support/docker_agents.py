"""HTTP servers in containers, and runtimes that arm them."""

from __future__ import annotations

import http.client
import itertools
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import docker
from support.waiting import until

from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import agent_container, attached, docker_cli
from pytest_llmchaos.runtime.docker.attached import AttachedRuntime
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime

# Answers each GET and POST with its body or "hello", and keeps connections.
SERVER = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)) or b"hello"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_): pass
ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
# Refuses each handshake, as a server of TLS does that serves another name.
TLS_SERVER = """
import socket
server = socket.create_server(("", 8443))
while True:
    with server.accept()[0] as one:
        if one.recv(4096)[:2] == bytes.fromhex("1603"):
            one.sendall(bytes.fromhex("15030300020270"))
"""
# Sends one request to a container by its name.
CLIENT = "import sys, urllib.request; print(urllib.request.urlopen(f'http://{sys.argv[1]}:8080/', timeout=5).read().decode())"
# Lists the kernel's tables of nftables, without the agent's code.
TABLES = """
import ctypes
nft = ctypes.CDLL("libnftables.so.1")
nft.nft_ctx_new.restype = ctypes.c_void_p
context = ctypes.c_void_p(nft.nft_ctx_new(0))
assert nft.nft_run_cmd_from_buffer(context, b"list ruleset") == 0
"""


@dataclass(kw_only=True)
class World:
    """One network with servers. `close` removes everything."""

    image: str
    agent_image: str
    directory: Path
    client: Any = field(default_factory=lambda: docker.DockerClient(base_url=docker_cli.docker_host(), timeout=20))
    project: str = field(default_factory=lambda: f"agents{os.getpid()}")
    runtimes: list[ComposeRuntime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = {"llmchaos.run": "agents", "llmchaos.owner": identity.owner_label()}
        self.network = self.client.networks.create(self.project, labels={"agents-test": self.project})

    def server(
        self,
        name: str,
        *,
        labels: Mapping[str, str],
        number: int = 1,
        command: str = SERVER,
        waits: bool = True,
        **more: Any,
    ) -> Any:
        """Start a server, and wait until it answers from here."""
        net = {} if "network_mode" in more else {"network": self.project}
        container = self.client.containers.run(
            self.image,
            ["python3", "-S", "-c", command],
            name=f"{self.project}-{name}-{number}",
            detach=True,
            read_only=True,
            init=True,
            labels={
                "agents-test": self.project,
                "com.docker.compose.project": self.project,
                "com.docker.compose.service": name,
                "com.docker.compose.container-number": str(number),
                **labels,
            },
            **{**net, **more},
        )
        if net and waits:
            until(lambda: answers(address_of(container)), f"{name} answers", 10)
        return container

    def compose(self) -> ComposeRuntime:
        """A runtime whose project these containers are."""
        return self._open(ComposeRuntime, self.labels)

    def attached(self) -> AttachedRuntime:
        """A runtime on containers of another owner."""
        runtime = self._open(AttachedRuntime, self.labels)
        assert isinstance(runtime, AttachedRuntime)
        return runtime

    def _open(self, kind: type[ComposeRuntime], labels: Mapping[str, str]) -> ComposeRuntime:
        runtime = kind(
            attached._bare(()),
            project=self.project,
            run=labels["llmchaos.run"],
            owner=labels["llmchaos.owner"],
            directory=self.directory,
        )
        runtime._client = runtime._new_client()
        self.runtimes.append(runtime)
        return runtime

    def from_inside(self, victim: Any) -> str:
        """Answer to a client in another container of the network."""
        command = ["python3", "-S", "-c", CLIENT, victim.name]
        said = self.client.containers.run(
            self.image, command, network=self.project, remove=True, labels={"agents-test": self.project}
        )
        return str(said.decode().strip())

    def agents_of(self, victim: Any) -> list[Any]:
        chosen = {"label": f"{agent_container.VICTIM}={victim.id}"}
        return list(self.client.containers.list(all=True, filters=chosen))

    def rules(self, victim: Any) -> str:
        """The kernel's rules in the victim's network namespace."""
        return rules_of(victim, self.agent_image, labels={"agents-test": self.project})

    def close(self) -> None:
        for runtime in (one for one in self.runtimes if one._client is not None):
            runtime.wire_disarm()
            runtime._client.close()
        for one in self.client.containers.list(all=True, filters={"label": f"agents-test={self.project}"}):
            one.remove(force=True, v=True)
        self.network.remove()
        self.client.close()


def rules_of(victim: Any, agent_image: str, *, labels: Mapping[str, str]) -> str:
    """The kernel's rules in the network namespace of a container."""
    said = victim.client.containers.run(
        agent_image,
        ["python3", "-S", "-c", TABLES],
        network_mode=f"container:{victim.id}",
        user="0:0",
        cap_drop=["ALL"],
        cap_add=["NET_ADMIN"],
        remove=True,
        labels=dict(labels),
    )
    return str(said.decode())


def address_of(container: Any) -> tuple[str, int]:
    container.reload()
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return network["IPAddress"], 8080


def answers(address: tuple[str, int], *, timeout_s: float = 0.5) -> bool:
    """True if a server answers one request here, on a connection of its own."""
    try:
        with socket.create_connection(address, timeout=timeout_s) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def status_of(address: tuple[str, int], method: str = "POST", *, timeout_s: float = 5) -> int:
    """Status of one request."""
    connection = http.client.HTTPConnection(*address, timeout=timeout_s)
    try:
        connection.request(method, "/", body=b"{}" if method == "POST" else None)
        return connection.getresponse().status
    finally:
        connection.close()


class Onlooker:
    """Thread that sends requests to a server, one after the other, and times gaps."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._ended = threading.Event()
        self._good: list[float] = [time.monotonic()]
        self.bad = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            if answers(self._address, timeout_s=0.25):
                self._good.append(time.monotonic())
            else:
                self.bad += 1

    @property
    def looks(self) -> int:
        return len(self._good) + self.bad

    def longest_gap_s(self) -> float:
        """Longest time without a good answer, up to now."""
        times = [*self._good, time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times))
