"""Queries to a Prometheus that scrapes meanwhile."""

from __future__ import annotations

import base64
import http.server
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.prometheus_server import free_port, prometheus_with
from support.waiting import until

from pytest_llmchaos.errors import NotReady, PrometheusUnreachable
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.prometheus.required_metrics import require_metrics, require_rules

if TYPE_CHECKING:
    from pathlib import Path


def test_a_live_server_lists_its_targets_and_drops_a_dead_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    own, dead = free_port(), free_port()
    config = f"""
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: api
    static_configs: [{{targets: ["127.0.0.1:{own}"], labels: {{service: api}}}}]
  - job_name: model
    static_configs: [{{targets: ["127.0.0.1:{dead}"], labels: {{service: model-1}}}}]
"""
    exporter = http.server.ThreadingHTTPServer(("127.0.0.1", own), _Exporter)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    with prometheus_with(tmp_path_factory.mktemp("live"), config) as server:
        until(lambda: [t for t in server.targets() if t.last_scrape_unix_s > 0][1:], "a scrape of each target", 10)
        api, model = server.targets()
        until(lambda: server.vector("answer", time.time(), may_be_empty=True), "a stored sample", 5)
        exporter.shutdown()
        exporter.server_close()
        until(lambda: not server.vector("answer", time.time(), may_be_empty=True), "the staleness marker", 5)

    assert (api.job, api.service, api.up, api.last_error) == ("api", "api", True, "")
    assert (model.service, model.up) == ("model-1", False)
    assert "refused" in model.last_error
    assert abs(time.time() - api.last_scrape_unix_s) < 30


# The bcrypt hash of "pass", with the least cost.
WEB = 'basic_auth_users: {judge: "$2b$04$abcdefghijklmnopqrstuufznL8bkzdtHwLhca4To/v9Lo9bA7fR6"}'


def test_a_prefix_and_a_password_of_a_real_server_are_used_or_named(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(WEB)
    headers = {"Authorization": f"Basic {base64.b64encode(b'judge:pass').decode()}"}
    options = ("--web.route-prefix=/prometheus", f"--web.config.file={tmp_path / 'web.yml'}")
    with prometheus_with(tmp_path, "", *options, prefix="/prometheus", headers=headers) as server:
        require_rules(server)
        require_metrics(server, [])
        assert abs(server.clock_offset_s()) < 1
        for wrong, cause in (
            (Prometheus(server.url), "answered 401, so it wants credentials: set llmchaos_prometheus_headers"),
            (
                Prometheus(server.url.removesuffix("/prometheus"), headers=headers),
                "answered 404, so its API is below another path",
            ),
        ):
            with pytest.raises(NotReady, match=cause):
                require_rules(wrong)
            with pytest.raises(PrometheusUnreachable, match=cause):
                wrong.clock_offset_s()


class _Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"answer 42\n")

    def log_message(self, *_: Any) -> None:
        pass
