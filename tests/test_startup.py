"""A stack is up, or the error names what is not, with its health check and log."""

import os
import sys
import time
from pathlib import Path

import pytest
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli, sdk, startup


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
    """Wait over these looks and return what is left of them. The last one stays."""
    left = list(looks)

    def look():
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        return found

    startup.wait_until_up(
        look,
        roles=roles,
        expected=("web",),
        deadline=time.monotonic() + startup_s,
        too_late=lambda what: f"too late: {what}",
        show=(lambda *about: said.append(about)) if said is not None else lambda *_: None,
    )
    return left


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
    assert wait({"web": [RUNNING], **beside}, {}) == [{}]


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

    assert wait(*looks, {}) == [{}]


def test_a_docker_that_answers_late_is_queried_again_until_the_deadline():
    wait(TimeoutError("read timed out"), {"web": [RUNNING]})

    with pytest.raises(NotReady, match="too late: Docker does not report its containers: read timed out"):
        wait(TimeoutError("read timed out"), startup_s=0.2)


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
def test_what_is_not_up_in_time_is_named_with_its_health_check_and_log(found, message):
    with pytest.raises(NotReady) as caught:
        wait(found, startup_s=0.2)

    said = str(caught.value)
    assert said.startswith("too late: ")
    assert message in said


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
    "published": {"build": {"context": "."}, "image": "mine:1"},
}


@pytest.fixture
def compose(monkeypatch, tmp_path):
    """A program in place of Docker Compose, and the calls that it got."""

    def make(program, services=SERVICES):
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
            raise AssertionError(f"the files are read once, before the start: {command}")

        monkeypatch.setattr(docker_cli, "run", run)
        return (startup.Command(words=[str(path)], env=dict(os.environ), folder=tmp_path), services), calls

    return make


def test_only_missing_images_are_fetched_before_the_start_as_compose_would(compose):
    command, calls = compose("")

    startup.fetch_images(*command, lambda *_: None)

    assert calls.read_text().splitlines() == [
        "--progress plain pull absent",
        "--progress plain pull always",
        "--progress plain pull published",
        "--progress plain build built",
        "--progress plain build rebuilt",
        "--progress plain build published",
    ]


def test_what_cannot_be_pulled_is_built_if_it_can_be(compose):
    services = {"published": SERVICES["published"]}
    command, calls = compose("sys.exit('pull' in sys.argv)", services)

    startup.fetch_images(*command, lambda *_: None)

    assert len(calls.read_text().splitlines()) == 2


@pytest.mark.parametrize(("service", "doing"), [("absent", "pulling absent:1 for absent"), ("built", "building built")])
def test_a_failed_fetch_ends_with_the_last_lines_of_its_program(compose, service, doing):
    program = "print('step 1'); print('no such file: app.py'); sys.exit(17)"
    command, _ = compose(program, {service: SERVICES[service]})

    with pytest.raises(NotReady, match=rf"^{doing} failed: step 1\nno such file: app\.py$"):
        startup.fetch_images(*command, lambda *_: None)


def test_a_long_build_shows_its_last_line_and_an_interrupt_ends_it_with_its_children(compose):
    program = """
import subprocess
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
print('step 3 of 12, process', child.pid, flush=True)
child.wait()
"""
    command, calls = compose(program, {"built": SERVICES["built"]})
    pids = []

    def say(line, left_s):
        if "step 3" in line:
            assert line.startswith("building built: step 3 of 12, process ")
            assert left_s is None
            pids.append(int(line.split()[-1]))
            pids.extend(int(one.name) for one in Path("/proc").glob("[0-9]*") if str(calls.parent) in _words(one))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        startup.fetch_images(*command, say)

    assert len(pids) == 2
    until(lambda: not any(_words(Path(f"/proc/{pid}")) for pid in pids), "both processes ended", 5)


def _words(process):
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_long_pull_shows_its_layers(compose):
    lines = [
        "absent Pulling",
        "d7c0b2a1f3e4 Pulling fs layer",
        "a1b2c3d4e5f6 Already exists",
        "0123456789ab Waiting",
        "d7c0b2a1f3e4 Downloading [=>  ] 1.2MB/30MB",
        "0123456789ab Pull complete",
    ]
    command, _ = compose(f"print({chr(10).join(lines)!r}, flush=True); time.sleep(60)", {"absent": SERVICES["absent"]})
    said = []

    def say(line, _):
        said.append(line)
        if "layers" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        startup.fetch_images(*command, say)

    assert said[-1] == "pulling absent:1 for absent: 2 of 3 layers"


def test_a_fetch_has_a_deadline_of_its_own(compose, monkeypatch):
    monkeypatch.setattr(startup, "FETCH_DEADLINE_S", 0.3)
    command, _ = compose("time.sleep(60)")

    with pytest.raises(NotReady, match=r"pulling absent:1 for absent did not end within 0\.3 s"):
        startup.fetch_images(*command, lambda *_: None)


def test_a_log_that_cannot_be_read_does_not_hide_why_a_service_is_not_up():
    def logs(**_):
        raise sdk.errors.APIError("no", explanation="configured logging driver does not support reading")

    job = Container("exited", code=1)
    job.logs = logs

    with pytest.raises(NotReady, match="job ended with status 1, and its log cannot be read: configured logging"):
        wait({"web": [RUNNING], "job": [job]})


@pytest.mark.parametrize(
    ("said", "is_known"),
    [
        ("Error response from daemon: Pool overlaps with other one on this address space", True),
        ("conflicts with network 41: networks have same bridge name", True),
        ("Error response from daemon: no space left on device", False),
    ],
)
def test_a_network_of_which_there_can_be_one_has_a_remedy(said, is_known):
    assert ("second file of llmchaos_compose" in startup.remedy_of(said)) == is_known
