"""The compose override for a GPU, resolved without GPU and daemon."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

STACK = Path(__file__).parents[1] / "stack"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("needs `docker compose` to read the file")
    needed = dict.fromkeys(("LLMCHAOS_MODEL_IMAGE", "LLMCHAOS_SERVICES_IMAGE"), "unused")
    done = subprocess.run(
        [docker, "compose", "-f", STACK / "compose.yaml", "-f", STACK / "compose.gpu.yaml", "-p", "engine-config",
         "--profile", "gpu", "config", "--format", "json"],
        capture_output=True, check=False, text=True, env={**os.environ, **needed, "LLMCHAOS_BACKEND": "gpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_both_replicas_are_vllms_pinned_official_image_on_a_gpu(config: dict[str, Any]) -> None:
    for name in ("model-1", "model-2"):
        service = config["services"][name]
        devices = service["deploy"]["resources"]["reservations"]["devices"]

        assert service["image"].startswith("vllm/vllm-openai:v")
        assert "@sha256:" in service["image"]
        assert devices[0]["capabilities"] == ["gpu"]
        assert "--served-model-name=smollm2:135m" in service["command"]
        assert service.get("ports", []) == []


def test_what_runs_on_the_gpu_is_hardened_like_the_rest(config: dict[str, Any]) -> None:
    for name in ("model-1", "model-2", "dcgm-exporter"):
        service = config["services"][name]

        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["mem_limit"]) > 0
        assert service["pids_limit"] > 0


def test_prometheus_scrapes_both_replicas_and_the_gpus_instruments(config: dict[str, Any]) -> None:
    mounts = {volume["target"]: volume.get("source") for volume in config["services"]["prometheus"]["volumes"]}
    targets = yaml.safe_load(Path(mounts["/etc/prometheus/targets/model.yml"]).read_text(encoding="utf-8"))

    assert {target["labels"]["service"] for target in targets} == {"model-1", "model-2", "dcgm-exporter"}
    assert {"/etc/prometheus/prometheus.yml", "/etc/prometheus/rules"} <= set(mounts)
