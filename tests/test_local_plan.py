"""Compose files as local programs, and supervisord's files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.host import ports
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.runtime.local import programs as local_programs
from pytest_llmchaos.runtime.local.compose_reader import Addresses, Translator, read_services
from pytest_llmchaos.runtime.local.fault_agents import death_gaps
from pytest_llmchaos.runtime.local.programs import Programs
from pytest_llmchaos.runtime.local.supervisord_config import CONFIG, Process, read_log, write_supervisord
from pytest_llmchaos.subject.lab import lab_subject, stack_dir

PROBE = ["CMD", "/opt/lab/probe.sh", "8000", "/readyz"]
SERVICES = ("api", "model-1", "model-2", "prometheus", "remediator")


def addresses(**given: int) -> Addresses:
    free = iter(range(21000, 22000))
    return Addresses(lambda: next(free), {("api", 8000): given["api"]} if "api" in given else {})


def translator(tmp_path: Path, at: Addresses) -> Translator:
    return Translator(stack=tmp_path / "stack", work=tmp_path / "work", addresses=at, services=SERVICES)


def test_a_port_keeps_its_address_and_a_given_one_is_used() -> None:
    at = addresses(api=4711)

    assert at.of("api", 8000) == "127.0.0.1:4711"
    assert at.of("model-1", 8080) == at.of("model-1", 8080) == "127.0.0.1:21000"
    assert at.known() == {"api:8000": "127.0.0.1:4711", "model-1:8080": "127.0.0.1:21000"}


def test_addresses_are_on_the_loopback_address_that_this_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "is_own_address", lambda host: host == "::1")
    at = addresses(api=4711)
    service = {"command": ["python3"], "environment": {"LAB_HOST": "0.0.0.0"}, "healthcheck": {"test": PROBE}}

    program = translator(tmp_path, at).program("api", service)

    assert at.translate("x=http://api:8000,api:8000", SERVICES) == "x=http://[::1]:4711,[::1]:4711"
    assert program.environment == {"LAB_HOST": "::1"}
    assert program.health is not None
    assert program.health.url == "http://[::1]:4711/readyz"


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("http://api:8000/healthz", "http://127.0.0.1:4711/healthz"),
        ("model-1=http://api:8000,x=api:8000", "model-1=http://127.0.0.1:4711,x=127.0.0.1:4711"),
        ("my-api:8000 xapi:8000 api.example:8000", "my-api:8000 xapi:8000 api.example:8000"),
        ("api:800012 api:", "api:800012 api:"),
    ],
)
def test_only_whole_names_with_a_port_become_addresses(text: str, becomes: str) -> None:
    assert addresses(api=4711).translate(text, SERVICES) == becomes


def test_later_compose_files_lie_over_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "services:\n  api:\n    command: [python3, -m, lab_api]\n    environment: {A: '1', B: '2'}\n    volumes: ['a:/a']\n"
    )
    (tmp_path / "b.yaml").write_text(
        "services:\n  api:\n    command: [python3, -m, other]\n    environment: {B: '3'}\n    volumes: ['b:/b']\n"
    )

    merged = read_services([tmp_path / "a.yaml", tmp_path / "b.yaml"], {})

    assert merged == {
        "api": {"command": ["python3", "-m", "other"], "environment": {"A": "1", "B": "3"}, "volumes": ["a:/a", "b:/b"]}
    }


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${GIVEN}", "here"),
        ("${GIVEN:-other}", "here"),
        ("x-${ABSENT:-other}", "x-other"),
        ("$GIVEN/x", "here/x"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY-other}", ""),
        ("${EMPTY?why}", ""),
        ("${ABSENT}", ""),
        ("$$x", "$x"),
        ("$${GIVEN}", "${GIVEN}"),
    ],
)
def test_variables_are_substituted_as_in_compose(tmp_path: Path, text: str, becomes: str) -> None:
    (tmp_path / "a.yaml").write_text(f"services:\n  api:\n    image: '{text}'\n")

    assert read_services([tmp_path / "a.yaml"], {"GIVEN": "here", "EMPTY": ""})["api"]["image"] == becomes


@pytest.mark.parametrize("text", ["${ABSENT:?why}", "${ABSENT?why}", "${EMPTY:?why}"])
def test_a_required_variable_that_is_not_set_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(f"services:\n  api:\n    image: '{text}'\n")

    with pytest.raises(BadScenario, match=r"a\.yaml needs the variable (ABSENT|EMPTY): why"):
        read_services([tmp_path / "a.yaml"], {"EMPTY": ""})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("services: [", "is not a readable compose file"),
        ("[" * 500, "is not a readable compose file"),
        ("services: {a: &a {image: x, y: *a}}", "is not a readable compose file: Circular reference"),
        ("services: {a: {image: 2020-13-45}}", "is not a readable compose file: month"),
        ("", "must be a mapping with `services`, each of them a mapping, got None"),
        ("- 1", r"must be a mapping .*, got \[1\]"),
        ("services: [1]", r"must be a mapping .*, got {'services': \[1\]}"),
        ("services: {a: 1}", "must be a mapping .*, got {'services': {'a': 1}}"),
    ],
    ids=["open", "deep", "circular", "date", "empty", "list", "list of services", "number"],
)
def test_a_file_that_is_no_compose_file_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.yaml").write_text(text)

    with pytest.raises(BadScenario, match=rf"a\.yaml {reason}"):
        read_services([tmp_path / "a.yaml"] * 2, {})


def test_a_service_gets_loopback_ports_and_folders_of_the_run(tmp_path: Path) -> None:
    service: dict[str, Any] = {
        "command": ["python3", "-m", "lab_remediator", "--audit=/audit/audit.jsonl"],
        "environment": {
            "LAB_HOST": "0.0.0.0",
            "LAB_PORT": "8000",
            "LAB_AUDIT_FILE": "/audit/audit.jsonl",
            "LAB_RULES_FILE": "/etc/rules.yaml",
            "LAB_URL": "http://model-1:8080",
            "LAB_SCRATCH": "/tmp/x",
        },
        "volumes": ["audit:/audit", "./rules.yaml:/etc/rules.yaml:ro"],
        "tmpfs": ["/tmp:size=1m"],
        "cpu_shares": 128,
        "healthcheck": {"test": ["CMD", "/opt/lab/probe.sh", "8000", "/healthz", "/tmp/warm"]},
    }

    program = translator(tmp_path, addresses(api=4711)).program("api", service)

    assert program.environment == {
        "LAB_HOST": "127.0.0.1",
        "LAB_PORT": "4711",
        "LAB_AUDIT_FILE": f"{tmp_path}/work/volumes/audit/audit.jsonl",
        "LAB_RULES_FILE": f"{tmp_path}/stack/rules.yaml",
        "LAB_URL": "http://127.0.0.1:21000",
        "LAB_SCRATCH": f"{tmp_path}/work/tmp/api/x",
    }
    assert program.command[-1] == f"--audit={tmp_path}/work/volumes/audit/audit.jsonl"
    assert program.background
    assert program.health is not None
    assert (program.health.url, program.health.warm) == ("http://127.0.0.1:4711/healthz", True)


def test_a_health_check_in_shell_is_read_too(tmp_path: Path) -> None:
    test = [
        "CMD-SHELL",
        "if rm /tmp/x; then sleep 20; fi; wget -q -O /dev/null http://127.0.0.1:9090/-/ready && : >/tmp/x",
    ]

    program = translator(tmp_path, addresses()).program("prometheus", {"healthcheck": {"test": test}})

    assert program.health is not None
    assert (program.health.url, program.health.warm) == ("http://127.0.0.1:21000/-/ready", False)


@pytest.fixture
def nothing_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "server", lambda program: Path("/bin") / program)
    monkeypatch.setattr(prerequisites, "weights", lambda lock: Path("/weights/model.gguf"))
    monkeypatch.setattr(prerequisites, "ollama_program", lambda: Path("/bin/ollama"))
    monkeypatch.setattr(prerequisites, "ollama_models", lambda program, model, lock: Path("/weights/ollama"))
    monkeypatch.setattr(prerequisites, "agents_packages", lambda lock: Path("/packages"))


@pytest.mark.usefixtures("nothing_fetched")
@pytest.mark.parametrize("backend", ["sim", "llamacpp", "ollama"])
def test_the_labs_compose_files_become_processes_without_container_paths(tmp_path: Path, backend: str) -> None:
    at = addresses()
    subject = lab_subject(backend)
    programs = Programs(
        stack=stack_dir(), files=subject.compose_files, backend=backend, project="llmchaos-x", model=subject.model
    )

    translated = programs.translate(tmp_path, at)
    processes = {one.service: one for one in programs.processes(translated, tmp_path, at)}

    assert {"api", "model-1", "model-2", "prometheus", "pushgateway", "docker-proxy", "remediator"} <= processes.keys()
    for one in processes.values():
        values = " ".join([*one.command, *(v for k, v in one.environment.items() if k != "LAB_ADDRESSES")])
        assert "0.0.0.0" not in values
        assert not any(path in values for path in (" /audit", " /etc/", " /tmp/x", "model-1:8080", "prometheus:9090"))
        assert translated[one.service].health is not None
    written = (tmp_path / "prometheus" / "prometheus.yml").read_text() + (
        tmp_path / "prometheus" / "model.yml"
    ).read_text()
    assert "/etc/prometheus" not in written
    assert not any(f"{name}:{port}" in written for name in processes for port in (8000, 8001, 8080, 8404, 9090, 9091))
    assert f"{stack_dir()}/prometheus/rules/*.yml" in written
    assert processes["remediator"].environment["LAB_PROJECT"] == "llmchaos-x"
    assert processes["remediator"].environment["LAB_HEALTH_PATH"] == processes["api"].environment["LAB_HEALTH_PATH"]
    assert f"model-2:8080={at.of('model-2', 8080)}" in processes["remediator"].environment["LAB_ADDRESSES"]
    assert [processes[name].background for name in ("api", "model-1", "model-2")] == [False, True, True]


@pytest.mark.usefixtures("nothing_fetched")
def test_agents_and_their_desk_are_processes_with_packages_of_their_own(tmp_path: Path) -> None:
    found = {}
    for agents in (False, True):
        at, subject, work = addresses(), lab_subject("sim", agents=agents), tmp_path / str(agents)
        programs = Programs(
            stack=stack_dir(), files=subject.compose_files, backend="sim", project="llmchaos-x", model=subject.model
        )
        translated = programs.translate(work, at)
        found[agents] = {one.service: one for one in programs.processes(translated, work, at)}
        written = {path.name for path in (work / "prometheus").glob("*.yml")}
        assert written == {"prometheus.yml", "model.yml", "scale.yml", *(("agent.yml", "desk.yml") if agents else ())}
    plain, with_agents = found[False], found[True]
    agent, desk = with_agents["agent"].environment, with_agents["desk"].environment

    assert with_agents.keys() - plain.keys() == {"agent", "desk"}
    assert desk["LAB_LEDGER_FILE"] == str(work / "volumes" / "ledger" / "ledger.sqlite")
    assert agent["LAB_STATE_DIR"] == str(work / "volumes" / "agent-state")
    assert agent["LAB_DESK_URL"] == f"http://{at.of('desk', 8100)}/mcp"
    assert agent["LAB_MODEL_URL"] == f"http://{at.of('api', 8000)}/v1"
    assert desk["PYTHONPATH"].split(os.pathsep)[:2] == ["/packages", str(stack_dir() / "services")]
    assert at.of("desk", 8100) in (work / "prometheus" / "desk.yml").read_text()
    for name, processes, repairs in (
        ("plain", plain, "api,model-1,model-2"),
        ("agents", with_agents, "api,model-1,model-2,agent,desk"),
    ):
        seen = [processes[one].environment["LAB_REPAIRS"] for one in ("docker-proxy", "remediator")]
        assert seen == [repairs, repairs], name


@pytest.mark.usefixtures("nothing_fetched")
def test_a_service_that_only_an_image_can_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("services:\n  db:\n    image: postgres\n")
    programs = Programs(stack=tmp_path, files=(tmp_path / "a.yaml",), backend="sim", project="p", model="m")
    at = addresses()

    with pytest.raises(BadScenario, match="'db' must run python3"):
        programs.processes(programs.translate(tmp_path, at), tmp_path, at)


@pytest.mark.parametrize("value", ['a "x"', "a\\b", "two\nlines", "a ;b", "a #b"])
def test_a_value_that_supervisord_would_read_otherwise_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(NotReady, match="supervisord's settings cannot hold"):
        write_supervisord(tmp_path, [Process(service="api", command=("true",), environment={"X": value})])


@pytest.mark.usefixtures("nothing_fetched")
@pytest.mark.parametrize("backend", ["sim", "llamacpp", "ollama"])
def test_a_fault_agent_gets_the_callers_port_and_its_service_another(tmp_path: Path, backend: str) -> None:
    subject = lab_subject(backend)
    programs = Programs(
        stack=stack_dir(), files=subject.compose_files, backend=backend, project="llmchaos-x", model=subject.model
    )
    wired = programs.wired(("api", "model-1", "remediator", "prometheus", "pushgateway", "docker-proxy"))
    free = iter(range(21000, 22000))
    at = Addresses(lambda: next(free), {("api", 8000): 4711}, wired.items())

    translated = programs.translate(tmp_path, at)
    processes = {one.service: one for one in programs.processes(translated, tmp_path, at)}
    agents = {one.service: one.environment for one in programs.agents(wired, at)}

    assert wired["api"] == 8000
    assert agents["fault-agent-api"]["LAB_PORT"] == "4711"
    for service, port in wired.items():
        agent, its_own = agents[f"fault-agent-{service}"], at.own(service, port)
        assert agent["LAB_UPSTREAM"] == its_own != at.of(service, port)
        assert f"{agent['LAB_HOST']}:{agent['LAB_PORT']}" == at.of(service, port)
        values = [*processes[service].command, *processes[service].environment.values()]
        assert any(its_own in value or value == its_own.partition(":")[2] for value in values), service
        health = translated[service].health
        assert health is not None
        assert health.url.startswith(f"http://{its_own}/")
        others = [one for name, one in processes.items() if name != service]
        assert not any(its_own in value for one in others for value in one.environment.values())
    assert at.of("model-1", 8080) in processes["api"].environment["LAB_REPLICAS"]
    assert f"model-1:8080={at.of('model-1', 8080)}" in processes["remediator"].environment["LAB_ADDRESSES"]
    written = "".join(path.read_text() for path in (tmp_path / "prometheus").glob("*.yml"))
    assert at.of("api", 8000) in written
    assert not any(at.own(*place) in written for place in wired.items())


@pytest.mark.usefixtures("nothing_fetched")
def test_without_fault_agents_services_listen_where_callers_reach_them(tmp_path: Path) -> None:
    subject, at = lab_subject("sim"), addresses(api=4711)
    programs = Programs(
        stack=stack_dir(), files=subject.compose_files, backend="sim", project="llmchaos-x", model=subject.model
    )

    translated = programs.translate(tmp_path, at)

    assert programs.agents({}, at) == []
    assert translated["api"].environment["LAB_PORT"] == "4711"
    assert at.own("model-1", 8080) == at.of("model-1", 8080)


@pytest.mark.parametrize("service", ["db", "stranger"])
def test_a_fault_agent_needs_a_service_whose_port_is_known(tmp_path: Path, service: str) -> None:
    (tmp_path / "a.yaml").write_text("services:\n  db:\n    image: postgres\n")
    programs = Programs(stack=tmp_path, files=(tmp_path / "a.yaml",), backend="sim", project="p", model="m")

    with pytest.raises(BadScenario, match=f"no fault agent can stand in the way of '{service}'.*services are db"):
        programs.wired([service])


def test_supervisord_restarts_a_fault_agent(tmp_path: Path) -> None:
    write_supervisord(tmp_path, [Process(service="agent", command=("true",), environment={}, restarts=True)])

    written = (tmp_path / CONFIG).read_text()

    assert "autorestart = true" in written
    assert "autostart = false" in written


def _line(at: float, service: str, action: str) -> dict[str, object]:
    return {"at": at, "service": service, "action": action}


def test_the_time_without_an_agent_is_a_gap(tmp_path: Path) -> None:
    lines = [
        _line(1.0, "fault-agent-api", "start"),
        _line(2.0, "fault-agent-api", "die"),
        _line(3.0, "model-1", "die"),
        _line(4.0, "model-1", "start"),
        _line(5.0, "fault-agent-api", "start"),
        _line(6.0, "fault-agent-api", "die"),
    ]

    first, last = death_gaps(lines, ["api"], 9.0)

    assert (first.from_unix_s, first.to_unix_s) == (2.0, 5.0)
    assert (last.from_unix_s, last.to_unix_s) == (6.0, 9.0)
    assert "the fault agent of api ended" in first.why
    assert death_gaps(lines[:1], ["api"], 9.0) == []
    assert death_gaps(lines, [], 9.0) == []


def test_supervisord_restarts_no_service(tmp_path: Path) -> None:
    write_supervisord(tmp_path, [Process(service="api", command=("true",), environment={}, background=True)])

    written = (tmp_path / CONFIG).read_text()

    assert "autorestart = false" in written
    assert "autostart = false" in written
    assert "command = nice -n 10 true" in written


def test_a_line_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"a": 1}\n{"a": 2')

    assert read_log(tmp_path / "lines").lines == ({"a": 1},)
    assert read_log(tmp_path / "absent").lines == ()


def test_missing_packages_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in {"supervisor", "xllamacpp"} else object()
    )

    with pytest.raises(NotReady, match=r"needs supervisor, xllamacpp in .*pip install 'pytest-llmchaos\[local\]'"):
        prerequisites.require_packages("llamacpp")
    with pytest.raises(NotReady, match=r"needs supervisor in "):
        prerequisites.require_packages("sim")


def test_a_missing_prometheus_is_explained_for_every_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(NotReady) as told:
        prerequisites.server("prometheus")

    assert all(way in str(told.value) for way in ("apt-get install", "brew install", "go install"))


def test_given_weights_are_used_and_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMCHAOS_WEIGHTS", str(tmp_path / "w.gguf"))
    with pytest.raises(NotReady, match=r"w\.gguf"):
        prerequisites.weights(tmp_path / "lock")

    (tmp_path / "w.gguf").touch()

    assert prerequisites.weights(tmp_path / "lock") == tmp_path / "w.gguf"


def test_a_failed_download_of_weights_leaves_the_cache_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LLMCHAOS_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "lock").write_text("no-index-has-this @ file:///nowhere/none.whl\n")

    with pytest.raises(NotReady, match=r"set LLMCHAOS_WEIGHTS .* or use --chaos-backend=sim"):
        prerequisites.weights(tmp_path / "lock")

    assert list((tmp_path / "cache" / "pytest-llmchaos" / "weights").iterdir()) == []


def test_a_missing_ollama_is_an_error_with_an_alternative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(NotReady, match="--chaos-backend=llamacpp"):
        prerequisites.ollama_program()


def test_grafana_is_left_to_compose() -> None:
    assert frozenset({"grafana"}) == local_programs.OPTIONAL


def test_packages_of_agents_are_installed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock, pip = tmp_path / "lock", [1, 0]
    lock.write_text("mcp==2.3.0\n")

    def run(command, what):
        (Path(command[command.index("--target") + 1]) / "mcp").mkdir()
        return subprocess.CompletedProcess(command, pip.pop(0), "", "Looking\nno such wheel: mcp")

    monkeypatch.setattr(prerequisites, "_run", run)
    with pytest.raises(NotReady, match=r"installed from .*lock: no such wheel: mcp; let pip reach"):
        prerequisites.agents_packages(lock)
    folder = prerequisites.agents_packages(lock)
    assert [one.name for one in folder.iterdir()] == ["mcp"]
    assert prerequisites.agents_packages(lock) == folder
    assert list(folder.parent.iterdir()) == [folder]
    lock.write_text("mcp==2.4.0\n")
    pip.append(0)
    assert prerequisites.agents_packages(lock) != folder
