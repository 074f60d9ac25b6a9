"""Start of a stack: images apart, jobs, slow and failing services, replicas."""

import json
import os
import subprocess
import time
from dataclasses import replace
from random import Random

import pytest
from support import sessions, tiny_stack
from support.stacks import require
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.faults.kill import Kill
from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import docker_cli, preflight
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.subject.own_stack import OwnKeys, own_subject

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

SLEEPER = {
    "entrypoint": ["python3", "-S", "-c", "import time; time.sleep(600)"],
    "init": True,
    "stop_grace_period": "0s",
}
WEB = {**SLEEPER, "expose": ["8080"]}


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a stack of these services, and removes it in the end."""
    require("sim")
    image = tiny_stack.image()
    for name, value in tiny_stack.judge_images(image).items():
        monkeypatch.setenv(name, value)
    made = []

    def make(startup_s=60.0, said=None, **services):
        about = {
            name: {**({} if "build" in service else {"image": image}), **service} for name, service in services.items()
        }
        (tmp_path / "compose.yaml").write_text(json.dumps({"services": {"web": {"image": image, **WEB}, **about}}))
        keys = OwnKeys(compose=("compose.yaml",), api="web", targets=("web", *({"model"} & {*services})))
        subject = preflight.examine(replace(own_subject(keys, tmp_path), startup_s=startup_s))
        runtime = ComposeRuntime(
            subject,
            project=f"llmchaos-startup{os.getpid()}",
            run="run",
            owner=identity.owner_label(),
            directory=tmp_path / "run",
            say=lambda what, left_s: said.append(what) if said is not None else None,
        )
        made.append(runtime)
        runtime.prepare()
        runtime.up()
        return runtime

    make.image = image
    yield make
    for runtime in made:
        runtime.down()
        assert sessions.leftovers(runtime.project) == []


def test_jobs_that_end_well_and_a_build_longer_than_the_start_may_take_are_no_failure(start, tmp_path):
    """One job that nothing waits for ends while others start. Another is waited for."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "Dockerfile").write_text(f"FROM {start.image}\nENV AT={time.time()}\nRUN sleep 9\n")
    said = []

    runtime = start(
        8.0,
        said,
        migrate={"entrypoint": ["true"]},
        pull={"entrypoint": ["sh", "-c", "sleep 1"], "depends_on": ["web"]},
        worker={**SLEEPER, "build": "slow", "depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
    )

    assert any(line.startswith("building worker: #") for line in said)
    runtime.wait_healthy(("web",), 5)


def test_a_job_that_fails_ends_the_start_at_once_with_its_log(start):
    """Also while Compose waits for a service that another depends on."""
    begin = time.monotonic()
    slow = {"test": ["CMD", "false"], "interval": "1s", "retries": 100}

    with pytest.raises(NotReady, match=r"pull ended with status 3, its log ends with:\nno space left") as caught:
        start(
            pull={"entrypoint": ["sh", "-c", "echo no space left; exit 3"]},
            db={**SLEEPER, "healthcheck": slow},
            worker={**SLEEPER, "depends_on": {"db": {"condition": "service_healthy"}}},
        )

    assert time.monotonic() - begin < 20
    assert "llmchaos_startup_s" not in str(caught.value)


@pytest.mark.nightly("test_startup names what is not up in time")
def test_a_slow_boot_is_named_with_its_health_check_its_log_and_the_key(start):
    said = []
    test = ["CMD-SHELL", "echo loading weights; exit 1"]

    with pytest.raises(NotReady) as caught:
        start(
            4.0,
            said,
            model={
                "entrypoint": ["sh", "-c", "echo shard 3 of 8; sleep 600"],
                "init": True,
                "healthcheck": {"test": test, "interval": "500ms", "start_period": "600s"},
            },
        )

    message = str(caught.value)
    assert "the stack is not up after 4 s: model is starting by its health check: loading weights" in message
    assert "its log ends with:\nshard 3 of 8" in message
    assert "llmchaos_startup_s = 20" in message
    assert any("model is starting by its health check: loading weights" in line for line in said)


@pytest.mark.nightly("test_startup interrupts a program in place of Compose")
def test_an_interrupt_in_a_build_leaves_nothing_behind(start, tmp_path):
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "Dockerfile").write_text(f"FROM {start.image}\nENV AT={time.time()}\nRUN sleep 61\n")

    class Interrupting(list):
        def append(self, line):
            if "sleep 61" in line:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(8.0, Interrupting(), worker={**SLEEPER, "build": "slow"})

    until(lambda: "sleep 61" not in what_runs(), "the builder stopped", 10)


def what_runs():
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_a_fault_hits_one_named_replica_and_all_of_them_have_to_be_healthy(start):
    runtime = start(model={**SLEEPER, "deploy": {"replicas": 3}})
    containers = {f"{runtime.project}-model-{number}" for number in (1, 2, 3)}

    def running():
        rows = docker_cli.list_rows("container", f"label=com.docker.compose.project={runtime.project}")
        return {row["Names"] for row in rows if row["State"] == "running"} & containers

    since_s = time.time()
    kill = Kill()
    assert runtime.aim("model", Random(1), 3) == 3
    runtime.kill("model")
    proof = until(lambda: kill.observed(runtime, "model", since_s), "the death was seen", 5)
    assert "replica=model#3" in proof.witness
    assert running() == {name for name in containers if not name.endswith("-3")}
    runtime.undo(replace(kill.undo("model"), args={"replica": 3}))
    runtime.wait_healthy(("model",), 10)

    since_s = time.time()
    drawn = runtime.aim("model", Random(1))
    runtime.partition("model")
    proof = until(lambda: runtime.restricted("partition", "model", since_s), "the partition was seen", 5)
    assert f"replica=model#{drawn}" in proof.witness
    runtime.release("partition", "model")

    docker_cli.run(["docker", "kill", f"{runtime.project}-model-2"])
    with pytest.raises(NotReady, match="model#2 did not become healthy within 1 s: model#2 ended with status 137"):
        runtime.wait_healthy(("model",), 1)

    docker_cli.run(["docker", "rm", f"{runtime.project}-model-2"])
    with pytest.raises(NotReady, match="model did not become healthy within 1 s: model has 2 of 3 containers"):
        runtime.wait_healthy(("model",), 1)
