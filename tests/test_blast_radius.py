"""Foreign containers are never touched, in drawn plans on a fake engine."""

import os
import random
import signal
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmchaos import experiment, faults
from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.loads import open_loop
from pytest_llmchaos.model import Undo
from pytest_llmchaos.runtime.docker import attach_preflight, attached, docker_cli, removal, restrictions
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.subject.lab import lab_subject

PROJECT, RUN, OWNER = "llmchaos-1-abcd", "run-1", "1:2:boot"
OWN = {"llmchaos.run": RUN, "llmchaos.owner": OWNER}
SERVICES = ("api", "model-1", "model-2")
UNDOS = ("ensure_running", "ensure_unpaused", "ensure_connected", "ensure_cpu", "ensure_memory")
ACTS = [
    faults.kill,
    faults.pause,
    faults.restart,
    faults.partition,
    lambda target: faults.limit_cpu(target, cores=0.1),
    lambda target: faults.limit_memory(target, mebibytes=64),
]


@dataclass
class Container:
    """A container as the SDK shows it, with a record of calls that would change it."""

    id: str
    labels: dict[str, str]
    running: bool
    paused: bool
    touched: list[str] = field(default_factory=list)
    modes: dict[str, str] = field(default_factory=dict)

    @property
    def status(self):
        return "running" if self.running else "exited"

    @property
    def name(self):
        return f"name-{self.id}"

    @property
    def attrs(self):
        state = {
            "Running": self.running,
            "Paused": self.paused,
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "0001-01-01T00:00:00Z",
            "Pid": 0,
        }
        networks = {"net": {"Aliases": [self.id], "IPAMConfig": None}}
        return {"State": state, "HostConfig": {"Memory": 1, **self.modes}, "NetworkSettings": {"Networks": networks}}

    def reload(self):
        return None

    def __getattr__(self, name):
        if name not in {"kill", "pause", "unpause", "restart", "start", "stop", "update", "connect", "disconnect"}:
            raise AttributeError(name)

        def call(*_args, **_named):
            self.touched.append(name)

        return call


class Engine:
    """The SDK's client as the runtime uses it. Filters select as Docker's do."""

    def __init__(self, containers):
        self._all = containers
        self.containers = self.networks = self

    def list(self, *, all=False, filters=None, ignore_removed=False):  # noqa: A002 - the SDK's name
        if filters is None and ignore_removed:
            return [c for c in self._all if c.running]
        wanted = filters["label"] if isinstance(filters["label"], list) else [filters["label"]]
        pairs = [one.split("=", 1) for one in wanted]
        return [c for c in self._all if all and {k: c.labels.get(k) for k, _ in pairs} == dict(pairs)]

    def get(self, _name):
        return self

    def connect(self, container, **_about):
        container.connect()

    def disconnect(self, container):
        container.disconnect()

    def info(self):
        return {"MemTotal": 2**34}


def labelled(kind, service):
    """Containers that are ours, foreign, or like ours except for one thing."""
    compose = {"com.docker.compose.project": PROJECT, "com.docker.compose.service": service}
    return {
        "own": {**compose, **OWN},
        "foreign": {},
        "other project": {**compose, **OWN, "com.docker.compose.project": PROJECT + "-2"},
        "same project, no labels": compose,
        "same project, another run": {**compose, **OWN, "llmchaos.run": "run-2"},
        "same project, another owner": {**compose, **OWN, "llmchaos.owner": "2:2:boot"},
        "same project, run alone": {**compose, "llmchaos.run": RUN},
        "a one-off command of the service": {**compose, **OWN, "com.docker.compose.oneoff": "True"},
        "labels without a project": {**OWN, "com.docker.compose.service": service},
    }[kind]


KINDS = st.sampled_from(
    [
        "own",
        "foreign",
        "other project",
        "same project, no labels",
        "same project, another run",
        "same project, another owner",
        "same project, run alone",
        "a one-off command of the service",
        "labels without a project",
    ]
)
WORLDS = st.lists(st.tuples(KINDS, st.sampled_from(SERVICES), st.booleans(), st.booleans()), max_size=8)


def world_of(drawn):
    return [
        Container(f"{index:012d}", labelled(kind, service), running, running and paused)
        for index, (kind, service, running, paused) in enumerate(drawn)
    ]


def runtime_on(containers):
    runtime = ComposeRuntime(lab_subject("sim"), project=PROJECT, run=RUN, owner=OWNER, directory=Path("unused"))
    runtime._client = Engine(containers)
    for service in SERVICES:
        container = runtime._container(service)
        if container is not None:
            runtime._found[service] = restrictions.as_found(container)
    return runtime


@settings(max_examples=1000, deadline=None)
@given(
    drawn=WORLDS,
    act=st.sampled_from(ACTS),
    target=st.sampled_from([*SERVICES, "model-*"]),
    seed=st.integers(0, 99),
    undo=st.sampled_from(UNDOS),
)
def test_a_drawn_plan_touches_only_its_victim_among_this_runs_containers(drawn, act, target, seed, undo):
    containers = world_of(drawn)
    runtime = runtime_on(containers)
    (injection,) = act(target).plan(random.Random(seed), SERVICES)
    own = [
        c
        for c in containers
        if OWN.items() <= c.labels.items()
        and c.labels.get("com.docker.compose.project") == PROJECT
        and c.labels["com.docker.compose.service"] == injection.victim
        and "com.docker.compose.oneoff" not in c.labels
    ]

    if own:
        injection.fault.inject(runtime, injection.victim)
        assert [c.touched for c in containers if c.touched]
    else:
        with pytest.raises(NotReady, match="nothing was touched"):
            injection.fault.inject(runtime, injection.victim)
    runtime.undo(Undo(op=undo, service=injection.victim))

    touched = [c for c in containers if c.touched]
    assert all(c in own for c in touched)
    assert len(touched) <= 1


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act("api").primitive.kind)
def test_in_a_stack_of_others_nothing_is_hit_without_the_label_that_allows_it(act):
    compose = labelled("same project, no labels", "api")
    own = lab_subject("sim")
    runtime = attached.AttachedRuntime(own, project=PROJECT, run=RUN, owner=OWNER, directory=Path("unused"))

    def hit(labels):
        container = Container("c1", {**compose, **labels}, running=True, paused=False)
        runtime._client, runtime._found["api"] = Engine([container]), restrictions.as_found(container)
        act("api").primitive.inject(runtime, "api")
        return container.touched

    for labels in ({}, {attach_preflight.ALLOW: "false"}, OWN, {**OWN, attach_preflight.ALLOW: "true"}):
        with pytest.raises(NotReady, match=r"no container with the label .*: nothing was touched"):
            hit(labels)
    assert len(hit({attach_preflight.ALLOW: "true"})) == 1


def test_a_service_of_others_is_flooded_only_with_the_label():
    floods = []
    runtime = attached.AttachedRuntime(
        lab_subject("sim"), project=PROJECT, run=RUN, owner=OWNER, directory=Path("unused")
    )
    runtime.flood = SimpleNamespace(start=lambda *flood: floods.append(flood))

    def flood(labels):
        container = Container(
            "c1", {**labelled("same project, no labels", "api"), **labels}, running=True, paused=False
        )
        runtime._client = Engine([container])
        runtime.overload("api", 2.5, 8)

    with pytest.raises(NotReady, match=r"no container with the label .*: nothing was touched"):
        flood({})
    assert floods == []
    flood({attach_preflight.ALLOW: "true"})
    assert floods == [("api", 2.5, 8)]


def test_a_container_of_compose_run_is_not_taken_for_the_service():
    beside, own = (
        Container(name, labelled(kind, "api"), running=True, paused=False)
        for name, kind in (("one-off", "a one-off command of the service"), ("own", "own"))
    )
    runtime = runtime_on([beside, own])

    runtime.kill("api")

    assert (beside.touched, own.touched) == ([], ["kill"])
    assert runtime.state("api").identity == "own"


JOINED = ["container:{id}", "container:{name}", "container:{id:.12}"]
ENDS = [
    ("kill", lambda runtime: runtime.kill("api")),
    ("stop", lambda runtime: runtime.stop("api", 1)),
    ("restart", lambda runtime: runtime.restart("api")),
    ("limit_memory", lambda runtime: runtime.limit_memory("api", 64)),
]


def beside(modes, others=()):
    """A runtime with one container of ours in these modes, and running foreign ones."""
    victim = Container("f00d" * 16, labelled("own", "api"), running=True, paused=False, modes=modes)
    strangers = [
        Container(f"{index:012d}", {}, running=running, paused=False, modes=theirs)
        for index, (theirs, running) in enumerate(others)
    ]
    return runtime_on([victim, *strangers]), victim


@pytest.mark.parametrize("joined", JOINED)
@pytest.mark.parametrize("mode", ["NetworkMode", "PidMode"])
@pytest.mark.parametrize(("name", "end"), ENDS, ids=[name for name, _ in ENDS])
def test_what_ends_a_container_is_refused_while_others_live_in_its_namespaces(name, end, mode, joined):
    theirs = {mode: joined.format(id="f00d" * 16, name="name-" + "f00d" * 16)}
    runtime, victim = beside({}, [(theirs, True), ({}, True)])

    with pytest.raises(
        NotReady, match=r"^name-0+ shares the (network|pid) namespace of name-f00d.*nothing was touched"
    ):
        end(runtime)

    assert victim.touched == []


@pytest.mark.parametrize(("name", "act"), [*ENDS, ("partition", lambda runtime: runtime.partition("api"))])
def test_others_in_namespaces_of_their_own_and_dead_ones_keep_no_fault_off(name, act):
    modes = [
        ({"NetworkMode": "container:beef", "PidMode": "host"}, True),
        ({"PidMode": "container:" + "f00d" * 16}, False),
    ]
    runtime, victim = beside({"NetworkMode": "llmchaos-1_default", "PidMode": ""}, modes)

    act(runtime)

    assert victim.touched


@pytest.mark.parametrize("mode", ["host", "container:" + "beef" * 16])
def test_a_partition_of_a_service_in_a_network_of_others_is_refused(mode, monkeypatch):
    cut = []
    monkeypatch.setattr(restrictions, "cut_connections", cut.append)
    runtime, victim = beside({"NetworkMode": mode})

    with pytest.raises(
        NotReady, match=r"lacks a network namespace of its own .* (host|container beefbeefbeef),.*nothing"
    ):
        runtime.partition("api")

    assert (cut, victim.touched) == ([], [])


def test_a_partition_of_a_service_whose_network_others_use_is_refused(monkeypatch):
    cut = []
    monkeypatch.setattr(restrictions, "cut_connections", cut.append)
    runtime, victim = beside({}, [({"NetworkMode": "container:" + "f00d" * 16}, True)])

    with pytest.raises(NotReady, match=r"^name-0+ shares the network namespace"):
        runtime.partition("api")

    assert (cut, victim.touched) == ([], [])


@pytest.fixture
def crashed(monkeypatch):
    """Crash the container that Docker reports with this process.

    Return the processes that got a signal.
    """
    killed = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))

    def crash(identity, pid, refusal=None):
        container = Container(identity, labelled("own", "api"), running=True, paused=False)
        monkeypatch.setattr(Container, "attrs", {**container.attrs, "State": {"Pid": pid}})
        with pytest.raises(NotReady, match=refusal) if refusal else nullcontext():
            runtime_on([container]).crash("api")
        return killed

    return crash


def test_a_process_in_the_containers_cgroup_is_crashed(crashed):
    of_this_process = Path("/proc/self/cgroup").read_text().split()[0]

    assert crashed(of_this_process, os.getpid()) == [(os.getpid(), signal.SIGKILL)]


def test_a_process_that_only_has_the_number_that_docker_reports_is_not_crashed(crashed):
    assert crashed("f00d" * 16, os.getpid(), "another machine or in another pid namespace.*nothing was touched") == []
    assert crashed("f00d" * 16, 2**31 - 1, "nothing was touched") == []
    assert crashed("f00d" * 16, 0, "no running process") == []


def test_a_fault_beyond_the_declared_blast_radius_is_refused():
    both = faults.together(faults.kill("model-*"), faults.kill("model-*"))

    assert experiment(load=open_loop(rate_rps=1), fault=both, blast_radius=2).name == "llmchaos"
    with pytest.raises(BadScenario, match=r"blast_radius=1\) is smaller than what .* may hit \(2 services\)"):
        experiment(load=open_loop(rate_rps=1), fault=both, blast_radius=1)


def test_what_is_removed_must_carry_the_project_and_the_owner(monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return "one the-first\ntwo the-second\n" if "--format" in command else ""

    monkeypatch.setattr(docker_cli, "run", run)

    assert removal.remove_owned(PROJECT, OWNER) == 8

    listings = [command for command in commands if "--format" in command]
    assert len(listings) == 4
    assert [f"reference={PROJECT}*" in command for command in listings if "image" in command] == [True]
    for command in listings:
        assert f"label=com.docker.compose.project={PROJECT}" in command
        assert f"label=llmchaos.owner={OWNER}" in command
    first, *rest = [command for command in commands if command not in listings]
    assert first == ["docker", "rm", "--force", "--volumes", "one", "two"]
    assert sorted(rest) == [
        ["docker", "image", "rm", "one", "two"],
        ["docker", "network", "rm", "one"],
        ["docker", "network", "rm", "two"],
        ["docker", "volume", "rm", "--force", "one", "two"],
    ]
