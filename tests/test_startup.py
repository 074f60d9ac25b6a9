"""A stack is up, or the error names what is not, with its health check and log."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli, startup


class Container:
    """A container in one state."""

    def __init__(self, status, *, code=0, health=None, output="", policy="no", restarts=0, number="1", log=b"", env=()):
        state = {"Status": status, "ExitCode": code}
        if health is not None:
            state["Health"] = {"Status": health, "Log": [{"Output": output, "ExitCode": 1}] if output else []}
        self.attrs = {
            "State": state,
            "RestartCount": restarts,
            "HostConfig": {"RestartPolicy": {"Name": policy}},
            "Config": {"Env": list(env)},
        }
        self.labels = {"com.docker.compose.container-number": number}
        self._log = log

    def logs(self, *, tail):
        return self._log


RUNNING = Container("running")


def wait(*looks, roles=("web",), startup_s=5.0, said=None):
    """Wait over these looks. The last one stays."""
    left = list(looks)
    startup.wait_until_up(
        lambda: left.pop(0) if len(left) > 1 else left[0],
        roles=roles,
        expected=("web",),
        deadline=time.monotonic() + startup_s,
        startup_s=startup_s,
        show=(lambda *about: said.append(about)) if said is not None else lambda *_: None,
    )


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"job": [Container("exited", code=0)]},
        {"job": [Container("exited", code=0, policy="on-failure")]},
        {"model": [Container("running", health="healthy"), Container("running", number="2")]},
        {"model": [Container("running", health="none"), Container("running", health="", number="2")]},
    ],
    ids=[
        "alone",
        "a job that is done",
        "a job with a policy",
        "healthy replicas",
        "no health check, and Podman's word",
    ],
)
def test_a_stack_is_up_if_all_run_and_jobs_are_done(beside):
    wait({"web": [RUNNING], **beside})


def test_a_start_waits_for_what_is_not_up_yet():
    looks = [
        {},
        {"web": [Container("created")]},
        {"web": [Container("running", health="starting")]},
        {"web": [Container("running", health="unhealthy")]},
        {"web": [Container("exited", code=1, policy="always")]},
        {"web": [Container("restarting", code=1, restarts=2)]},
        {"web": [Container("running", health="healthy")]},
    ]

    wait(*looks)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"web": [Container("exited", code=0)]}, "web ended with status 0, and its log is empty"),
        (
            {"web": [RUNNING], "job": [Container("exited", code=3, log=b"no disk")]},
            "job ended with status 3, its log ends",
        ),
        ({"web": [RUNNING, Container("dead", number="2")]}, "web#2 is dead"),
        ({"web": [Container("exited", code=0, policy="on-failure")]}, "web ended with status 0"),
    ],
)
def test_what_has_ended_for_good_is_an_error_at_once(found, message):
    begin = time.monotonic()

    with pytest.raises(NotReady, match=message) as caught:
        wait(found, startup_s=60.0)

    assert time.monotonic() - begin < 5
    assert "the stack did not start" in str(caught.value)
    assert "llmchaos_startup_s" not in str(caught.value)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "web has no container"),
        (
            {"web": [Container("running", health="starting", output="connection refused", log=b"loading weights\n")]},
            "web is starting by its health check: connection refused, its log ends with:\nloading weights",
        ),
        ({"web": [Container("restarting", code=137, restarts=4)]}, "web restarts for the 4. time, after status 137"),
        (
            {"web": [RUNNING], "job": [Container("exited", code=1, policy="always", restarts=9)]},
            "job ended with status 1 after 9 restarts",
        ),
    ],
)
def test_what_is_not_up_in_time_is_named_with_the_key_that_gives_it_longer(found, message):
    with pytest.raises(NotReady) as caught:
        wait(found, startup_s=0.2)

    said = str(caught.value)
    assert said.startswith("the stack is not up after 0.2 s: ")
    assert message in said
    assert said.endswith("Give it longer with llmchaos_startup_s in the ini file, such as llmchaos_startup_s = 1")


def test_a_long_start_shows_what_it_waits_for(monkeypatch):
    monkeypatch.setattr(startup, "LEAST_SHOWN_S", 0.0)
    said = []

    with pytest.raises(NotReady):
        wait({"web": [Container("running", health="starting", output="HTTP\n503")]}, startup_s=0.3, said=said)

    line, left_s = said[0]
    assert line == "waiting: web is starting by its health check: HTTP 503"
    assert 0 < left_s <= 0.3


def test_secrets_of_any_container_are_in_no_message():
    holder = Container("running", env=["API_KEY=sk-very-secret-1"])
    loud = Container("exited", code=1, log=b"refused: sk-very-secret-1")

    with pytest.raises(NotReady) as caught:
        wait({"web": [holder], "job": [loud]})

    assert "refused: ***" in str(caught.value)
    assert "sk-very-secret-1" not in str(caught.value)


SERVICES = {
    "here": {"image": "here:1"},
    "absent": {"image": "absent:1"},
    "again": {"image": "absent:1"},
    "never": {"image": "never:1", "pull_policy": "never"},
    "always": {"image": "here:1", "pull_policy": "always"},
    "built": {"build": {"context": "."}},
    "built-before": {"build": {"context": "."}, "image": "here:1"},
    "rebuilt": {"build": {"context": "."}, "image": "here:1", "pull_policy": "build"},
}


@pytest.fixture
def compose(monkeypatch, tmp_path):
    """A program in place of Docker Compose, and the calls that it got."""

    def make(program):
        calls = tmp_path / "calls"
        path = tmp_path / "docker-compose"
        path.write_text(
            f"#!{sys.executable}\nimport sys, time\nopen({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n{program}"
        )
        path.chmod(0o755)

        def run(command, **_):
            if "inspect" in command:
                if not command[-1].startswith("here"):
                    raise NotReady("No such image")
                return "sha256:1"
            return json.dumps({"services": SERVICES})

        monkeypatch.setattr(docker_cli, "run", run)
        return startup.Command(words=[str(path)], env=dict(os.environ), folder=tmp_path), calls

    return make


def test_only_missing_images_are_fetched_before_the_start(compose):
    command, calls = compose("")

    startup.fetch_images(command, lambda *_: None)

    assert calls.read_text().splitlines() == [
        "build built --progress plain",
        "build rebuilt --progress plain",
        "pull absent",
        "pull always",
    ]


def test_a_failed_build_ends_with_the_last_lines_of_the_builder(compose):
    command, _ = compose("print('step 1'); print('no such file: app.py'); sys.exit(17)")

    with pytest.raises(NotReady, match=r"building built failed: step 1\nno such file: app\.py"):
        startup.fetch_images(command, lambda *_: None)


def test_a_long_pull_shows_its_last_line_and_an_interrupt_ends_it(compose):
    command, calls = compose("print('layer 3 of 12', flush=True); time.sleep(60)")
    pid = []

    def say(line, left_s):
        if "layer 3" in line:
            assert line == "building built: layer 3 of 12"
            assert left_s is None
            pid.extend(int(one.name) for one in Path("/proc").glob("[0-9]*") if str(calls.parent) in _words(one))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        startup.fetch_images(command, say)

    assert pid
    assert not Path(f"/proc/{pid[0]}").exists()


def _words(process):
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_fetch_has_a_deadline_of_its_own(compose, monkeypatch):
    monkeypatch.setattr(startup, "FETCH_DEADLINE_S", 0.3)
    command, _ = compose("time.sleep(60)")

    with pytest.raises(NotReady, match=r"building built did not end within 0\.3 s"):
        startup.fetch_images(command, lambda *_: None)
