"""Allow-list in front of a real supervisord."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.local_world import DEAF, world
from support.waiting import until

from lab_supervisor_proxy.server import servers
from lab_supervisor_proxy.settings import Settings
from pytest_llmchaos.host.ports import loopback
from pytest_llmchaos.runtime.local.control import SOCKET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.local_world import World

PROJECT = "llmchaos-1-abc"
NAME = f"/containers/{PROJECT}-api-1"
LIST = f"/containers/json?all=1&filters=%7B%22label%22%3A%5B%22com.docker.compose.project%3D{PROJECT}%22%5D%7D"


class Proxy:
    """The proxy in front of a world of processes. Calls name the service."""

    def __init__(self, lab: World) -> None:
        settings = Settings(
            host=loopback(),
            port=0,
            metrics_port=0,
            project=PROJECT,
            repairs=("api",),
            scaled=("api",),
            socket=lab.work / SOCKET,
        )
        self.lab = lab
        self._servers = servers(settings)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def call(
        self, method: str, url: str, *, metrics: bool = False, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection(loopback(), self._servers[metrics].server_port, timeout=10)
        try:
            connection.request(method, url, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def state(self) -> dict[str, Any]:
        status, body = self.call("GET", f"{NAME}/json")
        assert status == 200
        state: dict[str, Any] = json.loads(body)["State"]
        return state

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    deep = tmp_path / ("d" * 100)  # deeper than a socket path can be
    deep.mkdir()
    with world(deep) as lab:
        lab.start(lab.process("api"), lab.process("prometheus"))
        made = Proxy(lab)
        yield made
        made.close()


def test_a_service_is_shown_as_in_docker(proxy: Proxy) -> None:
    running = proxy.state()
    proxy.lab.control.call("pause", "api")
    paused = proxy.state()
    proxy.lab.control.call("kill", "api", "SIGKILL")
    proxy.lab.control.wait_dead("api")
    exited = proxy.state()

    assert (running["Status"], running["Running"], running["Paused"]) == ("running", True, False)
    assert running["StartedAt"].endswith("+00:00")
    assert (paused["Status"], paused["Running"], paused["Paused"]) == ("paused", True, True)
    assert (exited["Status"], exited["Running"], exited["ExitCode"], exited["Pid"]) == ("exited", False, 137, 0)
    body = json.loads(proxy.call("GET", f"{NAME}/json")[1])
    assert body["Config"]["Labels"] == {"com.docker.compose.project": PROJECT, "com.docker.compose.service": "api"}


def test_all_services_are_listed_and_only_the_repairable_may_be_touched(proxy: Proxy) -> None:
    status, body = proxy.call("GET", LIST)

    assert status == 200
    assert [one["Names"] for one in json.loads(body)] == [[f"/{PROJECT}-api-1"], [f"/{PROJECT}-prometheus-1"]]
    assert proxy.call("POST", f"/containers/{PROJECT}-prometheus-1/kill")[0] == 403
    assert proxy.lab.control.inspect()["prometheus"].running


def test_a_repeated_start_or_kill_gets_dockers_answers(proxy: Proxy) -> None:
    assert proxy.call("POST", f"{NAME}/start")[0] == 304
    assert proxy.call("POST", f"{NAME}/kill?signal=SIGKILL")[0] == 204
    proxy.lab.control.wait_dead("api")
    assert proxy.call("POST", f"{NAME}/kill?signal=SIGKILL")[0] == 409
    assert proxy.call("POST", f"{NAME}/stop?t=1")[0] == 304
    assert proxy.call("POST", f"{NAME}/start")[0] == 204
    assert proxy.state()["Running"]


@pytest.mark.parametrize("program", ["import time\nwhile True: time.sleep(60)", DEAF], ids=["polite", "deaf"])
def test_a_restart_ends_even_a_deaf_service(tmp_path: Path, program: str) -> None:
    with world(tmp_path) as lab:
        lab.start(lab.process("api", program))
        if program == DEAF:
            log = lab.work / "logs" / "api.txt"
            until(lambda: log.exists() and "deaf" in log.read_text(), "the deaf program")
        first = lab.pid("api")
        proxy = Proxy(lab)
        try:
            # A grace period that is never used up, except by the deaf program.
            assert proxy.call("POST", f"{NAME}/restart?t={1 if program == DEAF else 20}")[0] == 204
        finally:
            proxy.close()

        assert lab.pid("api") not in {0, first}
        actions = [action for action, _ in lab.events("api")]
        assert actions[-4:] == ["die", "stop", "start", "restart"]
        assert actions.count("kill") == (2 if program == DEAF else 1)


def test_a_call_with_a_body_or_an_upgrade_is_denied(proxy: Proxy) -> None:
    assert proxy.call("POST", f"{NAME}/start", headers={"Content-Length": "2", "X": "y"})[0] == 403
    assert proxy.call("POST", f"{NAME}/start", headers={"Upgrade": "tcp"})[0] == 403


BROWSERS = [{"Origin": "http://shop.example"}, {"Sec-Fetch-Site": "same-origin"}, {"Host": "shop.example:2375"}]


def test_a_call_of_a_page_in_a_web_browser_is_denied(proxy: Proxy) -> None:
    pid = proxy.lab.pid("api")

    for headers in BROWSERS:
        status, body = proxy.call("POST", f"{NAME}/kill", headers=headers)

        assert status == 403
        assert json.loads(body)["message"].startswith("denied: expected a ")
    assert proxy.lab.pid("api") == pid


def test_health_depends_on_supervisord_and_denials_are_counted(proxy: Proxy) -> None:
    assert proxy.call("GET", "/healthz", metrics=True)[0] == 200
    proxy.call("POST", "/containers/create")
    assert 'verdict="denied"' in proxy.call("GET", "/metrics", metrics=True)[1]

    proxy.lab.daemon.stop()

    assert proxy.call("GET", "/healthz", metrics=True)[0] == 503
    assert proxy.call("GET", f"{NAME}/json")[0] == 500
