"""The onlooker's records, with a fake `docker` and a server that fails."""

import http.server
import json
import threading
import time
from contextlib import contextmanager

import pytest
from onlooker import Place, watching
from support.waiting import until

EVENT = {
    "timeNano": 1700000000123456789,
    "Action": "die",
    "Actor": {"Attributes": {"com.docker.compose.service": "api"}},
}
LOGGED = {"at": 1.0, "event": "detected", "rule": "api-exited"}
DOCKER = f"""#!/bin/sh
case "$1" in
  events) echo '{json.dumps(EVENT)}' ;;
  ps) echo 0123456789ab; exit ;;
  logs) echo 'Listening'; echo '{json.dumps(LOGGED)}' ;;
esac
exec sleep 60
"""


class Lab:
    """One server in the roles of Prometheus and the api."""

    def __init__(self):
        self.firing = False
        self.chunks = [
            '{"content": "", "finish_reason": null}',
            '{"content": "yes", "finish_reason": "stop"}',
            "[DONE]",
        ]
        self.status = 200
        lab = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                state = "firing" if lab.firing else "pending"
                alerts = [{"labels": {"alertname": "ServiceDown"}, "state": state}]
                self.answer(200, json.dumps({"data": {"alerts": alerts}}))

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(lab.status, "".join(f"data: {chunk}\n\n" for chunk in lab.chunks))

            def answer(self, status, body):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # an onlooker that ends closes its connection
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def world(tmp_path, monkeypatch):
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    lab = Lab()
    threading.Thread(target=lab.server.serve_forever, args=(0.02,), daemon=True).start()
    yield lab
    lab.server.shutdown()
    lab.server.server_close()


@contextmanager
def looking(lab, out):
    with watching(Place(project="p", api_url=lab.url, prometheus_url=lab.url, model="m"), out):
        yield lambda: [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]


def test_it_records_events_signals_and_answers(world, tmp_path):
    out = tmp_path / "seen.jsonl"
    with looking(world, out) as lines:
        began_s = time.time()
        world.firing = True
        until(lambda: sum(one["saw"] == "signal" for one in lines()) == 2)
        fired_s = time.time()
        world.status = 503
        failed_s = time.time()
        until(lambda: any(one["saw"] == "probe" and not one["good"] for one in lines()))

    seen = lines()
    assert {"saw": "event", "at": 1700000000.1234567, "service": "api", "action": "die"} in seen
    signals = {one["name"]: one["at"] for one in seen if one["saw"] == "signal"}
    assert set(signals) == {"remediator rule api-exited", "alert ServiceDown"}
    assert began_s <= signals["alert ServiceDown"] <= fired_s
    bad = [one["due"] for one in seen if one["saw"] == "probe" and not one["good"]]
    assert min(bad) > failed_s - 1
    assert not [one for one in seen if one["saw"] == "blind"]


@pytest.mark.parametrize(
    "chunks",
    [
        ['{"content": "yes", "finish_reason": null}', "[DONE]"],
        ['{"content": "yes", "finish_reason": "stop"}'],
        ['{"content": "", "finish_reason": "stop"}', "[DONE]"],
    ],
    ids=["no reason", "no end", "no token"],
)
def test_half_an_answer_is_no_good_answer(world, tmp_path, chunks):
    with looking(world, tmp_path / "seen.jsonl") as lines:
        world.chunks = chunks
        assert until(
            lambda: any(one["saw"] == "probe" and not one["good"] for one in lines()), "a probe that was not good"
        )


def test_a_watcher_that_ends_by_itself_is_reported(world, tmp_path):
    (tmp_path / "docker").write_text(DOCKER.replace("exec sleep 60", "sleep 1"))
    out = tmp_path / "seen.jsonl"

    with looking(world, out) as lines:
        assert until(lambda: any(one["saw"] == "blind" for one in lines()), "that it is blind")
