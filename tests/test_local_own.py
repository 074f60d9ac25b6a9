"""A user's own stack as processes: its compose file, ports and judge."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from pytest_llmchaos import experiment, faults, loads  # noqa: F401 - else each session inside these tests would import them anew
from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.runtime.local.compose_reader import Addresses
from pytest_llmchaos.runtime.local.own_compose import OwnCompose
from pytest_llmchaos.runtime.local.own_programs import OwnPrograms
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.session import own_checks
from pytest_llmchaos.session.own_checks import Problems
from pytest_llmchaos.session.settings import choose_runtime
from pytest_llmchaos.subject.own_stack import JUDGE, PUSHGATEWAY, OwnKeys, own_subject

COMPOSE = """
services:
  gateway:
    image: ${GATEWAY_IMAGE:?only containers need it}
    command: serve --host 0.0.0.0 --port ${LLMCHAOS_PORT_8000:-8000} --config=/etc/gateway/config.yaml ${OPTIONS:-}
    volumes: ["./config.yaml:/etc/gateway/config.yaml:ro", "cache:/cache", "/scratch"]
    tmpfs: /tmp
    environment:
      - UPSTREAMS=http://model-1:8080,http://model-1:8080/v1
      - METRICS=0.0.0.0:${LLMCHAOS_PORT_9100:-9100}
      - FROM_OUTSIDE
    healthcheck:
      test: [CMD, curl, "http://127.0.0.1:8000/health"]
  model-1:
    entrypoint: [serve]
    command: ["--cost", "$$5", "${NAME-tiny}", "$TOKEN"]
    environment: {PORT: "${LLMCHAOS_PORT_8080:-8080}", LAB_PORT: "${LLMCHAOS_PORT_8080:-8080}", FAST: true, EMPTY: null}
  debug:
    profiles: [debug]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a compose file, and a program `serve` on PATH."""
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    program = tmp_path / "bin" / "serve"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("TOKEN", "secret")
    for name in ("OPTIONS", "NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def subject_in(folder, **keys):
    found = {"api": "gateway:8000", "targets": ("gateway", "model-1"), "metrics": ("gateway:9100/stats", "model-1")}
    return own_subject(OwnKeys(compose=("compose.yaml",), **{**found, **keys}), folder)


def addresses(wired=()):
    free = iter(range(21000, 22000))
    return Addresses(lambda: next(free), {}, wired)


def examined(folder, **keys):
    subject = subject_in(folder, **keys)
    return OwnCompose(subject.compose_files, {"TOKEN": "secret"}).examine(subject)


def test_variables_of_an_arm_are_translated_and_not_expanded(folder):
    programs, at = OwnPrograms(examined(folder)), addresses()

    found = programs.settings(
        "gateway",
        {"UPSTREAMS": "http://model-1:8080", "CACHE": "/cache/$x", "WAYS": "/cache:/usr/lib:/cache/b"},
        folder / "work",
        at,
    )

    assert found == {
        "UPSTREAMS": f"http://{at.of('model-1', 8080)}",
        "CACHE": f"{folder / 'work' / 'volumes' / 'cache'}/$x",
        "WAYS": f"{folder / 'work' / 'volumes' / 'cache'}:/usr/lib:{folder / 'work' / 'volumes' / 'cache'}/b",
    }


def test_services_become_programs_with_ports_of_the_run(folder):
    programs = OwnPrograms(examined(folder)).translate(folder / "work", addresses())

    serve = str(folder / "bin" / "serve")
    gateway, model = programs["gateway"], programs["model-1"]
    port = gateway.command[gateway.command.index("--port") + 1]
    upstream = model.environment["PORT"]
    assert gateway.command == (serve, "--host", "127.0.0.1", "--port", port, f"--config={folder}/config.yaml")
    assert gateway.environment == {
        "UPSTREAMS": f"http://127.0.0.1:{upstream},http://127.0.0.1:{upstream}/v1",
        "METRICS": f"127.0.0.1:{21001 if port == '21000' else 21000}",
    }
    assert gateway.health.url == f"http://127.0.0.1:{port}/health"
    assert gateway.folders["/cache"] == str(folder / "work" / "volumes" / "cache")
    assert gateway.folders["/scratch"] == str(folder / "work" / "volumes" / "gateway-scratch")
    assert gateway.folders["/tmp"] == str(folder / "work" / "tmp" / "gateway")
    assert model.command == (serve, "--cost", "$5", "tiny", "secret")
    assert model.environment == {"PORT": upstream, "LAB_PORT": upstream, "FAST": "true"}
    assert model.health is None
    assert list(programs) == ["gateway", "model-1", JUDGE, PUSHGATEWAY]


def test_options_of_the_environment_become_words_of_the_command(folder, monkeypatch):
    monkeypatch.setenv("OPTIONS", "--retries 1")

    programs = OwnPrograms(examined(folder)).translate(folder / "work", addresses())

    assert programs["gateway"].command[-2:] == ("--retries", "1")


def test_a_fault_agent_takes_the_port_of_the_callers(folder):
    own = OwnPrograms(examined(folder))
    wired = own.wired(["gateway", "model-1"])
    at = addresses(wired.items())

    programs = own.translate(folder / "work", at)
    agents = {one.environment["LAB_TARGET"]: one.environment for one in own.agents(wired, at)}

    assert wired == {"gateway": 8000, "model-1": 8080}
    assert agents["model-1"]["LAB_UPSTREAM"] == f"127.0.0.1:{programs['model-1'].environment['PORT']}"
    assert f"127.0.0.1:{agents['model-1']['LAB_PORT']}/v1" in programs["gateway"].environment["UPSTREAMS"]
    assert agents["model-1"]["LAB_PORT"] != programs["model-1"].environment["PORT"]


def test_a_service_without_a_known_port_takes_no_fault_agent(folder):
    with pytest.raises(BadScenario, match=r"no fault agent can stand in the way of 'debug': .* services are gateway"):
        OwnPrograms(examined(folder)).wired(["debug"])


def test_the_judge_scrapes_the_endpoints_of_the_keys(folder, monkeypatch):
    monkeypatch.setattr(prerequisites, "server", lambda name: Path("/usr/bin") / name)
    own, at, work = OwnPrograms(examined(folder)), addresses(), folder / "work"

    processes = {one.service: one for one in own.processes(own.translate(work, at), work, at)}

    settings = json.loads((work / "prometheus" / "prometheus.yml").read_text())
    jobs = {one["job_name"]: one for one in settings["scrape_configs"]}
    assert jobs["gateway"]["metrics_path"] == "/stats"
    assert jobs["gateway"]["static_configs"] == [
        {"targets": [at.of("gateway", 9100)], "labels": {"service": "gateway"}}
    ]
    assert jobs["model-1"]["static_configs"][0]["targets"] == [at.of("model-1", 8080)]
    assert jobs[PUSHGATEWAY]["static_configs"][0]["targets"] == [at.of(PUSHGATEWAY, 9091)]
    rules = yaml.safe_load(Path(settings["rule_files"][0]).read_text())
    assert [rule["labels"]["service"] for rule in rules["groups"][-1]["rules"]] == ["gateway", "model-1"]
    assert processes[JUDGE].command[0] == "/usr/bin/prometheus"
    assert processes[PUSHGATEWAY].command[1] == f"--web.listen-address={at.own(PUSHGATEWAY, 9091)}"
    assert processes["gateway"].environment["HOME"] == str(work / "tmp" / "gateway")
    assert (work / "volumes" / "cache").is_dir()


def test_ports_and_roles_are_read_from_the_file(folder):
    subject = examined(folder)

    assert subject.ports == (("gateway", "", 8000), (JUDGE, "", 9090), (PUSHGATEWAY, "", 9091))
    assert [(one.service, one.port) for one in subject.scrapes] == [("gateway", 9100), ("model-1", 8080)]


@pytest.mark.parametrize(
    ("old", "new", "keys", "message"),
    [
        pytest.param("", "", {"api": "gateway"}, "llmchaos_api must name the port of 'gateway', such as gateway:8000"),
        pytest.param("", "", {"api": "gateway:81"}, r"llmchaos_api names port 81 of 'gateway', .*\$\{LLMCHAOS_PORT_81:-81\}"),
        pytest.param("", "", {"api": "web:80"}, "llmchaos_api names 'web', which the compose file lacks; it has gateway, mo"),
        pytest.param("--port ${LLMCHAOS_PORT_8000:-8000}", "", {}, "its health check names port 8000 of 'gateway'"),
        pytest.param("http://model-1:8080/v1", "http://model-1:81", {}, "service 'gateway' names port 81 of 'model-1'"),
        pytest.param("entrypoint: [serve]\n    command", "args", {}, "service 'model-1' has no command, and the local"),
        pytest.param("tmpfs: /tmp", "env_file: x", {}, "service 'gateway' has `env_file`, which the local runtime does not"),
        pytest.param("tmpfs: /tmp", "deploy: {replicas: 2}", {}, "'gateway' has `deploy.replicas`, and the local"),
        pytest.param("${OPTIONS:-}", "${OPTIONS:?give it}", {}, "needs the variable OPTIONS: give it"),
        pytest.param("${OPTIONS:-}", "'unclosed", {}, "No closing quotation"),
        pytest.param("  debug:", f"  {JUDGE}:\n    command: [serve]\n  debug:", {}, "has the name of a service that the run"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_run_as_processes_is_refused(folder, old, new, keys, message):
    (folder / "compose.yaml").write_text(COMPOSE.replace(old, new) if old else COMPOSE)

    with pytest.raises(BadScenario, match=message):
        examined(folder, **keys)


def test_long_volumes_are_read_too(folder):
    volume = "{type: bind, source: ./config.yaml, target: /etc/gateway/config.yaml}"
    (folder / "compose.yaml").write_text(COMPOSE.replace('"./config.yaml:/etc/gateway/config.yaml:ro"', volume))

    programs = OwnPrograms(examined(folder)).translate(folder / "work", addresses())

    assert programs["gateway"].folders["/etc/gateway/config.yaml"] == f"{folder}/config.yaml"


def test_a_program_that_is_missing_is_named(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))

    with pytest.raises(NotReady, match="service 'gateway' runs 'serve', which is not a program on PATH: install it"):
        OwnPrograms(examined(folder)).translate(folder / "work", addresses())


def test_processes_can_be_flooded_and_their_engines_are_not_the_labs(folder):
    runtime = LocalRuntime(examined(folder), project="x", run="r", owner="o", directory=folder)

    assert {"kill", "pause", "proxy", "overload"} <= runtime.abilities
    assert "engine" not in runtime.abilities
    assert runtime._up_deadline_s == 120


def test_processes_are_chosen_by_the_option_alone():
    assert choose_runtime("local", own=True) == ("local", "as configured")
    assert choose_runtime("auto", own=True) == ("compose", "llmchaos_compose is set")


class Settings:
    """The settings that the checks read."""

    runtime = "local"

    def __init__(self, subject):
        self.subject = subject


def test_checks_need_no_docker_and_name_misspelt_targets(folder):
    good, bad = subject_in(folder), subject_in(folder, targets=("gateway", "modle"))
    problems = Problems()

    found = own_checks.examine(good, problems, local=True)

    assert problems.errors == []
    assert found.rules
    assert found.ports[0] == ("gateway", "", 8000)
    assert own_checks.foresee(Settings(good)) == []
    assert own_checks.misspelt_targets(Settings(good)) == []
    assert own_checks.misspelt_targets(Settings(bad)) == [
        "llmchaos_targets names 'modle', which the compose file lacks; it has gateway, model-1"
    ]
    assert own_checks.foresee(Settings(bad))[0].startswith("not ready: ")


def test_an_unreadable_file_has_no_misspelt_targets(folder):
    subject = subject_in(folder)
    (folder / "compose.yaml").write_text("services: [")

    assert own_checks.misspelt_targets(Settings(subject)) == []
