"""`llmchaos init --compose`: guesses and their reasons."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from pytest_llmchaos.cli import main as llmchaos
from pytest_llmchaos.generate.starter import compose_file
from pytest_llmchaos.generate.starter.client_key import client_key
from pytest_llmchaos.generate.starter.client_model import model
from pytest_llmchaos.generate.starter.servers import SERVERS, server_of
from pytest_llmchaos.model import CLIENTS
from pytest_llmchaos.slo.openslo import load_slos
from pytest_llmchaos.subject.own_stack import OwnKeys, own_subject

EXAMPLE = Path(__file__).parent.parent / "examples" / "byo"
GATEWAY = """
services:
  litellm:
    image: ghcr.io/berriai/litellm:main-stable
    command: ["--config", "/app/config.yaml", "--port", "4000"]
    volumes: ["./litellm.yaml:/app/config.yaml:ro"]
    environment: {LITELLM_MASTER_KEY: sk-very-secret, DATABASE_URL: "postgresql://me:pw-very-secret@db:5432/x"}
    ports: ["4000:4000"]
    depends_on: {db: {condition: service_started}}
  vllm-1: &vllm
    image: vllm/vllm-openai:v0.11.0
    command: --model Qwen/Qwen2.5-0.5B-Instruct --served-model-name qwen
    ipc: host
    restart: unless-stopped
    volumes: ["models:/models"]
  vllm-2: *vllm
  webui:
    image: ghcr.io/open-webui/open-webui:main
    environment: {OPENAI_API_BASE_URL: "http://litellm:4000/v1"}
    ports: ["3000:8080"]
  db: {image: "postgres:16", volumes: ["pg:/var/lib/postgresql/data"]}
  prometheus:
    image: prom/prometheus
    volumes: ["./prometheus.yml:/etc/prometheus/prometheus.yml:ro"]
    ports: ["9090:9090"]
  grafana: {image: grafana/grafana, ports: ["3001:3000"]}
volumes: {pg: {name: litellm_pg}, models: {external: true}}
"""
GATEWAY_SETTINGS = """
model_list:
  - model_name: qwen-chat
    litellm_params: {model: openai/qwen, api_base: "http://vllm-1:8000/v1"}
  - model_name: qwen-chat
    litellm_params: {model: openai/qwen, api_base: "http://vllm-2:8000/v1"}
"""
GATEWAY_PROMETHEUS = """
rule_files: [alerts.yml]
scrape_configs:
  - {job_name: gateway, metrics_path: /metrics/, static_configs: [{targets: ["litellm:4000"]}]}
  - {job_name: vllm, static_configs: [{targets: ["vllm-1:8000", "vllm-2:8000", "elsewhere.example:80"]}]}
"""
PROFILES = """
services:
  ollama-cpu: &ollama
    profiles: [cpu]
    image: ollama/ollama:latest
    expose: [11434]
  ollama-gpu: {<<: *ollama, profiles: [gpu-nvidia]}
  ollama-pull:
    profiles: [cpu]
    image: ollama/ollama:latest
    entrypoint: /bin/sh
    command: ["-c", "sleep 3; OLLAMA_HOST=ollama-cpu:11434 ollama pull llama3.2"]
    depends_on: [ollama-cpu]
  n8n: {image: n8nio/n8n, ports: ["5678:5678"], environment: {OLLAMA_HOST: "ollama-cpu:11434"}}
"""
PROXY = """
services:
  nginx:
    image: nginx:1.27
    ports: ["8080:80", "8443:443"]
    volumes: ["./nginx.conf:/etc/nginx/nginx.conf:ro"]
  web:
    build: ./web
    environment: {MODEL_URL: "http://llm:8080/v1", REDIS_URL: "redis://cache:6379", API_KEY: abc-very-secret}
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate: {build: ./web, command: python migrate.py}
  llm: {image: "ghcr.io/ggml-org/llama.cpp:server", command: "-m /x.gguf --port 8080 --metrics --alias tiny"}
  cache: {image: "redis:7"}
  autoheal:
    image: willfarrell/autoheal
    volumes: ["/var/run/docker.sock:/var/run/docker.sock"]
"""
PROXY_SETTINGS = "events {}\nhttp { upstream u { server web:8000; } server { location / { proxy_pass http://u; } } }\n"


@cache
def has_compose() -> bool:
    found = shutil.which("docker")
    if found is None:
        return False
    return subprocess.run([found, "compose", "version"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """A folder for a compose file, which Compose can read without a daemon."""
    if not has_compose():
        pytest.skip("needs `docker compose` to read the file")
    for name in [name for name in os.environ if name.startswith(("DOCKER_", "COMPOSE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    folder = tmp_path / "my stack"
    folder.mkdir()
    return folder


def init(stack, text, **files):
    """Write files, run the command, and return the project's folder."""
    (stack / "compose.yaml").write_text(text)
    for name, content in files.items():
        path = stack / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    assert llmchaos(["init", str(stack / "chaos"), "--compose", str(stack / "compose.yaml")]) == 0
    return stack / "chaos"


def keys_of(project):
    """The keys in force, as pytest and then the plugin read them."""
    table = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    return {name.removeprefix("llmchaos_"): value for name, value in table.items() if name != "testpaths"}


def subject_of(project):
    keys = {name: tuple(value) if isinstance(value, list) else value for name, value in keys_of(project).items()}
    return own_subject(OwnKeys(**keys), project, toml=True)


def reason_of(project, key):
    """The comment before a key, and whether the key is in force."""
    found = re.search(rf"^# (.*)\n(# )?llmchaos_{key} = ", (project / "pyproject.toml").read_text(), re.MULTILINE)
    return found[1], not found[2]


def gateway(stack):
    return init(stack, GATEWAY, **{"litellm.yaml": GATEWAY_SETTINGS, "prometheus.yml": GATEWAY_PROMETHEUS})


def test_a_gateway_before_two_model_servers(stack):
    project = gateway(stack)

    keys = keys_of(project)
    assert keys["api"] == "litellm:4000"
    assert keys["targets"] == ["litellm", "vllm-1", "vllm-2"]
    assert keys["metrics"] == ["litellm:4000/metrics/", "vllm-1:8000/metrics", "vllm-2:8000/metrics"]
    assert keys["prometheus"] == "prometheus:9090"
    assert keys["model"] == "qwen-chat"
    assert keys["startup_s"] == 900
    assert keys["compose"] == ["../compose.yaml"]
    why, _ = reason_of(project, "api")
    assert why.startswith("LiteLLM, requests reach a model server through it, it publishes a port")
    why, _ = reason_of(project, "targets")
    assert "db (a data store)" in why
    assert "webui (Open WebUI)" in why
    why, in_force = reason_of(project, "restart")
    assert "vllm-1: unless-stopped" in why
    assert not in_force
    assert (project / "scenarios" / "test_vllm_1.py").is_file()


def test_the_stack_that_the_keys_describe_is_read(stack):
    subject = subject_of(gateway(stack))

    assert (subject.api, subject.api_port) == ("litellm", 4000)
    assert [one.service for one in subject.scrapes] == ["litellm", "vllm-1", "vllm-2"]
    assert subject.compose_files == ((stack / "compose.yaml").resolve(),)


def test_what_the_start_would_refuse_is_a_comment_with_what_it_means(stack, capsys):
    project = gateway(stack)

    text = (project / "pyproject.toml").read_text()
    assert "allow" not in keys_of(project)
    assert '# llmchaos_allow = ["volume:models", "volume:pg", "ipc:vllm-1", "ipc:vllm-2"]' in text
    assert "has the fixed name 'litellm_pg'" in text
    assert "volume:models, volume:pg" in capsys.readouterr().out


def test_no_secret_of_the_compose_file_is_written(stack, capsys):
    project = gateway(stack)
    shutil.move(project, stack / "first")
    other = init(stack, PROXY, **{"nginx.conf": PROXY_SETTINGS, "web__Dockerfile": "FROM x\n"})

    written = [path.read_text() for folder in (stack / "first", other) for path in folder.rglob("*") if path.is_file()]
    assert "very-secret" not in "".join(written) + capsys.readouterr().out


def test_a_profile_without_which_no_model_server_starts_is_switched_on(stack):
    project = init(stack, PROFILES)

    keys = keys_of(project)
    assert keys["api"] == "ollama-cpu:11434"
    assert keys["targets"] == ["ollama-cpu"]
    assert keys["profiles"] == ["cpu"]
    assert keys["model"] == "llama3.2"
    assert "# off, because the profile gpu-nvidia is: ollama-gpu" in (project / "pyproject.toml").read_text()


def test_active_profiles_need_no_key(stack, monkeypatch):
    monkeypatch.setenv("COMPOSE_PROFILES", "gpu-nvidia")

    keys = keys_of(init(stack, PROFILES))

    assert keys["api"] == "ollama-gpu:11434"
    assert "profiles" not in keys


def test_a_proxy_before_a_program_of_ones_own(stack):
    project = init(
        stack, PROXY, **{"nginx.conf": PROXY_SETTINGS, "web__Dockerfile": 'FROM x\nEXPOSE 8000\nCMD ["uvicorn"]\n'}
    )

    keys = keys_of(project)
    assert keys["api"] == "nginx:80"
    assert keys["targets"] == ["nginx", "web", "llm"]
    assert keys["metrics"] == ["llm:8080/metrics"]
    assert keys["model"] == "tiny"
    assert keys["remediator"] == "autoheal"
    assert "migrate (ends by itself)" in reason_of(project, "targets")[0]
    assert '# llmchaos_allow = ["bind:/var/run/docker.sock"]' in (project / "pyproject.toml").read_text()


def test_the_example_of_the_documents(stack):
    shutil.copytree(EXAMPLE, stack, dirs_exist_ok=True)
    assert llmchaos(["init", str(stack / "chaos"), "--compose", str(stack / "compose.yaml")]) == 0

    keys = keys_of(stack / "chaos")
    assert keys["api"] == "faq:8080"
    assert keys["targets"] == ["faq"]
    assert keys["metrics"] == ["faq:8080/metrics"]
    assert keys["prometheus"] == "prometheus:9090"
    assert keys["ready_path"] == "/healthz"


PORTS = {
    "of the command": ("command: serve --port 9000, ports: ['1:1', '9000:9000']", "9000", "its command sets the port"),
    "the only one": ("ports: ['8081:8080']", "8080", "the only port that it offers"),
    "exposed": ("expose: [7000]", "7000", "the only port that it offers"),
    "of the health check": (
        "ports: ['1:1', '2:2'], healthcheck: {test: curl -f http://localhost:2/live}",
        "2",
        "the port of its health check",
    ),
    "the first": ("ports: ['8000-8002:8000-8002']", "8000", "(8000, 8001, 8002): check this"),
    "none": ("command: serve", "8080", "a mere guess: check this"),
}


@pytest.mark.parametrize(("about", "port", "reason"), PORTS.values(), ids=PORTS)
def test_the_port_is_guessed_with_a_reason(stack, about, port, reason):
    project = init(stack, f"services: {{app: {{image: example/app, {about}}}}}\n")

    assert keys_of(project)["api"] == f"app:{port}"
    assert reason in reason_of(project, "api")[0]


def test_every_file_that_is_written_can_be_read(stack):
    project = gateway(stack)

    slos = (project / "slo.yaml").read_text()
    assert [one.name for one in load_slos(slos, "slo.yaml")] == ["availability", "first-token"]
    assert CLIENTS in slos
    uncommented = re.sub(r"^# (?=---|  |[a-z]+\w*:)", "", slos, flags=re.MULTILINE)
    names = [one.name for one in load_slos(uncommented, "slo.yaml")]
    assert names[2:] == ["vllm-1-ttft", "vllm-1-latency", "vllm-2-ttft", "vllm-2-latency"]
    ast.parse((project / "scenarios" / "test_vllm_1.py").read_text())
    (workflow,) = (project / ".github" / "workflows").iterdir()
    assert [step["run"] for step in yaml.safe_load(workflow.read_text())["jobs"]["chaos"]["steps"] if "run" in step][
        :2
    ] == ['pip install "pytest-llmchaos"', "pytest"]


def test_the_compose_file_is_not_changed_and_nothing_is_written_twice(stack):
    project = gateway(stack)
    before = {path: path.read_bytes() for path in stack.rglob("*") if path.is_file()}

    assert llmchaos(["init", str(project), "--compose", str(stack / "compose.yaml")]) == 1

    assert {path: path.read_bytes() for path in stack.rglob("*") if path.is_file()} == before
    assert (stack / "compose.yaml").read_text() == GATEWAY


REFUSED = {
    "no service answers": ("services: {db: {image: postgres}}", [], "a service that answers requests, it has db"),
    "a variable is missing": ("services: {app: {image: '${NOT_SET:?set it}'}}", [], "NOT_SET is missing a value"),
    "an option of the lab": ("services: {app: {image: x}}", ["--backend=sim"], "--backend is for the lab"),
}


@pytest.mark.parametrize(("text", "more", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_used_is_refused(stack, capsys, text, more, message):
    (stack / "compose.yaml").write_text(text)

    assert llmchaos(["init", str(stack / "chaos"), "--compose", str(stack / "compose.yaml"), *more]) == 1

    assert message in capsys.readouterr().err
    assert not (stack / "chaos").exists()


def test_a_missing_file_is_named(tmp_path, capsys):
    assert llmchaos(["init", str(tmp_path / "chaos"), "--compose", "nowhere.yaml"]) == 1

    assert "'nowhere.yaml', which does not exist" in capsys.readouterr().err


IMAGES = {
    "vllm/vllm-openai:v0.11.0": "vLLM",
    "public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.11": "vLLM",
    "lmsysorg/sglang:latest": "SGLang",
    "ghcr.io/huggingface/text-generation-inference:3.3": "Text Generation Inference",
    "ollama/ollama": "Ollama",
    "localhost:5000/ollama@sha256:" + "0" * 64: "Ollama",
    "ghcr.io/ggml-org/llama.cpp:server-cuda": "llama.cpp",
    "nvcr.io/nvidia/tensorrt-llm/release:1.1": "TensorRT-LLM",
    "docker.litellm.ai/berriai/litellm:main": "LiteLLM",
    "ghcr.io/open-webui/open-webui:main": "Open WebUI",
    "nginxinc/nginx-unprivileged": "nginx",
    "traefik:v3": "Traefik",
    "haproxytech/haproxy": "HAProxy",
    "prom/prometheus:v3.5.0": "Prometheus",
    "prom/alertmanager": "monitoring",
    "oliver006/redis_exporter": "monitoring",
    "grafana/grafana-oss": "monitoring",
    "pgvector/pgvector:pg17": "a data store",
    "qdrant/qdrant": "a data store",
    "willfarrell/autoheal": "autoheal",
    "example/app": "",
    "": "",
}


@pytest.mark.parametrize(("image", "title"), IMAGES.items(), ids=str)
def test_programs_are_recognised_by_their_image(image, title):
    assert server_of(image, "").title == title


@pytest.mark.parametrize(
    ("command", "title"),
    [
        ("python -m vllm.entrypoints.openai.api_server --port 8000", "vLLM"),
        ("vllm serve Qwen/Qwen3-0.6B", "vLLM"),
        ("python3 -m sglang.launch_server --model x", "SGLang"),
        ("./llama-server -m x.gguf", "llama.cpp"),
        ("python -m my.app", ""),
    ],
)
def test_programs_are_recognised_by_their_command(command, title):
    assert server_of("registry.example/mine:1", command).title == title


def test_histograms_are_those_of_the_server_s_file_and_their_bounds_are_in_seconds():
    latencies = [(one, latency) for one in SERVERS for latency in one.latencies]

    assert [one.metric_of(latency) for one, latency in latencies] == [
        "vllm:time_to_first_token_seconds",
        "vllm:e2e_request_latency_seconds",
        "sglang:time_to_first_token_seconds",
    ]
    assert all(float(latency.le) == float(latency.seconds) for _, latency in latencies)
    # LiteLLM redirects /metrics: a scrape of that would be two requests.
    assert {one.title: one.metrics for one in SERVERS if one.metrics not in ("", "/metrics")} == {
        "TensorRT-LLM": "/prometheus/metrics",
        "LiteLLM": "/metrics/",
    }


APP = "services: {app: {image: x, ports: ['8080:8080']}}"


@pytest.mark.parametrize(
    ("name", "files"), [("compose.override.yaml", 2), ("docker-compose.override.yml", 2), ("compose.prod.yaml", 1)]
)
def test_an_override_that_compose_reads_by_itself_is_taken_along(stack, name, files):
    more = "services: {ollama: {image: ollama/ollama}, app: {environment: {LLM_URL: 'http://ollama:11434'}}}"

    project = init(stack, "services: {app: {image: x, ports: ['8080:8080']}}", **{name: more})

    assert keys_of(project)["compose"] == ["../compose.yaml", f"../{name}"][:files]
    assert ("ollama" in keys_of(project)["targets"]) == (files == 2)
    reason = f"# {name} is in llmchaos_compose, because `docker compose up` lays it over compose.yaml\n"
    assert (reason in (project / "pyproject.toml").read_text()) == (files == 2)


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_files_that_compose_starts_instead_are_named(stack, where, monkeypatch, capsys):
    line = "COMPOSE_FILE=base.yaml:more.yaml"
    more = {"base.yaml": APP, "more.yaml": APP, "compose.override.yaml": APP}
    if where == "environment":
        monkeypatch.setenv(*line.split("=", 1))
    else:
        more[".env"] = line

    project = init(stack, APP, **more)

    assert keys_of(project)["compose"] == ["../compose.yaml"]
    told = (
        "COMPOSE_FILE names other files for `docker compose up`: to test these, run `llmchaos init` with "
        "`--compose base.yaml`, `--compose more.yaml`"
    )
    assert told in capsys.readouterr().out
    assert f"# {told}\n" in (project / "pyproject.toml").read_text()


def test_the_files_of_the_environment_themselves_need_no_remark(stack, monkeypatch, capsys):
    monkeypatch.setenv("COMPOSE_FILE", "compose.yaml")

    project = init(stack, APP, **{"compose.override.yaml": APP})

    assert keys_of(project)["compose"] == ["../compose.yaml"]
    assert "COMPOSE_FILE" not in capsys.readouterr().out


def test_variants_of_one_service_in_profiles_may_share_a_container_name(stack):
    variants = ", ".join(
        f"ollama-{name}: {{image: ollama/ollama, container_name: ollama, profiles: [{name}]}}"
        for name in ("cpu", "gpu")
    )

    project = init(stack, f"services: {{app: {{image: x, ports: ['1:1']}}, {variants}}}")

    assert keys_of(project)["api"] == "app:1"


def test_the_clients_key_is_a_variable_of_the_environment(stack, capsys):
    project = gateway(stack)

    assert keys_of(project)["headers"] == ["Authorization: Bearer $LITELLM_MASTER_KEY"]
    assert "  export LITELLM_MASTER_KEY=..." in capsys.readouterr().out
    (workflow,) = (project / ".github" / "workflows").iterdir()
    (step,) = (one for one in yaml.safe_load(workflow.read_text())["jobs"]["chaos"]["steps"] if "env" in one)
    assert step == {"run": "pytest", "env": {"LITELLM_MASTER_KEY": "${{ secrets.LITELLM_MASTER_KEY }}"}}


# What a service has, and the variable in the header in force. None is no header.
KEYS = {
    "vLLM's variable": ("image: vllm/vllm-openai, environment: {VLLM_API_KEY: very-secret}", "VLLM_API_KEY"),
    "TGI's variable": ("image: ghcr.io/huggingface/text-generation-inference, environment: {API_KEY: s}", "API_KEY"),
    "an option with a value": ("image: vllm/vllm-openai, command: --model x --api-key very-secret", "VLLM_API_KEY"),
    "an option of an own program": ("image: x, command: serve --api-key=very-secret", "API_KEY"),
    "an option with a variable of Compose": ("image: vllm/vllm-openai, command: '--api-key ${MY_KEY:-s}'", "MY_KEY"),
    "the same in a list": ("image: vllm/vllm-openai, command: [--api-key, '${MY_KEY:-s}']", "MY_KEY"),
    "an option with a variable of the shell": (
        "image: x, command: sh -c 'serve --api-key $$K', environment: {K: s}",
        "K",
    ),
    "an own variable": ("image: x, environment: {FAQ_API_KEY: very-secret}", "FAQ_API_KEY"),
    "a token": ("image: x, environment: {SERVICE_TOKEN: very-secret}", "SERVICE_TOKEN"),
    "an own one next to one for the next program": (
        "image: x, environment: {OPENAI_API_KEY: very-secret, AUTH_TOKEN: very-secret}",
        "AUTH_TOKEN",
    ),
    "a file": ("image: x, environment: {API_KEY_FILE: /run/secrets/k}", "API_KEY"),
    "a secret": ("image: x, secrets: [api_key]", "API_KEY"),
    "a key for the next program": ("image: x, environment: {OPENAI_API_KEY: very-secret}", None),
    "a key of its own service": ("image: x, environment: {CASE_KEY: very-secret}", "CASE_KEY"),
    "a key of another service": ("image: x, environment: {GATEWAY_KEY: very-secret}", None),
    "a key that is empty": ("image: vllm/vllm-openai, environment: {VLLM_API_KEY: ''}", None),
    "keys for others": ("image: x, environment: {HF_TOKEN: s, SECRET_KEY: s, JWT_SECRET: s, MAX_TOKENS: '5'}", None),
    "none": ("image: x", None),
}


def read_services(stack, about, more=""):
    """Read one service for each case, as `init` reads a compose file."""
    lines = [f"  case-{number}: {{{one}}}" for number, one in enumerate(about)]
    (stack / "compose.yaml").write_text("\n".join(["services:", *lines, more]))
    found = compose_file.read([stack / "compose.yaml"])
    return found, [found.services[f"case-{number}"] for number in range(len(about))]


def test_the_clients_key_is_found_wherever_it_is_needed(stack):
    _, services = read_services(stack, [about for about, _ in KEYS.values()], "secrets: {api_key: {environment: HOME}}")

    keys = {case: client_key([one]) for case, one in zip(KEYS, services, strict=True)}

    in_force = {case: key.variable if key and not key.doubt else None for case, key in keys.items()}
    assert in_force == {case: variable for case, (_, variable) in KEYS.items()}


def test_a_key_that_clients_need_is_named_wherever_it_must_be_given(stack, capsys):
    project = init(stack, "services: {app: {image: x, ports: ['1:1'], command: serve --api-key very-secret}}")

    said = capsys.readouterr().out
    (workflow,) = (project / ".github" / "workflows").iterdir()
    steps = yaml.safe_load(workflow.read_text())["jobs"]["chaos"]["steps"]
    (step,) = (step for step in steps if step.get("run") == "pytest")
    assert keys_of(project)["headers"] == ["Authorization: Bearer $API_KEY"]
    assert "  export API_KEY=..." in said
    assert "the clients' key, from the command of app" in said
    assert step["env"] == {"API_KEY": "${{ secrets.API_KEY }}"}
    assert "gh secret set API_KEY" in (project / "README.md").read_text()


@pytest.mark.parametrize("about", ["OPENAI_API_KEY: very-secret", "API_KEY: ''", "SHOP_KEY: very-secret"])
def test_a_key_whose_use_is_in_doubt_is_a_comment(stack, capsys, about):
    project = init(stack, f"services: {{app: {{image: x, ports: ['8080:8080'], environment: {{{about}}}}}}}")

    name = about.partition(":")[0]
    assert "headers" not in keys_of(project)
    assert f'# llmchaos_headers = ["Authorization: Bearer ${name}"]' in (project / "pyproject.toml").read_text()
    assert f"put llmchaos_headers in force and export {name}" in capsys.readouterr().out
    assert f"#   {name}: " in (project / ".github" / "workflows" / "chaos.yml").read_text()


def test_the_key_of_a_service_behind_a_proxy_is_the_clients(stack):
    project = init(stack, PROXY, **{"nginx.conf": PROXY_SETTINGS, "web__Dockerfile": "FROM x\nEXPOSE 8000\n"})

    assert keys_of(project)["headers"] == ["Authorization: Bearer $API_KEY"]
    assert "the variable API_KEY of web" in reason_of(project, "headers")[0]


def test_the_key_of_a_model_server_behind_a_service_is_not_the_clients(stack):
    text = """
services:
  app: {image: x, ports: ["8080:8080"], environment: {URL: "http://llm:8000/v1"}}
  llm: {image: vllm/vllm-openai, environment: {VLLM_API_KEY: very-secret}}
"""
    assert "headers" not in keys_of(init(stack, text))


@pytest.mark.parametrize(
    ("line", "variable"), [("os.environ/GATEWAY_KEY", "GATEWAY_KEY"), ("sk-1", "LITELLM_MASTER_KEY")]
)
def test_a_key_in_the_settings_of_a_gateway(stack, line, variable):
    text = """
services:
  gateway: {image: litellm/litellm, ports: ["4000:4000"], configs: [{source: settings, target: /app/config.yaml}]}
configs: {settings: {file: ./settings.yaml}}
"""
    project = init(stack, text, **{"settings.yaml": f"general_settings:\n  master_key: {line}\n"})

    assert keys_of(project)["headers"] == [f"Authorization: Bearer ${variable}"]


def test_variables_of_the_compose_file_are_named_in_the_workflow(stack, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "very-secret")
    text = "services: {app: {image: 'x:${TAG:-1}', ports: ['1:1'], environment: ['P=${DB_PASSWORD:?}', 'H=${HOME}']}}"

    workflow = (init(stack, text) / ".github" / "workflows" / "chaos.yml").read_text()

    assert "# The compose file reads DB_PASSWORD: " in workflow


# What a service has, and the model that clients name.
MODELS = {
    "MODEL": ("image: x, environment: {MODEL: org/tiny-1B}", "org/tiny-1B"),
    "MODEL_NAME": ("image: x, environment: {MODEL_NAME: tiny}", "tiny"),
    "OLLAMA_MODEL": ("image: x, environment: {OLLAMA_MODEL: 'llama3.2:1b'}", "llama3.2:1b"),
    "LLM_MODEL": ("image: x, environment: {LLM_MODEL: tiny}", "tiny"),
    "the exact name": ("image: x, environment: {AUX_MODEL: other, EMBEDDING_MODEL: e5, MODEL: tiny}", "tiny"),
    "the first of several": ("image: x, environment: {MODELS: 'tiny, large'}", "tiny"),
    "the served name, not the loaded one": (
        "image: vllm/vllm-openai, command: --model /models/x --served-model-name tiny",
        "tiny",
    ),
    "with an equals sign": ("image: vllm/vllm-openai, command: --model=org/x", "org/x"),
    "only the loaded one": ("image: lmsysorg/sglang, command: --model-path org/x", "org/x"),
    "the first word": ("image: vllm/vllm-openai, command: org/x --port 8000", "org/x"),
    "an own command": ("image: x, command: vllm serve org/x --port 8000", "org/x"),
    "a variable of the shell": ("image: x, command: sh -c 'vllm serve $$M', environment: {M: org/x}", "org/x"),
    "the default of the shell": ("image: x, command: 'sh -c \"vllm serve $${M:-org/x}\"'", "org/x"),
    "TGI": ("image: ghcr.io/huggingface/text-generation-inference, environment: {MODEL_ID: org/x}", "org/x"),
    "llama.cpp": ("image: ghcr.io/ggml-org/llama.cpp, environment: {LLAMA_ARG_ALIAS: tiny, MODEL: x}", "tiny"),
    "a settings file": ("image: litellm/litellm, configs: [settings]", "chat"),
    "no name": ("image: x, environment: {MODEL: 'true', MODEL_URL: 'http://x', MODEL_ID: ''}", None),
    "a store": ("image: redis, environment: {MODEL: x}", None),
}
# Services around the first one, and the model that clients name.
MODELS_OF_STACKS = {
    "the service in front before the model server": (
        "app: {image: x, ports: ['1:1'], environment: {MODEL: public, URL: 'http://llm:8000/'}}",
        "llm: {image: vllm/vllm-openai, command: --model org/x}",
        "public",
    ),
    "behind a proxy": (
        "app: {image: nginx, ports: ['1:1'], environment: {UPSTREAM: 'http://llm:8000/'}}",
        "llm: {image: vllm/vllm-openai, command: --model org/x}",
        "org/x",
    ),
    "pulled over HTTP": (
        "llm: {image: ollama/ollama, ports: ['1:1']}",
        r"""pull: {image: curl, command: "curl http://llm/api/pull -d '{\"model\": \"tiny\"}'"}""",
        "tiny",
    ),
    "pulled with a variable": (
        "llm: {image: ollama/ollama, ports: ['1:1']}",
        "pull: {image: ollama/ollama, command: sh -c 'ollama pull $$WANTED', environment: {WANTED: tiny}}",
        "tiny",
    ),
    "pulled by a hook, with one for embeddings": (
        "llm: {image: ollama/ollama, ports: ['1:1'], post_start: [{command: ollama pull tiny}]}",
        "pull: {image: ollama/ollama, command: ollama pull nomic-embed-text}",
        "tiny",
    ),
}


def test_the_model_that_a_service_names(stack):
    settings = 'configs: {settings: {content: "model_list: \\n - model_name: text-embed\\n - model_name: chat"}}'
    whole, services = read_services(stack, [about for about, _ in MODELS.values()], settings)
    alone = replace(whole, services={})

    guesses = {case: model(alone, [one]) for case, one in zip(MODELS, services, strict=True)}

    in_force = {case: guess.value if guess.sure else None for case, guess in guesses.items()}
    assert in_force == {case: name for case, (_, name) in MODELS.items()}


@pytest.mark.parametrize(("first", "second", "name"), MODELS_OF_STACKS.values(), ids=MODELS_OF_STACKS)
def test_the_model_that_clients_name(stack, first, second, name):
    assert keys_of(init(stack, f"services:\n  {first}\n  {second}\n"))["model"] == name


def test_the_model_in_a_build_s_file(stack):
    text = "services: {app: {build: ./web, ports: ['1:1']}}"
    project = init(stack, text, web__Dockerfile="FROM x\nENV A=1 \\\n  MODEL_NAME=tiny\n")

    assert keys_of(project)["model"] == "tiny"


def test_a_page_is_what_clients_use_if_nothing_else_serves_them(stack):
    keys = keys_of(init(stack, "services: {ui: {image: ghcr.io/open-webui/open-webui, ports: ['3000:8080']}}"))

    assert keys["api"] == "ui:8080"
    assert keys["path"] == "/api/chat/completions"


def test_every_key_that_may_be_written_is_one_that_pytest_reads():
    folder = Path(__file__).parent.parent / "pytest_llmchaos/generate/starter"
    sources = [path.read_text() for path in folder.glob("*.py")]
    written = {key for source in sources for key in re.findall(r'Guess\(\s*key="(\w+)"', source)}

    assert len(written) >= 12
    assert written <= {one.name for one in fields(OwnKeys)}


def test_several_files_are_one_stack(stack):
    (stack / "more.yaml").write_text("services: {app: {ports: ['1:7001']}, extra: {image: redis}}")
    (stack / "compose.yaml").write_text("services: {app: {image: example/app}}")
    files = [str(stack / "compose.yaml"), str(stack / "more.yaml")]

    assert llmchaos(["init", str(stack / "chaos"), "--compose", *files]) == 0

    keys = keys_of(stack / "chaos")
    assert keys["compose"] == ["../compose.yaml", "../more.yaml"]
    assert keys["api"] == "app:7001"
    assert "extra (a data store)" in reason_of(stack / "chaos", "targets")[0]


FRONTS = {
    "a site next to the model": "docs: {image: example/docs, ports: ['80:80']}",
    "a worker that clients cannot reach": "worker: {image: example/worker, environment: {URL: 'http://llm:8000/v1'}}",
    "a page that uses the model": (
        "ui: {image: ghcr.io/open-webui/open-webui, ports: ['3000:8080'], environment: {URL: 'http://llm:8000/v1'}}"
    ),
}


@pytest.mark.parametrize("other", FRONTS.values(), ids=FRONTS)
def test_clients_use_the_model_server_rather_than(stack, other):
    project = init(stack, f"services:\n  {other}\n  llm: {{image: vllm/vllm-openai, ports: ['8000:8000']}}\n")

    assert keys_of(project)["api"] == "llm:8000"


def test_a_prometheus_without_rules_has_no_alerts_to_read(stack):
    project = init(stack, "services: {app: {image: x, expose: [80]}, prometheus: {image: prom/prometheus}}")

    assert reason_of(project, "prometheus") == (
        "Prometheus, read for your alerts alone; no rule file of it was found",
        False,
    )
