"""Deaths of a fault agent and of the watchdog while a fault is in force.

pytest goes on in both cases. Whatever the trial's verdict is, the attached stack is as
it was, nothing of the run is left, and the service answers.
"""

from __future__ import annotations

import contextlib
import http.client
import os

import pytest
from support import tiny_stack
from support.dying import ALONE, IN_FORCE, named
from support.stacks import require
from support.tiny_stack import Engine
from support.waiting import until

from pytest_llmchaos.host.ports import loopback
from pytest_llmchaos.runtime.docker import docker_cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

PORT = 29318
REACHABLE_S = 2.0
CASES = [
    (victim, when, kind, number)
    for victim in ("agent", "watchdog")
    for kind, number in IN_FORCE
    for when in ("before", "after")
]
# Kills an agent or the watchdog of its own run, before or after the n-th line of a kind
# is written, and goes on.
STRIKER = (
    ALONE
    + """
import pathlib, subprocess

write, left = Journal.write, [{number}]

def strike():
    if {victim!r} == "agent":
        listed = subprocess.run(
            ["docker", "ps", "--quiet", "--filter", "label=llmchaos.agent", "--filter", f"label=llmchaos.owner={{owner()}}"],
            capture_output=True, text=True, check=True,
        )
        found = listed.stdout.split()
        assert found
        subprocess.run(["docker", "kill", *found], check=True)
        return
    found = [
        int(one.name) for one in pathlib.Path("/proc").glob("[0-9]*")
        if "pytest_llmchaos.cleanup.watchdog" in text_of(one / "cmdline")
        and text_of(one / "stat").rpartition(")")[2].split()[1] == str(os.getpid())
    ]
    assert len(found) == 1
    os.kill(found[0], signal.SIGKILL)

def text_of(path):
    try:
        return path.read_text()
    except OSError:
        return ""

def owner():
    from pytest_llmchaos.host import identity
    return identity.owner_label()

def write_and_strike(self, line):
    kind = line.__struct_config__.tag
    left[0] -= kind == {kind!r}
    is_now = kind == {kind!r} and left[0] == 0
    if is_now and {when!r} == "before":
        strike()
    write(self, line)
    if is_now and {when!r} == "after":
        strike()

Journal.write = write_and_strike
"""
)


@pytest.fixture(scope="module")
def desk():
    """A stack of another owner."""
    require("sim")
    environment = {
        "TINY_IMAGE": tiny_stack.image(),
        "COMPOSE_PROJECT_NAME": f"tinyagents{os.getpid()}",
        "TINY_DESK_PORT": str(PORT),
    }
    compose = ["docker", "compose", "-f", str(tiny_stack.HERE / "compose.yaml")]
    own = docker_cli.environment(environment)
    try:
        docker_cli.run([*compose, "up", "--detach", "--wait"], env=own, timeout_s=90)
        yield environment
    finally:
        docker_cli.run([*compose, "down", "--volumes", "--timeout", "0"], env=own)


@pytest.mark.sampled(share=0.1, by=lambda parameters: parameters["case"][0])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_run_goes_on_and_leaves_nothing(desk, case, tmp_path):
    victim, when, kind, number = case
    striker = STRIKER.format(victim=victim, when=when, kind=kind, number=number)
    tiny = tiny_stack.make(tmp_path / "tiny", desk["TINY_IMAGE"], fault="flaky", attach=True, conftest=striker)
    tiny.environment.update(desk)
    project = desk["COMPOSE_PROJECT_NAME"]
    with contextlib.closing(Engine()) as engine:
        before = engine.looks(project)

        code, said = tiny.run("--chaos-unleash", timeout_s=120)

        until(answers, "the desk answers", REACHABLE_S)
        assert "heal_failed" not in said, said[-3000:]
        assert code in (0, 1), said[-3000:]
        if victim == "watchdog":
            assert code == 0, said[-3000:]
        until(lambda: engine.looks(project) == before, "the stack is as it was", 5)
        until(lambda: engine.agents(project) == [], "no agent is left", 5)


def answers():
    with (
        contextlib.suppress(OSError),
        contextlib.closing(http.client.HTTPConnection(loopback(), PORT, timeout=1)) as one,
    ):
        one.request("POST", "/v1/chat/completions", body=b"{}")
        return one.getresponse().status != 503
    return False
