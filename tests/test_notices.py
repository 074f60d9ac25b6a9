"""Notices about restart policies and remediators."""

import json
import re

import pytest
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import attach_preflight, docker_cli, notices, reach
from pytest_llmchaos.runtime.docker.members import PROJECT, SERVICE, Members
from pytest_llmchaos.runtime.docker.notices import About

SOCKET = "/var/run/docker.sock"
FIXER = {"remediator": "fixer"}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure", "on-failure:3"])
def test_a_restart_policy_is_announced_with_the_faults_that_it_answers(folder, policy):
    services = {"web": About(restart=policy), "worker": About(restart="no"), "prom": About(restart="always")}
    line = (
        f"Docker restarts web ({policy}) after faults.crash and out of memory (trial.repaired_by is then "
        '"runtime"), and not after faults.kill and faults.stop, which count as an operator\'s'
    )

    assert notices.of(subject_of(folder, attach=True), services) == (line,)
    assert notices.of(subject_of(folder, restart="keep"), services) == (line,)
    (off,) = notices.of(subject_of(folder), services)
    assert off.startswith(f'the run starts web ({policy}) with restart: "no"')
    assert 'llmchaos_restart = "keep"' in off


def test_a_stack_without_restart_policies_needs_no_line(folder):
    services = {"web": About(restart="no"), "worker": About(mounts=(SOCKET,))}

    assert notices.of(subject_of(folder, attach=True), services) == ()


@pytest.mark.parametrize(
    ("name", "about", "said"),
    [
        ("fixer", About(mounts=(SOCKET,)), "fixer has Docker's socket, so only its own filter keeps it"),
        ("fixer", About(mounts=("/run/docker.sock",)), "fixer has Docker's socket"),
        ("second", About(mounts=(SOCKET,), variables={"AUTOHEAL_CONTAINER_LABEL": "all"}), "second .* restarts every unhealthy"),
        ("second", About(mounts=(SOCKET,), variables={"AUTOHEAL_CONTAINER_LABEL": "shop"}), "second .* only its own filter"),
        ("second", About(variables={"AUTOHEAL_CONTAINER_LABEL": "all"}), None),
        ("second", About(mounts=(SOCKET,)), None),
        ("fixer", About(mounts=("/data",)), None),
    ],
)  # fmt: skip
def test_a_remediator_that_can_restart_containers_of_others_is_announced(folder, name, about, said):
    lines = notices.of(subject_of(folder, **FIXER), {name: about})

    assert len(lines) == (said is not None)
    assert said is None or re.match(said, lines[0])


@pytest.mark.parametrize(
    ("service", "about"),
    [
        ({"restart": "always"}, About(restart="always")),
        ({"deploy": {"restart_policy": {}}}, About()),
        ({"deploy": {"restart_policy": {"delay": "1s"}}}, About(restart="always")),
        ({"deploy": {"restart_policy": {"condition": "any"}}}, About(restart="always")),
        ({"deploy": {"restart_policy": {"condition": "on-failure"}}}, About(restart="on-failure")),
        ({"deploy": {"restart_policy": {"condition": "none"}}}, About(restart="no")),
        ({"deploy": {"replicas": 2}}, About()),
        ({"environment": {"A": "1", "B": None}}, About(variables={"A": "1", "B": "None"})),
        ({"volumes": [{"type": "bind", "source": SOCKET, "target": SOCKET}]}, About(mounts=(SOCKET,))),
    ],
)
def test_the_settings_of_a_compose_file_are_read(service, about):
    config = reach.read_config(json.dumps({"services": {"web": service}}))

    assert notices.in_file(config) == {"web": about}


def inspected(service, **host):
    return {
        "Name": f"/shop-{service}-1",
        "Config": {"Env": ["A=1=2", "BARE"], "Labels": {PROJECT: "shop", SERVICE: service}},
        "HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}, **host},
        "Mounts": [{"Type": "bind", "Source": SOCKET}],
    }


@pytest.mark.parametrize("removed", [False, True])
def test_the_settings_of_running_containers_are_read(folder, monkeypatch, removed):
    def run(command, **_):
        if "ps" in command:
            assert command[-1] == "label=com.docker.compose.project=shop"
            return "aaa\nbbb\n"
        if removed:
            raise NotReady("No such container: bbb")
        return json.dumps([inspected("web"), inspected("fixer")])

    monkeypatch.setattr(docker_cli, "run", run)

    lines = attach_preflight.examine(subject_of(folder, attach=True, project="shop", **FIXER)).notices

    assert [line.split(" (")[0].split(",")[0] for line in lines] == (
        [] if removed else ["Docker restarts web", "fixer has Docker's socket"]
    )
    about = attach_preflight._settings_of(Members(project="shop"))
    assert removed or about["web"].about == About(restart="always", variables={"A": "1=2"}, mounts=(SOCKET,))


def test_another_error_of_docker_is_raised(monkeypatch):
    def run(command, **_):
        if "ps" in command:
            return "aaa"
        raise NotReady("no permission")

    monkeypatch.setattr(docker_cli, "run", run)

    with pytest.raises(NotReady, match="no permission"):
        attach_preflight._settings_of(Members(project="shop"))
