"""Wall time of `llmchaos metrics` on a live page.

A server on loopback answers with the page of the simulated engine and with a version.
Each round starts the command in a process of its own, once with the address alone and
once with a rule file, a trigger of KEDA and a dashboard. The peer is a process that
only imports httpx, the client that every request needs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from figures import figure, publish

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "tests" / "expositions" / "sim-1.txt"
ROUNDS = 15
GOAL_S = 0.5
TRIGGER = """\
kind: ScaledObject
metadata: {name: model}
spec: {triggers: [{type: prometheus, metadata: {query: "sum(vllm:num_requests_waiting)"}}]}
"""


class Engine(BaseHTTPRequestHandler):
    """Answers `/metrics`."""

    page = b""

    def do_GET(self) -> None:
        """Answer."""
        found = self.page if self.path == "/metrics" else b'{"version": "1"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def one_s(*command: str) -> float:
    """Seconds from the start of a process to its end."""
    began_s = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    took_s = time.perf_counter() - began_s
    if done.returncode == 2 or (done.returncode and command[0] == "-c"):
        print(f"could not measure: {done.stderr.strip()}", file=sys.stderr)
        raise SystemExit(2)
    return took_s


def measured(url: str, folder: Path) -> dict[str, list[float]]:
    """Seconds of each command, in turn, so that other work hits all alike."""
    trigger = folder / "keda.yaml"
    trigger.write_text(TRIGGER, encoding="utf-8")
    command = ("-m", "pytest_llmchaos.cli", "metrics", url)
    files = ("--rules", str(ROOT / "stack" / "prometheus" / "rules" / "lab.yml"), "--scaledobject", str(trigger))
    board = ("--dashboard", str(ROOT / "dashboards" / "llmchaos-engine.json"))
    tried = {"httpx": ("-c", "import httpx"), "address": command, "files": (*command, *files, *board)}
    for one in tried.values():
        one_s(*one)  # the first start of all writes the compiled files
    taken: dict[str, list[float]] = {name: [] for name in tried}
    for _ in range(ROUNDS):
        for name, one in tried.items():
            taken[name].append(one_s(*one))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    arguments = parser.parse_args()
    Engine.page = PAGE.read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as engine, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        taken = measured(f"http://127.0.0.1:{engine.server_port}", Path(folder))
        engine.shutdown()
    floor_s = statistics.median(taken["httpx"])
    print(f"llmchaos metrics on a page of {len(Engine.page):,} bytes, median of {ROUNDS} runs, against `import httpx`")
    found = {
        name: figure(statistics.median(taken[key]), "s", f"<= {GOAL_S:g}", peer=floor_s, best_s=min(taken[key]))
        for name, key in (("an address", "address"), ("an address and 3 files", "files"))
    }
    publish("metrics", found, as_json=arguments.json)


if __name__ == "__main__":
    main()
