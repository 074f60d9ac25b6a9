"""A user's own compose file: scenarios hold, an attached stack stays as it was."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from support import sessions
from support.journals import intend
from support.stacks import BOOTSTRAP, ROOT, require
from support.waiting import until

from pytest_llmchaos import faults
from pytest_llmchaos.cli import commands
from pytest_llmchaos.errors import NotReady, Unsupported
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.host import identity
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.model import Injection
from pytest_llmchaos.runtime.docker import attach_preflight, docker_cli, notes
from pytest_llmchaos.runtime.docker import attached as attach
from pytest_llmchaos.runtime.docker.attached import AttachedRuntime
from pytest_llmchaos.trial.attribution import repaired_by

pytestmark = [pytest.mark.stack, pytest.mark.timeout(280)]

EXAMPLE = ROOT / "examples" / "byo"


@pytest.fixture
def stack(tmp_path):
    """A copy of the example, and the images that this machine has for it."""
    require("sim")
    command = [sys.executable, str(BOOTSTRAP), "env", "--backend", "sim"]
    images = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    folder = tmp_path / "byo"
    shutil.copytree(EXAMPLE, folder)
    folder.chmod(0o755)
    tmp_path.chmod(0o755)
    environment = {
        "FAQ_IMAGE": images["LLMCHAOS_SERVICES_IMAGE"],
        "FAQ_PROMETHEUS_IMAGE": images["LLMCHAOS_PROMETHEUS_IMAGE"],
    }
    return folder, environment


def pytest_in(folder, environment, *args):
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", *args]

    def run():
        env = {**os.environ, **environment}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=250, check=False)
        return done.returncode, done.stdout + done.stderr

    return sessions.measured(folder / "reports", run, output_of=lambda ended: ended[1])


def changed(path, *pairs):
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_the_example_holds_on_a_stack_of_its_own_and_nothing_is_left(stack):
    """The trial of a restart. That of a frozen desk is in the attached stack below."""
    folder, environment = stack

    code, said = pytest_in(folder, environment, "-k", "restarted")

    assert code == 0, said
    assert re.search(r"\b2 passed\b", said), said
    run = sessions.run_json(folder / "reports")
    assert {trial["verdict"] for trial in run["trials"]} == {"held"}
    project = sessions.of_kind(folder / "reports", "stack")[0]["project"]
    assert sessions.leftovers(project) == []


@pytest.mark.sampled  # test_own_override and test_reach have all messages
@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("compose.yaml", "    init: true\n", "    init: true\n    privileged: true\n", "'faq' sets privileged: true"),
        ("compose.yaml", '    ports: ["127.0.0.1:${FAQ_PORT:-18080}:8080"]\n', "", "'faq', which neither publishes nor exposes"),
        ("pyproject.toml", 'llmchaos_prometheus = "prometheus"', 'llmchaos_prometheus = "prom"', "names 'prom', which the compose file"),
        ("pyproject.toml", 'llmchaos_targets = ["faq"]', 'llmchaos_targets = ["desk"]', "names 'desk', which the compose file lacks"),
    ],
)  # fmt: skip
def test_what_would_go_wrong_later_is_explained_before_anything_starts(stack, file, old, new, message):
    folder, environment = stack
    changed(folder / file, (old, new))

    code, said = pytest_in(folder, environment)

    assert code != 0
    assert message in said
    assert "starting the stack" not in said


@pytest.mark.nightly("test_byo names such a metric; the example's session passes because it finds its own")
def test_a_metric_without_an_exporter_is_an_error_that_names_it(stack):
    folder, environment = stack
    changed(folder / "slo.yaml", ("faq_answers_total", "desk_answers_total"))

    code, said = pytest_in(folder, environment, "-k", "restarted")

    assert code != 0
    assert "lacks the metric desk_answers_total" in said
    project = sessions.of_kind(folder / "reports", "stack")[0]["project"]
    assert sessions.leftovers(project) == []


@pytest.fixture
def running(stack):
    """The example, started outside the instrument."""
    folder, environment = stack
    changed(
        folder / "pyproject.toml",
        ('llmchaos_slo = "slo.yaml"', 'llmchaos_slo = "slo.yaml"\nllmchaos_attach = true'),
    )
    project = f"faqdesk{os.getpid()}"
    environment = {**environment, "COMPOSE_PROJECT_NAME": project, "FAQ_PORT": "29180", "FAQ_PROMETHEUS_PORT": "29190"}

    def compose(*words):
        command = ["docker", "compose", "-f", str(folder / "compose.yaml"), *words]
        return docker_cli.run(command, env=docker_cli.environment(environment), timeout_s=90)

    compose("up", "--detach", "--wait")
    yield folder, environment, project
    compose("down", "--volumes", "--timeout", "1")


def looks(project):
    """The stack's containers, their start times and states."""
    names = sorted(
        row["Names"] for row in docker_cli.list_rows("container", f"label=com.docker.compose.project={project}")
    )
    shown = "{{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.State.Paused}}"
    return [docker_cli.run(["docker", "inspect", "--format", shown, name]).strip() for name in names]


def test_a_stack_of_others_is_hit_only_off_the_leash_and_left_running(running):
    folder, environment, project = running
    before = looks(project)
    assert len(before) == 2

    code, said = pytest_in(folder, environment, "-k", "frozen")

    assert code == pytest.ExitCode.NO_TESTS_COLLECTED, said
    assert "pause faq at +0 s" in said
    assert "add --chaos-unleash" in said
    assert not (folder / "reports").exists()
    assert looks(project) == before

    code, said = pytest_in(folder, environment, "-k", "frozen", "--chaos-unleash")

    assert code == 0, said
    assert re.search(r"\b3 passed\b", said), said
    assert looks(project) == before


@pytest.mark.nightly("test_journal_boundaries kills pytest over a stack of others at a line of each fault")
def test_faults_in_an_attached_stack_are_reverted_when_pytest_is_killed(running):
    folder, environment, project = running
    before = looks(project)
    reports = folder / "reports"
    arguments = [str(folder / "scenarios"), "-c", str(folder / "pyproject.toml"), "-k", "frozen", "--chaos-unleash"]
    child = sessions.start(reports, *arguments, env=environment)
    try:
        until(lambda: sessions.of_kind(reports, "proof"), "the fault was proven", 60)
        assert "paused true" in " ".join(" ".join((one.split()[1], one.split()[3])) for one in looks(project))
    finally:
        child.kill()
        child.wait()

    until(lambda: looks(project) == before, "the stack was as before", 3)


@pytest.fixture
def pair():
    """Two services of an attached project. `open` may be hit and `shut` may not."""
    require("sim")
    listing = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "llmchaos/services"]
    image = docker_cli.run(listing).split()[0]
    project, names = f"byo-pair-{os.getpid()}", []
    for service, allow in (("open", "true"), ("shut", "no")):
        names.append(f"{project}-{service}-1")
        labels = [
            f"com.docker.compose.project={project}",
            f"com.docker.compose.service={service}",
            f"{attach_preflight.ALLOW}={allow}",
        ]
        command = ["docker", "run", "--detach", "--init", "--name", names[-1], "--entrypoint", "sleep"]
        docker_cli.run([*command, *(word for label in labels for word in ("--label", label)), image, "300"])
    yield project
    docker_cli.run(["docker", "rm", "--force", *names])


def attached(project, directory, targets=("open",), ports=()):
    subject = replace(attach._bare(targets), ports=ports, remediator="shut")
    return AttachedRuntime(subject, project=project, run="run", owner=identity.owner_label(), directory=directory)


def test_only_what_its_owner_allowed_is_acted_on(pair, tmp_path):
    runtime = attached(pair, tmp_path)
    runtime.up()
    before = looks(pair)
    try:
        for act in (runtime.kill, runtime.pause, runtime.restart, runtime.crash, runtime.partition):
            with pytest.raises(NotReady, match="nothing was touched"):
                act("shut")
        with pytest.raises(Unsupported, match="would stop a service of an attached stack"):
            runtime.stop_remediator()
        runtime.subject = replace(runtime.subject, remediator=None)
        runtime.start_remediator()
        runtime.stop_remediator()
        assert runtime.state("shut").running
        assert runtime.audit() is None
    finally:
        runtime.down()

    assert looks(pair) == before


@pytest.fixture
def plain():
    """A container that Compose did not start, by its name and its label."""
    require("sim")
    listing = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "llmchaos/services"]
    name = f"byo.plain-{os.getpid()}"
    labels = ["--label", f"byo.role={name}", "--label", f"{attach_preflight.ALLOW}=true"]
    image = docker_cli.run(listing).split()[0]
    docker_cli.run(
        ["docker", "run", "--detach", "--init", "--name", name, *labels, "--entrypoint", "sleep", image, "300"]
    )
    yield name
    docker_cli.run(["docker", "rm", "--force", name])


@pytest.mark.nightly("test_members chooses such containers, and the pair below is reverted after a death too")
@pytest.mark.parametrize("selector", ["container:{}", "label:byo.role={}"])
def test_a_container_without_compose_is_hit_and_reverted_after_a_death(plain, tmp_path, monkeypatch, selector):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    selectors = {plain: selector.format(plain)}
    subject = replace(attach._bare((plain,)), selectors=tuple(selectors.items()))
    about = {"project": attach_preflight.NO_PROJECT, "directory": tmp_path / "r", "run": "run"}
    runtime = AttachedRuntime(subject, owner=identity.owner_label(), **about)
    runtime.prepare()
    runtime.up()
    journal, since_s = Journal(tmp_path / "r" / "journal.jsonl"), time.time()
    manifest = RunManifest(
        **{**about, "directory": str(tmp_path / "r")}, runtime="compose", owned=False, targets=(plain,), selectors=selectors,
        owner="1:1:another-boot", journal=str(journal.path),
    )  # fmt: skip
    journal.keep_intents(notes.intents_of(noted := notes.note(manifest)))
    notes.keep_as_found(noted)
    for op in ("ensure_running", "ensure_connected"):
        intend(journal, plain, op)

    runtime.partition(plain)
    runtime.kill(plain)
    until(lambda: not runtime.state(plain).running, "it ended", 10)
    commands.heal(dry_run=False)

    assert runtime.state(plain).running
    assert runtime.released("partition", plain) is not None
    actions = [one.action for one in runtime.events(since_s, time.time()) if one.service == plain]
    assert actions == ["kill", "die", "start"]
    assert list(notes.dead_runs()) == []
    runtime.down()
    journal.close()


@pytest.fixture
def policed():
    """A service of an attached project that Docker restarts by its policy."""
    require("sim")
    listing = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "llmchaos/services"]
    project = f"byo-policy-{os.getpid()}"
    labels = [
        f"com.docker.compose.project={project}",
        "com.docker.compose.service=open",
        f"{attach_preflight.ALLOW}=true",
    ]
    command = ["docker", "run", "--detach", "--init", "--restart", "always", "--name", project, "--entrypoint", "sleep"]
    image = docker_cli.run(listing).split()[0]
    docker_cli.run([*command, *(word for label in labels for word in ("--label", label)), image, "300"])
    yield project
    docker_cli.run(["docker", "rm", "--force", project])


@pytest.mark.nightly("test_attribution has the events of both, and test_daemon_events what Docker sends")
@pytest.mark.skipif(os.geteuid() != 0, reason="faults.crash needs root")
def test_a_restart_by_the_policy_and_one_by_the_api_are_credited_to_their_makers(policed, tmp_path):
    runtime = attached(policed, tmp_path)
    runtime.up()

    def repairer_of(repair, act):
        injected, since_s = Injected(), time.time()
        injected.acts = [Injection(after_s=0.0, fault=act("open").primitive, victim="open")]
        injected.start_unix_s = since_s
        getattr(runtime, act.__name__)("open")
        repair()
        heard = lambda: runtime.events(since_s, time.time())  # noqa: E731 - read again each time
        until(lambda: any(one.action == "start" for one in heard()), "the container started again", 10)
        return repaired_by(injected, heard(), (), runtime.states())

    try:
        assert repairer_of(lambda: None, faults.crash) == "runtime"
        assert repairer_of(lambda: docker_cli.run(["docker", "start", policed]), faults.kill) == "other"
        assert repairer_of(lambda: docker_cli.run(["docker", "restart", "-t", "0", policed]), faults.pause) == "other"
        assert repairer_of(lambda: None, faults.crash) == "runtime"
    finally:
        runtime.down()


def test_what_is_missing_for_taking_part_is_in_one_message(pair, tmp_path):
    runtime = attached(pair, tmp_path, targets=("open", "shut", "gone"), ports=(("open", "", 0),))

    with pytest.raises(NotReady) as caught:
        runtime.prepare()
    runtime.down()

    said = str(caught.value)
    assert "target 'shut' lacks the label llmchaos.allow=true" in said
    assert "llmchaos_targets names 'gone', which has no container" in said
    assert "service 'open' publishes no fixed port" in said
    with pytest.raises(NotReady, match="project 'not-here' has no container"):
        attached("not-here", tmp_path).prepare()


@pytest.mark.sampled  # test_sweep has both, with a fake Docker
@pytest.mark.parametrize("wiped", [False, True], ids=["as it was", "reports wiped by CI"])
def test_orphan_faults_in_an_attached_stack_are_reverted_by_the_cleanup_command(
    pair, tmp_path, capsys, monkeypatch, wiped
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "r"
    runtime = attached(pair, folder)
    runtime.up()
    before = looks(pair)
    journal = Journal(folder / "journal.jsonl")
    about = {"runtime": "compose", "owned": False, "project": pair, "run": "run", "targets": ("open",)}
    about |= {"owner": "1:1:another-boot", "journal": str(journal.path), "directory": str(folder)}
    manifest = notes.note(RunManifest(**about))
    journal.keep_intents(notes.intents_of(manifest))
    notes.keep_as_found(manifest)
    for op in ("ensure_connected", "ensure_unpaused"):
        intend(journal, "open", op)
    runtime.partition("open")
    runtime.pause("open")
    assert looks(pair) != before
    if wiped:
        shutil.rmtree(folder)

    commands.heal(dry_run=True)
    assert f"would remove open faults of {pair}: its owner 1:1:another-boot is gone" in capsys.readouterr().out
    assert runtime.state("open").paused
    commands.heal(dry_run=False)

    assert looks(pair) == before
    assert runtime.released("partition", "open") is not None
    assert list(notes.dead_runs()) == []
    runtime.down()
    journal.close()
