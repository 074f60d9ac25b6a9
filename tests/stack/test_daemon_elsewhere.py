"""A Docker daemon whose ports are not on this process's loopback."""

import pytest
from support import sessions, tiny_stack
from support.second_daemon import other_machine, second_daemon

from pytest_llmchaos.runtime.docker import docker_cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

HERE, THERE = "10.213.7.1", "10.213.7.2"
ADDRESS = f"tcp://{THERE}:2375"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """A daemon with the tiny stack's images in a network namespace."""
    image = tiny_stack.image()
    images = [image, *tiny_stack.judge_images(image).values()]
    with (
        other_machine(HERE, THERE) as namespace,
        second_daemon(tmp_path_factory.mktemp("daemon"), "--host", ADDRESS, namespace=namespace) as made,
    ):
        made.load(*images)
        yield made


@pytest.fixture
def tiny(daemon, tmp_path, monkeypatch):
    made = tiny_stack.make(tmp_path / "mine", tiny_stack.image(), fault="kill")
    made.environment.update(dict.fromkeys(sessions.PROXIES, ""))  # `docker` would use them
    monkeypatch.setenv("DOCKER_HOST", ADDRESS)
    docker_cli._of_context.cache_clear()
    return made


def key(tiny, line):
    with (tiny.folder / "pytest.ini").open("a") as file:
        file.write(line + "\n")


def test_a_daemon_of_another_machine_is_refused_with_the_line_to_write(tiny):
    code, said = tiny.run("--chaos-runtime=compose")

    assert code != 0
    assert f"the Docker daemon at {ADDRESS} is on another machine" in said
    assert f'llmchaos_published_on = "{THERE}"' in said
    assert tiny_stack.Engine(ADDRESS)._client.containers.list(all=True) == []


@pytest.mark.nightly("test_place has every place of a daemon, and test_docker_contexts runs at another one")
def test_a_stack_runs_where_the_daemon_is_and_its_ports_are_on_the_one_address(tiny):
    key(tiny, f"llmchaos_published_on = {THERE}")

    code, said = tiny.run()

    assert code == 0, said
    assert f"Prometheus at http://{THERE}:" in said
    assert tiny_stack.Engine(ADDRESS)._client.containers.list(all=True) == []


def test_files_that_the_other_machine_lacks_are_one_error(tiny, daemon):
    """The namespace has this machine's files, so one that exists nowhere is mounted."""
    key(tiny, "llmchaos_published_on = 0.0.0.0")
    (tiny.folder / "desk.py").unlink()

    code, said = tiny.run()

    assert code != 0
    assert f"the compose file mounts what is not there: {tiny.folder}/desk.py; mount each" in said
    assert not (tiny.folder / "desk.py").exists()


@pytest.mark.nightly("test_place has every place of a daemon")
def test_a_socket_that_leads_to_another_machine_is_named_once_the_stack_is_up(tiny, daemon, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", daemon.host)

    code, said = tiny.run()

    assert code != 0
    assert "the stack is up, but llmchaos-prometheus accepts no connection at http://127.0.0.1:" in said
    assert "or set DOCKER_HOST to the daemon's tcp:// address" in said
    assert tiny_stack.Engine(daemon.host)._client.containers.list(all=True) == []
