"""Model servers and gateways as real programs, for tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.lab_engine_process import SERVICES, free_ports
from support.stacks import ROOT
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.local import prerequisites

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCK = ROOT / "stack" / "services" / "requirements-weights.lock"
MODEL = "smollm2:135m"
START_S = 120


@dataclass(frozen=True, kw_only=True)
class Live:
    """A server that runs.

    Attributes:
        url: its API.
        metrics: its page of metrics.
    """

    url: str
    metrics: str

    def page(self) -> str:
        return fetch(self.metrics)[1]

    def answer(self, path: str = "/v1/chat/completions", *, stream: bool = True) -> str:
        """The body of a short answer."""
        asked = {"model": MODEL, "stream": stream, "max_tokens": 8, "options": {"num_predict": 8}}
        status, body = fetch(self.url + path, {**asked, "messages": [{"role": "user", "content": "Count to ten"}]})
        assert status == 200, body
        return body


def fetch(url: str, body: object = None, timeout_s: float = 60) -> tuple[int, str]:
    """Status and text of a page."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=timeout_s) as response:
            return int(response.status), response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def simulated() -> Iterator[Live]:
    port, admin = free_ports()
    settings = {"LAB_PORT": str(port), "LAB_ADMIN_PORT": str(admin), "LAB_MODEL": MODEL, "LAB_TOKEN_GAP_S": "0.005"}
    with _running([sys.executable, "-m", "lab_engine"], {**settings, "PYTHONPATH": str(SERVICES)}, port):
        yield Live(url=f"http://127.0.0.1:{port}", metrics=f"http://127.0.0.1:{port}/metrics")


@contextmanager
def llamacpp() -> Iterator[Live]:
    """llama.cpp with the real model. Skips without its package or the weights."""
    port, _ = free_ports()
    try:
        prerequisites.require_packages("llamacpp")
        model = prerequisites.weights(LOCK)
    except NotReady as error:
        pytest.skip(str(error))
    settings = {"LAB_PORT": str(port), "LAB_MODEL": MODEL, "LAB_MODEL_FILE": str(model), "LAB_CONTEXT_TOKENS": "512"}
    with _running([sys.executable, "-m", "lab_llamacpp"], {**settings, "PYTHONPATH": str(SERVICES)}, port):
        yield Live(url=f"http://127.0.0.1:{port}", metrics=f"http://127.0.0.1:{port}/metrics")


@contextmanager
def ollama() -> Iterator[Live]:
    """Ollama with the real model. Skips without its program or the weights."""
    port, _ = free_ports()
    try:
        program = prerequisites.ollama_program()
        models = prerequisites.ollama_models(program, MODEL, LOCK)
    except NotReady as error:
        pytest.skip(str(error))
    settings = {"OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(models), "OLLAMA_NOPRUNE": "1"}
    with _running([str(program), "serve"], {**settings, "HOME": str(models)}, port, "/api/version"):
        yield Live(url=f"http://127.0.0.1:{port}", metrics=f"http://127.0.0.1:{port}/metrics")


@contextmanager
def gateway(name: str, *options: str, health: str = "/readiness", **settings: str) -> Iterator[Live]:
    """One of the foreign gateways, a program of `make scoreboard` or an image.

    `{port}` and `{metrics}` in the options are its ports, `settings` its environment.
    Skips without a program and an image.
    """
    port, metrics = free_ports()
    words = [one.format(port=port, metrics=metrics) for one in options]
    served = Live(url=f"http://127.0.0.1:{port}", metrics=f"http://127.0.0.1:{metrics}/metrics")
    program = shutil.which(name, path=f"{ROOT / 'build' / 'scoreboard' / name / 'bin'}:{os.environ['PATH']}")
    if program:
        with _running([program, *words], settings, port, health):
            yield served
        return
    image = os.environ.get(f"{name.upper().replace('-', '_')}_IMAGE", f"llmchaos/{name}")
    if not sys.platform.startswith("linux") or not _has_image(image):
        pytest.skip(
            f"needs {name} on PATH, of `make scoreboard`, or as the image {image} (examples/gateways/README.md)"
        )
    container = f"llmchaos-test-{uuid.uuid4().hex[:8]}"
    command = ["docker", "run", "--rm", "--init", "--network", "host", "--name", container]
    given = [f"--env={key}={value}" for key, value in settings.items()]
    given += [f"--volume={one}:{one}:ro" for one in words if Path(one).is_file()]
    try:
        with _running([*command, *given, image, name, *words], {}, port, health):
            yield served
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=False, timeout=60)


def _has_image(image: str) -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False, timeout=30)
        return done.returncode == 0
    return False


@contextmanager
def _running(command: list[str], settings: Mapping[str, str], port: int, health: str = "/health") -> Iterator[None]:
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, env={**plain, **settings}, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        try:
            until(lambda: _is_up(process, port, health), f"{command[0]} answers on {health}", START_S, every_s=0.1)
            yield
        except AssertionError as error:
            errors.seek(0)
            error.add_note(errors.read().decode()[-2000:])
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # Ollama's runner is a child
            process.wait()


def _is_up(process: subprocess.Popen[bytes], port: int, health: str) -> bool:
    assert process.poll() is None, f"the server ended with {process.returncode}"
    try:
        return fetch(f"http://127.0.0.1:{port}{health}", timeout_s=2)[0] == 200
    except OSError:
        return False
