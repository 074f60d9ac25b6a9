"""The lab on a real GPU: vLLM's image and NVIDIA's exporter.

They have the same scrape jobs, dashboards and remediator. The tests need the GPU, its
container toolkit, the images and a model. Without them they are skipped with what is
missing, and the same claims run on the simulated engine. The first start compiles for
minutes, so the lab starts once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.stacks import BOOTSTRAP, ROOT
from support.stacks import missing as no_stack
from support.waiting import until

from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.servers.canonical import BY_SERIES

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

STACK = ROOT / "stack"
FILES = (STACK / "compose.yaml", STACK / "compose.gpu.yaml")
STAND_IN = Path(__file__).with_name("gpu_stand_in.yaml")
PROFILES = ("--profile", "gpu", "--profile", "remediator")
FIRST_START_S = 900
REPAIR_S = 30
TARGETS = {"api", "model-1", "model-2", "dcgm-exporter", "prometheus", "pushgateway", "docker-proxy", "remediator"}


def prints(*command: str) -> str | None:
    """Output of the command. None if it cannot run or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else None


def official_images() -> list[str]:
    """Images that only this override uses, from the environment or the file."""
    services = yaml.safe_load(FILES[1].read_text(encoding="utf-8"))["services"]
    found = (re.fullmatch(r"\$\{(\w+):-(.+)\}", services[name]["image"]) for name in ("model-1", "dcgm-exporter"))
    return [os.environ.get(one[1]) or one[2] for one in found if one]


def missing_gpu() -> str | None:
    """Return what this machine lacks for the GPU lab, or None."""
    if not prints("nvidia-smi", "--list-gpus"):
        return "needs an NVIDIA GPU: `nvidia-smi --list-gpus` names none"
    if "nvidia" not in (prints("docker", "info", "--format", "{{json .Runtimes}}") or ""):
        return "needs Docker with NVIDIA's container toolkit: `docker info` lists no nvidia runtime"
    for image in official_images():
        if prints("docker", "image", "inspect", image) is None:
            return f"needs the image {image}: `docker pull {image}`"
    model = os.environ.get("LLMCHAOS_GPU_MODEL", "")
    if not (Path(model) / "config.json").is_file():
        return f"needs LLMCHAOS_GPU_MODEL, a folder with a model in Hugging Face's form, got {model!r}"
    return None


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def get(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return json.load(answer)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A running lab and its ports."""

    api: str
    prometheus: str
    compose: Callable[..., str]

    def answers(self) -> bool:
        question = {"model": "smollm2:135m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
        try:
            return bool(get(f"{self.api}/v1/chat/completions", question)["choices"][0]["message"]["content"])
        except (OSError, urllib.error.URLError):
            return False

    def asked(self, query: str) -> list[Any]:
        return list(get(f"{self.prometheus}/api/v1/query?query={query}")["data"]["result"])

    def up(self) -> set[str]:
        return {one["metric"]["service"] for one in self.asked("up") if one["value"][1] == "1"}


@contextmanager
def lab_of(files: tuple[Path, ...], variables: dict[str, str]) -> Iterator[Lab]:
    """The lab of these compose files, removed afterwards."""
    project = f"gpu-{uuid.uuid4().hex[:8]}"
    names = ("LLMCHAOS_API_PORT", "LLMCHAOS_PROMETHEUS_PORT", "LLMCHAOS_PUSHGATEWAY_PORT")
    ports = dict(zip(names, map(str, free_ports(3)), strict=True))
    given = [part for file in files for part in ("-f", str(file))]

    def compose(*arguments: str) -> str:
        command = ["docker", "compose", "-p", project, *given, *PROFILES, *arguments]
        return docker_cli.run(command, env=docker_cli.environment({**variables, **ports}), timeout_s=FIRST_START_S + 60)

    try:
        compose("up", "-d", "--wait", f"--wait-timeout={FIRST_START_S}")
        base = "http://127.0.0.1:"
        yield Lab(api=base + ports[names[0]], prometheus=base + ports[names[1]], compose=compose)
    finally:
        compose("down", "-v", "-t", "1")


@pytest.fixture(scope="module", params=["gpu", "stand-in"])
def gpu_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab on the GPU, and without one to validate these claims."""
    real = request.param == "gpu"
    reason = missing_gpu() or no_stack("sim") if real else no_stack("sim")
    if reason:
        pytest.skip(reason)
    variables = json.loads(str(prints(sys.executable, str(BOOTSTRAP), "env", "--backend", "sim")))
    with lab_of(FILES if real else (*FILES, STAND_IN), {**variables, "LLMCHAOS_BACKEND": "gpu"}) as lab:
        yield lab


def test_the_model_answers_through_the_gateway(gpu_lab: Lab) -> None:
    assert gpu_lab.answers()


def test_the_same_jobs_scrape_both_replicas_and_the_gpu(gpu_lab: Lab) -> None:
    assert until(
        lambda: gpu_lab.up() >= TARGETS, "all are scraped", 30, seen=lambda: f"without {sorted(TARGETS - gpu_lab.up())}"
    )


def test_every_engine_and_gpu_metric_of_the_dashboards_is_there(gpu_lab: Lab) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dashboards").glob("*.json"))
    names = set(re.findall(r"llmchaos:\w+|DCGM_FI_[A-Z_]+", text))
    # Costs need a price table, and this engine counts no failures.
    shown = {name for name in names if name in BY_SERIES or name.startswith("DCGM")} - {
        "llmchaos:requests_failed_total"
    }

    assert gpu_lab.answers()  # counters start with the first request
    assert {name.partition("_")[0] for name in shown} >= {"DCGM", "llmchaos:requests"}
    for name in sorted(shown):
        until(lambda metric=name: bool(gpu_lab.asked(metric)), f"{name} has a sample", 30)


def test_a_killed_api_is_started_again_by_the_remediator(gpu_lab: Lab) -> None:
    assert gpu_lab.answers()

    gpu_lab.compose("kill", "api")

    until(gpu_lab.answers, "the api answers again", REPAIR_S)
