"""Queries to a Prometheus that scrapes meanwhile."""

from __future__ import annotations

import http.server
import threading
import time
from typing import Any

import pytest
from support.prometheus_server import free_port, prometheus_with
from support.waiting import until


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


class _Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"answer 42\n")

    def log_message(self, *_: Any) -> None:
        pass
