"""Daemons that cannot do what trials need."""

import json
from pathlib import Path

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.runtime.docker.engine import lacks_control_groups, podman_version

DATA = Path(__file__).parent / "data"
ROOTLESS = (DATA / "docker-rootless-info.json").read_text()
PODMAN = (DATA / "podman-version.json").read_text()
DOCKER = json.dumps({"Components": [{"Name": "Engine", "Version": "28.2.2"}]})


@pytest.fixture
def daemon(monkeypatch, tmp_path):
    """A docker client whose daemon has these answers."""
    docker_cli._require_able.cache_clear()
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def answers(*, version=DOCKER, info="{}"):
        (tmp_path / "version").write_text(version)
        (tmp_path / "info").write_text(info)
        program = tmp_path / "docker"
        program.write_text(
            f"""#!/bin/sh
echo "$1" >>{tmp_path}/calls
case "$*" in
"compose version --short") echo 2.40.3;;
"version --format {{{{json .Server}}}}" | "info --format {{{{json .}}}}") cat {tmp_path}/$1;;
*) exit 1;;
esac
"""
        )
        program.chmod(0o755)

    yield answers
    docker_cli._require_able.cache_clear()


def test_a_rootless_daemon_without_control_groups_is_refused_with_the_reason(daemon):
    daemon(info=ROOTLESS)

    with pytest.raises(
        NotReady,
        match=r"^the rootless Docker daemon at unix:///run/user/1000/docker.sock has no control groups, so it can neither "
        r"pause containers nor limit them: boot the machine with cgroup v2 and systemd, .*--chaos-runtime=local$",
    ):
        docker_cli.require_engine()


@pytest.mark.parametrize(
    "info",
    [
        {"SecurityOptions": ["name=seccomp,profile=default"], "CgroupDriver": "cgroupfs"},
        {"SecurityOptions": ["name=rootless", "name=cgroupns"], "CgroupDriver": "systemd"},
        {"SecurityOptions": None, "CgroupDriver": "none"},
        {},
    ],
    ids=["system", "rootless with cgroup v2", "none", "silent"],
)
def test_other_daemons_are_used_and_described_once(daemon, tmp_path, info):
    daemon(info=json.dumps(info))

    docker_cli.require_engine()
    docker_cli.require_engine()

    assert (tmp_path / "calls").read_text().split().count("info") == 1


@pytest.mark.parametrize("answer", ["", "nonsense", "[]", "null"])
def test_an_odd_description_counts_as_none(answer):
    assert not lacks_control_groups(answer)
    assert podman_version(answer) == ""


def test_podman_is_refused_whatever_its_socket_is_called(daemon):
    daemon(version=PODMAN)

    with pytest.raises(
        NotReady,
        match=r"^the daemon at unix:///run/user/1000/docker.sock is Podman 4\.3\.1, which lacks calls of Docker that faults "
        r"need \(`docker update`\): set DOCKER_HOST or DOCKER_CONTEXT to a Docker daemon, or use --chaos-runtime=local$",
    ):
        docker_cli.require_engine()


def test_podman_is_known_by_its_own_description():
    assert podman_version(PODMAN) == "4.3.1"
    assert podman_version(DOCKER) == ""
