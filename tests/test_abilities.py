"""Abilities: faults' `needs`, runtimes' `abilities` and the protocols agree."""

import inspect
import io
import re
import tarfile
import typing
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from support.fake_runtime import FakeRuntime
from support.journals import intend
from support.primitives import PRIMITIVES

from pytest_llmchaos import model
from pytest_llmchaos.errors import HealFailed, InvalidExperiment, Unsupported
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.faults import crash_on_boot, engine_faults
from pytest_llmchaos.model import ABILITIES, UNDO_OPS, Runtime, ServiceState, Undo
from pytest_llmchaos.runtime.abilities import grant
from pytest_llmchaos.runtime.docker import attached
from pytest_llmchaos.runtime.docker.attached import AttachedRuntime
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.docker.docker_cli import Daemon
from pytest_llmchaos.runtime.json_log import parse
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.runtime.undo import revert_until_done
from pytest_llmchaos.subject.lab import lab_subject

NAMES = {**vars(model), **vars(engine_faults), **vars(inspect.getmodule(crash_on_boot))}


def runtimes(directory):
    about = {"project": "llmchaos-1", "run": "r", "owner": "o", "directory": directory}
    return [
        FakeRuntime(),
        *(made(lab_subject("sim"), **about) for made in (ComposeRuntime, AttachedRuntime, LocalRuntime)),
    ]


@pytest.fixture(params=range(4), ids=["fake", "compose", "attached", "local"])
def runtime(request, tmp_path):
    return runtimes(tmp_path)[request.param]


def asked_of(method):
    """Abilities in the annotation of a method's `runtime`, without the common ones."""
    asked = typing.get_type_hints(method, localns=NAMES)["runtime"].__mro__
    beside = Runtime.__mro__ if Runtime in asked else ()
    return {ability for ability, protocol in ABILITIES.items() if protocol in asked and protocol not in beside}


@pytest.mark.parametrize("fault", PRIMITIVES, ids=str)
def test_a_faults_needs_are_those_of_its_methods_and_of_its_undo(fault):
    methods = [getattr(fault.primitive, name) for name in ("inject", "observed", "healed")]
    asked = set().union(*map(asked_of, methods), {UNDO_OPS[fault.primitive.undo("api").op]})

    assert asked_of(fault.primitive.inject), "inject requires an ability"
    assert asked <= fault.needs <= ABILITIES.keys()


def test_a_runtime_has_what_it_claims(runtime):
    assert runtime.abilities <= ABILITIES.keys()
    assert [ability for ability in sorted(runtime.abilities) if not isinstance(runtime, ABILITIES[ability])] == []


def test_a_runtimes_undo_ops_match_its_abilities(runtime):
    assert runtime.undo_ops.keys() == {op for op, ability in UNDO_OPS.items() if ability in runtime.abilities}


def test_a_runtime_without_an_ability_is_not_handed_to_a_fault_that_needs_it(tmp_path):
    fake, *_, local = runtimes(tmp_path)

    assert grant(fake, {"kill", "partition"}, "it") is fake
    with pytest.raises(Unsupported, match="the local runtime cannot limit_cpu, partition, which it needs"):
        grant(local, {"kill", "partition", "limit_cpu"}, "it")


def test_a_dead_runs_stop_is_waited_for_before_it_is_reverted(tmp_path, monkeypatch):
    runtime, states = runtimes(tmp_path)[2], [True, True, False, False]
    started = []

    def state(_, service):
        return ServiceState(service=service, running=states.pop(0), identity="c1")

    monkeypatch.setattr(AttachedRuntime, "_new_client", lambda _: None)
    monkeypatch.setattr(AttachedRuntime, "state", state)
    monkeypatch.setattr(AttachedRuntime, "start", lambda _, service: started.append(service))
    runtime.take_over({}, Daemon(host="unix:///daemon"))

    runtime.undo(Undo(op="ensure_running", service="api", args={"grace_s": 5}))

    assert started == ["api"]


def keep_log(runtime, lines, monkeypatch):
    """Give the remediator's audit log these bytes, or remove the file if None."""
    if isinstance(runtime, FakeRuntime):
        runtime.audit_lines = None if lines is None else parse(lines).lines
    elif isinstance(runtime, LocalRuntime):
        path = runtime._directory / "audit.jsonl"
        runtime._programs = {"remediator": SimpleNamespace(environment={"LAB_AUDIT_FILE": str(path)})}
        path.unlink(missing_ok=True)
        if lines is not None:
            path.write_bytes(lines)
    else:
        monkeypatch.setattr(runtime, "_container", lambda _: SimpleNamespace(get_archive=lambda _: archive(lines)))


def archive(lines):
    """A file of a container as Docker returns it."""
    if lines is None:
        raise docker.errors.NotFound("no such file")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        about = tarfile.TarInfo("audit.jsonl")
        about.size = len(lines)
        tar.addfile(about, io.BytesIO(lines))
    return [made.getvalue()], {}


def test_a_missing_log_is_not_an_empty_one(runtime, monkeypatch):
    keep_log(runtime, None, monkeypatch)
    assert runtime.audit() is None
    keep_log(runtime, b"", monkeypatch)
    assert list(runtime.audit()) == []
    keep_log(runtime, b'{"at": 1.0, "event": "started"}\n', monkeypatch)
    assert list(runtime.audit()) == [{"at": 1.0, "event": "started"}]


def test_a_remediator_without_a_container_has_no_log(tmp_path, monkeypatch):
    for runtime in runtimes(tmp_path)[1:3]:
        monkeypatch.setattr(runtime, "_container", lambda _: None)
        assert runtime.audit() is None


def test_an_undo_that_the_runtime_lacks_is_an_error_at_once(runtime):
    lacks = (
        rf"the {runtime.name} runtime has no undo 'thaw', which the journal names for 'api'; it has .*ensure_running"
    )

    with pytest.raises(HealFailed, match=lacks):
        revert_until_done(runtime, Undo(op="thaw", service="api"), deadline_s=1e9)
    with pytest.raises(HealFailed, match=lacks):
        runtime.undo(Undo(op="thaw", service="api"))


def test_overload_needs_clients_that_exist_only_while_faults_are_injected(tmp_path):
    _, *real = runtimes(tmp_path)

    for one in real:
        one.undo_ops["stop_overload"](Undo(op="stop_overload", service="api"))  # of a dead run: no clients are lent
        with pytest.raises(InvalidExperiment, match=r"api can be overloaded only inside `with lab\.inject"):
            one.overload("api", 2.5, 8)


@pytest.mark.parametrize("value", [{}, {"op": 7, "service": None, "args": "x"}, {"op": "ensure_running", "args": []}])
def test_an_undo_of_any_shape_can_be_read(value):
    assert Undo.from_json(value).args == {}


def test_an_unknown_undo_in_a_dead_runs_journal_does_not_stop_the_others(tmp_path, monkeypatch):
    journal, started = Journal(tmp_path / "journal.jsonl"), []
    for op, service in (("ensure_running", "api"), ("thaw", "api"), ("ensure_running", "model-1")):
        intend(journal, service, op)
    with journal.path.open("a") as file:
        file.write('{"kind": "intent", "fault": "melt", "victim": "model-2", "undo": null}\n')
    down = lambda _, service: ServiceState(service=service, running=False, identity="c1")  # noqa: E731 - one line of a patch
    monkeypatch.setattr(AttachedRuntime, "take_over", lambda *_: None)
    monkeypatch.setattr(AttachedRuntime, "state", down)
    monkeypatch.setattr(AttachedRuntime, "start", lambda _, service: started.append(service))
    (tmp_path / "as_found.json").write_text("{}")
    (tmp_path / "noted").write_text("{}")
    about = {"runtime": "compose", "owned": False, "project": "p", "run": "r", "owner": "o", "targets": ("api",)}
    manifest = RunManifest(journal=str(journal.path), directory=str(tmp_path), noted=str(tmp_path / "noted"), **about)

    with pytest.raises(HealFailed, match=r"the attached runtime has no undo 'thaw'.*restore 'api' by hand") as raised:
        attached.heal(manifest)

    assert started == ["model-1", "api"]
    assert "line 4" in str(raised.value)
    assert "'melt model-2', expected an undo, got None: fix that by hand, " in str(raised.value)


def test_a_run_whose_journal_has_an_unreadable_intent_is_not_forgotten(tmp_path):
    journal, noted = tmp_path / "journal.jsonl", tmp_path / "noted"
    journal.write_text('{"kind": "intent", "fault": "kill", "victim": "api", "undo": "ensure_running"}\n')
    noted.write_text("{}")
    about = {"runtime": "compose", "owned": False, "project": "p", "owner": "o"}
    manifest = RunManifest(journal=str(journal), directory=str(tmp_path), noted=str(noted), **about)

    with pytest.raises(HealFailed, match="announces 'kill api'"):
        attached.heal(manifest)

    assert noted.exists()


def test_the_docs_for_faults_of_ones_own_name_every_ability_and_every_undo():
    text = (Path(__file__).parent.parent / "docs" / "faults.md").read_text()

    assert [word for word in (*ABILITIES, *UNDO_OPS) if not re.search(rf"\b{word}\b", text)] == []
    assert [one.__name__ for one in ABILITIES.values() if f"`{one.__name__}`" not in text] == []
