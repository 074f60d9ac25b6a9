"""Blast radius on real Docker: look-alike containers are left alone."""

import contextlib
import os
import re

import pytest
from support import sessions, tiny_stack
from support.stacks import require

from pytest_llmchaos import faults
from pytest_llmchaos.cleanup.sweep import in_docker
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import docker_cli, removal

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"


@contextlib.contextmanager
def container(name, *, network="none", pid="", **labels):
    image = docker_cli.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "llmchaos/services"]
    ).split()[0]
    command = ["docker", "run", "--detach", "--init", "--network", network, "--name", name]
    command += ["--pid", pid] if pid else []
    for key, value in labels.items():
        command += ["--label", f"{key}={value}"]
    docker_cli.run([*command, "--entrypoint", "sleep", image, "600"])
    try:
        yield name
    finally:
        with contextlib.suppress(Exception):
            docker_cli.run(["docker", "rm", "--force", name])


def state_of(name):
    shown = "{{.State.Status}} {{.State.StartedAt}} {{.HostConfig.CpuQuota}} {{.HostConfig.Memory}} {{.RestartCount}}"
    return docker_cli.run(["docker", "inspect", "--format", shown, name])


FAULTS = (faults.kill("api"), faults.pause("api"), faults.restart("api"), faults.limit_cpu("api", cores=0.5))


def test_faults_ignore_containers_that_only_look_like_this_runs(stack_lab):
    runtime = stack_lab.runtime
    stack_lab.remediator.ensure(False)
    unlabelled = {PROJECT: runtime.project, SERVICE: "api"}
    another_runs = {**unlabelled, "llmchaos.run": "another", "llmchaos.owner": identity.owner_label()}
    name = f"{runtime.project}-api"
    with container(f"{name}-2", **unlabelled) as first, container(f"{name}-3", **another_runs) as second:
        before = [state_of(first), state_of(second)]
        real = runtime.state("api").identity
        for fault in FAULTS:
            try:
                fault.primitive.inject(runtime, "api")
            finally:
                runtime.undo(fault.primitive.undo("api"))

            assert runtime.state("api").identity == runtime.states()["api"].identity == real, fault
            assert [state_of(first), state_of(second)] == before, fault
            runtime.wait_healthy(("api",), 30)


def test_a_removal_leaves_objects_with_the_project_but_another_owner():
    require("sim")
    project, dead = f"llmchaos-removal-{os.getpid()}", "1:2:other"
    with (
        container(f"{project}-api-1", **{PROJECT: project, "llmchaos.owner": dead}) as own,
        container(f"{project}-api-2", **{PROJECT: project}) as bare,
        container(f"{project}-api-3", **{PROJECT: project, "llmchaos.owner": identity.owner_label()}) as living,
    ):
        assert removal.remove_owned(project, dead) == 1

        left = {row["Names"] for row in docker_cli.list_rows("container", f"label={PROJECT}={project}")}
        assert left == {bare, living}
        assert own not in left


@pytest.mark.parametrize("namespace", ["network", "pid"])
def test_a_fault_is_refused_while_a_foreign_container_shares_its_namespace(namespace, stack_lab):
    runtime = stack_lab.runtime
    name, real = f"{runtime.project}-beside", runtime.state("api").identity
    ends = (runtime.kill, runtime.partition) if namespace == "network" else (runtime.kill, runtime.crash)
    with container(name, **{namespace: f"container:{real}"}):
        before = state_of(name), state_of(real)
        for end in ends:
            with pytest.raises(NotReady, match=f"{name} shares the {namespace} namespace"):
                end("api")

        assert (state_of(name), state_of(real)) == before


@pytest.fixture
def shared(tmp_path):
    """A user's stopped stack with a network and a volume of fixed names."""
    require("sim")
    image, name = tiny_stack.image(), f"llmchaos-case-{os.getpid()}"
    tiny = tiny_stack.make(tmp_path / "tiny", image, fault="kill")
    compose = tiny.folder / "compose.yaml"
    mounted = compose.read_text().replace("/desk.py:ro", '/desk.py:ro", "models:/models', 1)
    shared = f"networks: {{default: {{name: {name}}}}}\nvolumes: {{models: {{name: {name}}}}}\n"
    compose.write_text(f"{mounted}\n{shared}")
    env = docker_cli.environment(tiny.environment)

    def run(*words):
        return docker_cli.run(["docker", "compose", "-p", f"{name}-real", "-f", str(compose), *words], env=env)

    run("up", "--detach")
    run("stop", "--timeout", "0")
    inside = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--volume", f"{name}:/m", "--entrypoint"]
    docker_cli.run([*inside, "sh", image, "-c", "echo precious >/m/weights"])
    yield tiny, name, lambda: docker_cli.run([*inside, "cat", image, "/m/weights"])
    run("down", "--volumes", "--timeout", "0")


def made(name):
    """Identities and owners of a network and a volume in Docker."""
    network = docker_cli.run(["docker", "network", "inspect", "--format", "{{.Id}} {{json .Labels}}", name])
    return network, docker_cli.run(["docker", "volume", "inspect", "--format", "{{.CreatedAt}} {{json .Labels}}", name])


def test_a_network_and_a_volume_of_fixed_name_are_refused_or_if_permitted_used_as_found(shared):
    tiny, name, weights = shared
    before = made(name)

    code, said = tiny.run()

    assert code != 0
    assert f"network 'default' of service desk has the fixed name '{name}'" in said
    assert f"volume 'models' of service desk has the fixed name '{name}'" in said
    assert made(name) == before

    ini = tiny.folder / "pytest.ini"
    ini.write_text(ini.read_text() + "llmchaos_allow = network:default volume:models\n")
    code, said = tiny.run()

    assert re.search(r"\b1 passed\b", said), said
    assert sessions.leftovers(sessions.of_kind(tiny.reports, "stack")[-1]["project"]) == []
    assert made(name) == before
    assert weights() == "precious\n"


def project_of(tiny):
    return str(sessions.of_kind(tiny.reports, "stack")[-1]["project"])


def test_an_image_built_for_a_run_is_removed_with_it(tmp_path):
    require("sim")
    tiny = tiny_stack.make(tmp_path / "tiny", tiny_stack.image(), fault="kill")
    (tiny.folder / "Dockerfile").write_text(f"FROM {tiny.environment['TINY_IMAGE']}\n")
    compose = tiny.folder / "compose.yaml"
    compose.write_text(compose.read_text().replace("image: ${TINY_IMAGE}", "build: ."))

    _, said = tiny.run()

    assert re.search(r"\b1 passed\b", said), said
    (up,) = sessions.of_kind(tiny.reports, "stack_up")
    assert up["images"]["desk"].split()[0] == f"{project_of(tiny)}-desk"
    shown = ["docker", "image", "ls", "--format", "{{.Repository}}"]
    assert not [name for name in docker_cli.run(shown).split() if name.startswith(project_of(tiny))]


def test_a_live_run_is_never_swept(stack_lab):
    docker = in_docker()

    assert docker.unseen == ""  # else Docker was not queried
    assert stack_lab.runtime.project not in {**docker.dead, **docker.doubtful}
    assert sessions.leftovers(stack_lab.runtime.project)
