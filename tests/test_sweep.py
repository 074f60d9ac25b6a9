"""Sweep, `llmchaos heal` and `llmchaos doctor`: orphans of dead runs."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from msgspec.structs import replace
from support.journals import intend, undo
from support.waiting import until

from pytest_llmchaos import cli
from pytest_llmchaos.cleanup import sweep, watchdog
from pytest_llmchaos.errors import EvidenceLost, HealFailed, NotReady
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.host import identity, state_dirs
from pytest_llmchaos.model import ServiceState
from pytest_llmchaos.runtime.docker import attached, docker_cli, notes, removal, restrictions, sdk
from pytest_llmchaos.runtime.local import cleanup, prerequisites
from pytest_llmchaos.session import run
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings, choose_runtime

GONE = f"999999999:5:{identity.boot_id()}:{identity.pid_namespace()}"
ELSEWHERE = f"7:5:{identity.boot_id()}:1"
OTHER_BOOT = "7:5:another:1"
NO_DAEMON = "unix:///nowhere/docker.sock"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Hide all processes, notes and daemons of this machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DOCKER_HOST", NO_DAEMON)
    monkeypatch.setattr(cleanup, "_runs", dict)
    return tmp_path / "state" / "pytest-llmchaos"


@pytest.fixture
def daemon(monkeypatch):
    """A Docker with a stack of each owner. Returns the removed ones."""
    removed = []
    monkeypatch.setattr(docker_cli, "is_wanted", lambda: True)
    monkeypatch.setattr(removal, "remove_dead", lambda project, who, **_: removed.append((project, who)))

    def has(**owners):
        def listed(kind, *_):
            return [
                {"Labels": f"com.docker.compose.project={name},a=b,llmchaos.owner={who}"}
                for name, who in owners.items()
                if kind == "network"
            ]

        monkeypatch.setattr(docker_cli, "list_rows", listed)
        monkeypatch.setattr(docker_cli, "list_images", lambda *_: [])
        return removed

    return has


def docker_that(monkeypatch, folder, script):
    """A docker client that runs this script, alone on PATH."""
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def swept(**options):
    return sweep.sweep_dead_runs(lambda _: None, sweep.InDocker(), **options)


def healed(capsys, *arguments):
    status = cli.main(["heal", *arguments])
    return status, capsys.readouterr().out


STACKS = {
    "llmchaos-gone": GONE,
    "llmchaos-alive": identity.owner_label(),
    "llmchaos-elsewhere": ELSEWHERE,
    "llmchaos-boot": OTHER_BOOT,
    "llmchaos-odd": "odd; $(reboot)",
    "not-ours": GONE,
}


def test_only_stacks_of_dead_runs_are_removed_and_doubtful_ones_are_named_with_the_way_out(daemon, capsys):
    removed = daemon(**STACKS)

    status, said = healed(capsys)

    assert status == 0
    assert removed == [("llmchaos-boot", OTHER_BOOT), ("llmchaos-gone", GONE)]
    alone = [line for line in said.splitlines() if line.startswith("left alone ")]
    assert [line.split()[2] for line in alone] == ["llmchaos-elsewhere:", "llmchaos-odd:"]
    assert f"docker rm -fv $(docker ps -aq --filter label=llmchaos.owner={ELSEWHERE})" in alone[0]
    assert alone[1].count(shlex.quote(f"label=llmchaos.owner={STACKS['llmchaos-odd']}")) == 4
    assert "docker image rm $(docker image ls -q --filter " in alone[1]


IMAGE_LABELS = {"com.docker.compose.project": "llmchaos-gone", "llmchaos.owner": GONE}


def images_that(monkeypatch, folder, name, inspect=""):
    """A Docker that has only an image of this name."""
    about = json.dumps({"Labels": IMAGE_LABELS, "Tags": [name]})
    inspect = inspect or f"echo '{about}'"
    docker_that(
        monkeypatch,
        folder,
        f'case "$1 $2" in "image ls") echo sha256:1;; "image inspect") {inspect};; esac',
    )


def test_a_dead_run_of_which_only_an_image_is_left_is_found(monkeypatch, tmp_path):
    images_that(monkeypatch, tmp_path, "llmchaos-gone-web:latest")

    found = sweep.in_docker()

    assert (found.dead, found.unseen) == ({"llmchaos-gone": GONE}, "")


def test_an_image_that_its_owner_renamed_is_not_an_orphan(monkeypatch, tmp_path):
    images_that(monkeypatch, tmp_path, "my/web:1")

    assert sweep.in_docker().dead == {}


def test_an_image_removed_during_the_check_is_gone(monkeypatch, tmp_path):
    images_that(monkeypatch, tmp_path, "llmchaos-gone-web:latest", "echo 'Error: No such image: 1' >&2; exit 1")

    assert sweep.in_docker() == sweep.InDocker()


def test_an_error_of_docker_about_images_is_reported(monkeypatch, tmp_path):
    images_that(monkeypatch, tmp_path, "llmchaos-gone-web:latest", "echo 'daemon is gone' >&2; exit 1")

    assert "daemon is gone" in sweep.in_docker().unseen


def test_another_boot_is_no_proof_of_death_if_docker_is_on_another_machine(daemon, capsys, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2376")
    removed = daemon(**STACKS)

    _, said = healed(capsys)

    assert removed == [("llmchaos-gone", GONE)]
    assert "left alone llmchaos-boot" in said


def test_a_dry_run_prints_the_same_and_removes_nothing(daemon, capsys):
    removed = daemon(**STACKS)

    status, said = healed(capsys, "--dry-run")

    assert (status, removed) == (1, [])
    assert "would remove llmchaos-gone: its owner" in said
    assert "2 orphans found; nothing was removed" in said
    assert "left alone llmchaos-elsewhere" in said


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_a_machine_without_an_answer_of_docker_is_not_clean(capsys, monkeypatch, tmp_path, arguments):
    docker_that(monkeypatch, tmp_path, "echo 'Cannot connect to the Docker daemon' >&2; exit 1")

    status, said = healed(capsys, *arguments)

    assert status == 1
    assert "Docker was not checked: `docker container ls" in said
    assert "Cannot connect to the Docker daemon" in said
    assert "found outside Docker" in said


def test_without_docker_only_its_absence_is_reported(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST")

    status, said = healed(capsys)

    assert status == 0
    assert said == (
        "Docker was not checked: the docker client is not on PATH and DOCKER_HOST is not set\n"
        "no orphans found outside Docker\n"
    )


def test_a_docker_host_without_a_client_is_reported_as_not_checked(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    status, said = healed(capsys)

    assert status == 1
    assert "Docker was not checked: the docker client is not on PATH" in said


def doctors(capsys):
    cli.main(["doctor"])
    return capsys.readouterr().out.splitlines()


def test_the_doctor_reports_as_clean_only_what_was_checked(daemon, capsys, monkeypatch):
    monkeypatch.setattr(docker_cli, "require_engine", lambda: None)
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: "1")
    daemon(**{"llmchaos-alive": identity.owner_label()})
    assert "ok    no orphans of dead runs" in doctors(capsys)

    daemon(**STACKS)
    said = doctors(capsys)
    assert "bad   orphans of dead runs: llmchaos-boot, llmchaos-gone; `llmchaos heal` removes them" in said
    assert any(line.startswith("note  possible orphans: llmchaos-elsewhere, llmchaos-odd;") for line in said)

    monkeypatch.setattr(sweep, "in_docker", lambda: sweep.InDocker(unseen="it sleeps"))
    said = doctors(capsys)
    unknown = "note  Docker was not checked for orphans: it sleeps; run this again once Docker responds"
    assert unknown in said
    assert not [line for line in said if "no orphans" in line]


@pytest.fixture
def machine(daemon, monkeypatch, tmp_path):
    """A machine with all that the local runtime needs. Tests remove parts of it."""
    monkeypatch.setattr(docker_cli, "require_engine", lambda: None)
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: "1")
    daemon()
    for program in ("prometheus", "prometheus-pushgateway", "ollama"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "model.gguf").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LLMCHAOS_WEIGHTS", str(tmp_path / "model.gguf"))
    monkeypatch.setattr(prerequisites.extras.importlib.util, "find_spec", lambda _: "there")
    return tmp_path


def of_local(capsys):
    return [line for line in doctors(capsys) if "local runtime" in line]


def test_the_doctor_reports_that_the_local_runtime_can_run_here(machine, capsys):
    (line,) = of_local(capsys)

    assert line == (
        f"ok    local runtime with sim, llamacpp, ollama; prometheus is {machine}/prometheus, "
        f"prometheus-pushgateway is {machine}/prometheus-pushgateway"
    )


def test_the_doctor_names_each_program_that_the_local_runtime_lacks_and_how_to_get_it(machine, capsys):
    (machine / "prometheus").unlink()
    (machine / "prometheus-pushgateway").unlink()

    status = cli.main(["doctor"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "local runtime" in line)

    assert status == 0  # a machine with Docker needs none of it
    assert line.startswith("note  the local runtime lacks prometheus: a run fetches it if apt-get can, else ")
    assert "Debian or Ubuntu: `apt-get install prometheus`" in line
    assert "; prometheus-pushgateway: a run fetches it" in line
    assert not (machine / "cache").exists()  # nothing was fetched


def test_the_doctor_names_the_packages_that_the_local_runtime_lacks(machine, capsys, monkeypatch):
    monkeypatch.setattr(
        prerequisites.extras.importlib.util, "find_spec", lambda name: None if name == "supervisor" else "there"
    )

    (line,) = of_local(capsys)

    assert line.startswith("note  the local runtime needs supervisor in ")
    assert line.endswith("pip install 'pytest-llmchaos[local]'")


def test_the_doctor_names_what_a_backend_of_the_local_runtime_lacks(machine, capsys, monkeypatch):
    monkeypatch.setattr(
        prerequisites.extras.importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else "there"
    )
    monkeypatch.delenv("LLMCHAOS_WEIGHTS")
    (machine / "ollama").unlink()

    ok, llamacpp, ollama = of_local(capsys)

    assert ok.startswith("ok    local runtime with sim; prometheus is ")
    assert llamacpp.startswith("note  local runtime with llamacpp: the local runtime needs xllamacpp in ")
    assert "the model's weights: a run downloads them (100 MB), else set LLMCHAOS_WEIGHTS" in llamacpp
    assert ollama.startswith("note  local runtime with ollama: ollama is not on PATH: install it")
    monkeypatch.setenv("LLMCHAOS_WEIGHTS", "/nowhere.gguf")
    assert "LLMCHAOS_WEIGHTS must name a .gguf file, got '/nowhere.gguf'" in of_local(capsys)[1]


@pytest.mark.parametrize(
    ("docker", "status"),
    [
        pytest.param(sweep.InDocker(), 0, id="clean"),
        pytest.param(sweep.InDocker(dead={"llmchaos-gone": GONE}), 1, id="an orphan"),
        pytest.param(sweep.InDocker(doubtful={"llmchaos-elsewhere": ELSEWHERE}), 0, id="a doubtful one"),
        pytest.param(sweep.InDocker(unseen="it sleeps"), 1, id="not looked at"),
    ],
)
@pytest.mark.parametrize("command", [("doctor",), ("heal", "--dry-run")], ids=" ".join)
def test_the_exit_status_is_0_only_on_a_clean_machine(monkeypatch, capsys, docker, status, command):
    monkeypatch.setattr(docker_cli, "is_wanted", lambda: True)
    monkeypatch.setattr(docker_cli, "require_engine", lambda: None)
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: "1")
    monkeypatch.setattr(sweep, "in_docker", lambda: docker)

    assert cli.main(command) == status


def test_a_cleanup_that_leaves_something_ends_with_status_1(daemon, monkeypatch, capsys):
    daemon(**STACKS)

    def refuse(*_, **__):
        raise NotReady("has active endpoints")

    monkeypatch.setattr(removal, "remove_dead", refuse)

    status, said = healed(capsys)

    assert status == 1
    assert "not removed llmchaos-gone: has active endpoints" in said
    assert "removed 0, failed to remove 2" in said
    assert "left alone llmchaos-elsewhere" in said


def test_a_daemon_that_hangs_is_not_ready(capsys, monkeypatch, tmp_path):
    docker_that(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(docker_cli, "ANSWER_DEADLINE_S", 0.1)
    monkeypatch.setattr(docker_cli, "list_rows", lambda *_: pytest.fail("would wait again"))
    monkeypatch.setattr(sweep, "in_docker", lambda: sweep.InDocker(unseen="it hangs"))
    hangs = f"the Docker daemon at {NO_DAEMON} did not answer within 0.1 s"

    with pytest.raises(NotReady, match=hangs):
        docker_cli.require_engine()

    assert choose_runtime("auto") == ("local", hangs)
    assert doctors(capsys)[0].startswith(f"bad   {hangs}")


def test_a_compose_that_hangs_is_not_ready(monkeypatch, tmp_path):
    docker_that(monkeypatch, tmp_path, '[ "$1" = version ] || exec sleep 60')
    monkeypatch.setattr(docker_cli, "ANSWER_DEADLINE_S", 0.5)

    with pytest.raises(NotReady, match="did not answer"):
        docker_cli.require_engine()


def test_a_context_that_hangs_is_not_ready(monkeypatch):
    def hang(command, **_):
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(subprocess, "run", hang)
    monkeypatch.setattr(docker_cli.shutil, "which", lambda _: "docker")

    with pytest.raises(NotReady, match=r"docker context inspect.*set DOCKER_HOST"):
        docker_cli._of_context.__wrapped__()


# Notes of attached runs


def noted(directory, **changes):
    """The note of an attached run with one open fault."""
    directory.mkdir(exist_ok=True)
    journal = Journal(directory / "journal.jsonl")
    intend(journal, "web")
    journal.close()
    (directory / "as_found.json").write_text("{}")
    about = {"runtime": "compose", "owned": False, "owner": GONE, "project": "shop", "run": "r", "targets": ("web",)}
    manifest = notes.note(RunManifest(**about, journal=str(journal.path), directory=str(directory)))
    path = state_dirs.lasting_dir() / "attached" / manifest.noted.rpartition("/")[2]
    if changes:
        path.write_text(replace(manifest, **changes).to_json())
    return path


def test_a_note_outlives_a_logout_and_is_this_users_alone(state, tmp_path, monkeypatch):
    state.mkdir(parents=True, mode=0o755)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()))

    path = noted(tmp_path / "r")

    assert path.is_relative_to(state)
    assert state.stat().st_mode & 0o777 == 0o700
    assert synced[-2:] == [path.with_suffix(".new"), path.parent]
    assert [manifest.daemon for manifest in notes.dead_runs()] == [NO_DAEMON]
    assert list(notes.doubtful_runs()) == []


@pytest.mark.parametrize("state", ["", "relative/folder"])
def test_notes_are_kept_at_home_by_default(tmp_path, monkeypatch, state):
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert state_dirs.lasting_dir() == tmp_path / ".local" / "state" / "pytest-llmchaos"


def test_a_note_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))

    assert list(notes.dead_runs()) == []
    with pytest.raises(NotReady, match=r"cannot use .*set XDG_STATE_HOME to a folder of your own"):
        state_dirs.lasting_dir()


def test_notes_of_another_user_are_ignored(tmp_path, monkeypatch):
    noted(tmp_path / "r")
    assert list(notes.dead_runs()) != []

    monkeypatch.setattr(os, "geteuid", lambda: 65533)

    assert list(notes.dead_runs()) == []
    with pytest.raises(NotReady, match="belongs to another user"):
        state_dirs.lasting_dir()


def test_a_note_of_another_machine_is_left_alone(tmp_path, capsys, monkeypatch):
    path = noted(tmp_path / "r", owner=OTHER_BOOT, machine="another")
    monkeypatch.setattr(sweep, "in_docker", sweep.InDocker)

    status, said = healed(capsys)

    assert status == 0
    assert f"left alone open faults of shop: its owner {OTHER_BOOT} may still live" in said
    assert f"revert its faults by hand, then `rm -rf {path} {path.with_suffix('')}` forgets the run" in said
    assert path.exists()


def test_a_note_from_before_the_last_boot_of_this_machine_is_of_a_dead_run(tmp_path):
    noted(tmp_path / "r", owner=OTHER_BOOT)

    assert [manifest.project for manifest in notes.dead_runs()] == ["shop"]


def test_a_note_of_an_earlier_version_is_read(tmp_path):
    path = noted(tmp_path / "r")
    was = {"runtime": "compose", "project": "shop", "owner": GONE, "owned": False, "journal": "/r/journal.jsonl"}
    was |= {"directory": "/r", "run": "r", "targets": ["web"], "noted": str(path), "daemon": NO_DAEMON}
    path.write_text(json.dumps({**was, "machine": identity.machine(), "unheard of": [1]}))

    (manifest,) = notes.dead_runs()

    assert (manifest.project, manifest.targets, manifest.daemon) == ("shop", ("web",), NO_DAEMON)


def test_a_note_has_room_for_a_folder_whose_name_is_not_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b'caf\xe9 "quoted"')
    noted(folder)

    (manifest,) = notes.dead_runs()

    assert manifest.directory == str(folder)


class Shop:
    """Docker with project `shop`, as a dead run's undos see it."""

    def __init__(self, monkeypatch, *services):
        self.done = []
        self.lost = set(services)

        def act(name):
            return lambda _, service: self.done.append(f"{name} {service}") or self.lost.discard(service)

        def state(_, service):
            return ServiceState(service=service, running=service not in self.lost, identity="c1")

        monkeypatch.setattr(attached.AttachedRuntime, "_new_client", lambda _: None)
        monkeypatch.setattr(attached.AttachedRuntime, "wire_disarm", lambda _: None)
        monkeypatch.setattr(attached.AttachedRuntime, "state", state)
        monkeypatch.setattr(attached.AttachedRuntime, "start", act("start"))
        monkeypatch.setattr(
            attached.AttachedRuntime, "release", lambda _, kind, service: self.done.append(f"{kind} {service}")
        )


def attached_run(folder, *intents):
    """The note of an attached run that died with these intents open."""
    folder.mkdir(exist_ok=True)
    about = {"runtime": "compose", "owned": False, "owner": GONE, "project": "shop", "run": "r", "targets": ("web",)}
    journal = Journal(folder / "journal.jsonl")
    manifest = notes.note(RunManifest(**about, journal=str(journal.path), directory=str(folder)))
    journal.keep_intents(notes.intents_of(manifest))
    found = restrictions.AsFound(networks={}, cpus_nano=0, cpu_quota_us=0, memory_bytes=8, swap_bytes=8)
    restrictions.keep(folder / "as_found.json", {"web": found})
    notes.keep_as_found(manifest)
    for op in intents:
        intend(journal, "web", op)
    journal.close()
    return manifest


class TestFolderOfReportsThatWasWiped:
    """CI jobs remove the folder between two runs."""

    def test_open_faults_are_still_reverted(self, tmp_path, monkeypatch):
        attached_run(tmp_path / "r", "ensure_running", "ensure_memory")
        shop = Shop(monkeypatch, "web")
        shutil.rmtree(tmp_path / "r")

        assert swept() == (("open faults of shop",), ())

        assert shop.done == ["limit_memory web", "start web"]
        assert list(notes.dead_runs()) == []
        assert list(state_dirs.lasting_dir().rglob("*.json*")) == []

    def test_a_reverted_fault_is_not_reverted_again(self, tmp_path, monkeypatch):
        manifest = attached_run(tmp_path / "r", "ensure_running")
        journal = Journal(tmp_path / "r" / "journal.jsonl")
        journal.keep_intents(notes.intents_of(manifest))
        undo(journal, "web")
        shutil.rmtree(tmp_path / "r")
        shop = Shop(monkeypatch, "web")

        assert swept() == (("open faults of shop",), ())
        assert shop.done == []

    def test_without_a_journal_a_session_keeps_the_note_and_changes_nothing(self, tmp_path, monkeypatch):
        manifest = attached_run(tmp_path / "r", "ensure_running")
        shop = Shop(monkeypatch, "web")
        shutil.rmtree(tmp_path / "r")
        notes.intents_of(manifest).unlink()

        removed, (problem,) = swept()

        assert (removed, shop.done) == ((), [])
        assert f"the journal {manifest.journal} of run r is gone, so its open faults" in problem
        assert Path(manifest.noted).exists()

    def test_cleanup_by_hand_restores_the_targets_and_keeps_the_note(self, tmp_path, monkeypatch, capsys):
        manifest = attached_run(tmp_path / "r", "ensure_running")
        shop = Shop(monkeypatch, "web")
        shutil.rmtree(tmp_path / "r")
        notes.intents_of(manifest).unlink()
        monkeypatch.setattr(sweep, "in_docker", sweep.InDocker)

        status, said = healed(capsys)

        assert status == 1
        assert shop.done == ["start web", "partition web", "limit_cpu web", "limit_memory web"]
        assert "not removed open faults of shop: the journal" in said
        assert Path(manifest.noted).exists()

    def test_unknown_original_settings_do_not_count_as_restored(self, tmp_path, monkeypatch):
        manifest = attached_run(tmp_path / "r", "ensure_memory", "ensure_running")
        shop = Shop(monkeypatch, "web")
        shutil.rmtree(tmp_path / "r")
        (notes.intents_of(manifest).parent / "as_found.json").unlink()

        removed, (problem,) = swept()

        assert (removed, shop.done) == ((), ["start web"])
        assert "ensure_memory web: the original settings of web are no longer known" in problem


def test_a_run_that_its_watchdog_reverts_meanwhile_is_not_a_failure(tmp_path, monkeypatch):
    manifest = attached_run(tmp_path / "r", "ensure_memory", "ensure_running")
    shop = Shop(monkeypatch, "web")
    shutil.rmtree(tmp_path / "r")
    (notes.intents_of(manifest).parent / "as_found.json").unlink()
    start = attached.AttachedRuntime.start
    monkeypatch.setattr(
        attached.AttachedRuntime, "start", lambda self, service: (start(self, service), notes.forget(manifest))
    )

    assert swept() == (("open faults of shop",), ())
    assert shop.done == ["start web"]


def test_an_intent_that_cannot_be_kept_is_not_carried_out(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.keep_intents(Path("/dev/full"))

    with pytest.raises(EvidenceLost, match="'intent' cannot be written to /dev/full"):
        intend(journal, "web")

    assert journal.path.read_text() == ""


def test_a_note_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys):
    path = noted(tmp_path / "r")
    path.write_text('{"runtime": "comp')
    monkeypatch.setattr(sweep, "in_docker", sweep.InDocker)

    _, said = healed(capsys, "--dry-run")

    assert f"left alone the note {path} of an attached run: expected the manifest of a run" in said
    assert f"then rm {path}" in said


def test_faults_are_reverted_at_the_daemon_of_the_dead_run(tmp_path, monkeypatch):
    noted(tmp_path / "r")
    asked = []

    class Client:
        def __init__(self, *, base_url, timeout):
            asked.append((base_url, timeout))
            self.containers = self

        def list(self, **_):
            return []

        def close(self):
            return None

    monkeypatch.setattr(sdk, "connect", lambda daemon: Client(base_url=daemon.host, timeout=1))
    monkeypatch.setenv("DOCKER_HOST", "unix:///another/docker.sock")

    assert swept() == (("open faults of shop",), ())
    assert [address for address, _ in asked] == [NO_DAEMON]
    assert list(notes.dead_runs()) == []


def test_a_dead_run_that_cannot_be_reverted_does_not_stop_other_removals(tmp_path, monkeypatch):
    noted(tmp_path / "r")
    removed = []

    def refuse(manifest, **_):
        raise HealFailed(f"{manifest.run} is beyond repair")

    monkeypatch.setattr(attached, "heal", refuse)
    dead = cleanup.DeadRun(project="llmchaos-1-abcd", directory=tmp_path, why="its owner is gone")
    monkeypatch.setattr(cleanup, "dead_runs", lambda: [dead])
    monkeypatch.setattr(cleanup, "remove_run", lambda project, _: removed.append(project))

    assert swept() == (("llmchaos-1-abcd",), ("open faults of shop: r is beyond repair",))
    assert removed == ["llmchaos-1-abcd"]


@pytest.mark.parametrize(
    "error",
    [NotReady("`docker network rm` ended with 1: has active endpoints"), OSError("busy")],
    ids=["docker", "system"],
)
def test_an_orphan_that_cannot_be_removed_does_not_stop_other_removals(tmp_path, monkeypatch, error):
    runs = [cleanup.DeadRun(project=name, directory=tmp_path, why="its owner is gone") for name in ("stuck", "free")]
    removed = []

    def remove(project, _):
        if project == "stuck":
            raise error
        removed.append(project)

    monkeypatch.setattr(cleanup, "dead_runs", lambda: runs)
    monkeypatch.setattr(cleanup, "remove_run", remove)

    assert swept() == (("free",), (f"stuck: {error}",))
    assert removed == ["free"]


class TestOrphanThatStays:
    """A network that Docker cannot remove, as with Docker 20.10's endpoint bug."""

    def swept(self, tmp_path, monkeypatch, *, attach):
        notes = []
        settings = Settings(
            run="r", seed=1, runtime="compose", backend="sim", reports=tmp_path, repeat=1, worker="", replay_line=""
        )
        opened = Run(settings, Progress(lambda text, _: notes.append(text), tty=False))
        opened.subject = dataclasses.replace(opened.subject, attach=attach)

        stays = sweep.Swept(failed=("stuck: has active endpoints", "other: busy"))
        monkeypatch.setattr(run.sweep, "in_docker", sweep.InDocker)
        monkeypatch.setattr(run.sweep, "sweep_dead_runs", lambda *_: stays)
        opened._sweep("shop")
        return notes

    def test_an_orphan_that_stays_is_one_line_for_the_next_session(self, tmp_path, monkeypatch):
        stuck, other = self.swept(tmp_path, monkeypatch, attach=False)

        assert "could not remove an orphan, the run continues: stuck: has active endpoints" in stuck
        assert "other: busy" in other

    def test_ends_a_session_on_the_very_stack_whose_fault_is_open(self, tmp_path, monkeypatch):
        noted(tmp_path / "r")

        with pytest.raises(HealFailed, match="stuck"):
            self.swept(tmp_path, monkeypatch, attach=True)


@pytest.mark.parametrize("runtime", ["local", "compose"])
def test_a_session_of_the_local_runtime_ignores_orphans_in_docker(tmp_path, monkeypatch, runtime):
    settings = Settings(
        run="r", seed=1, runtime=runtime, backend="sim", reports=tmp_path, repeat=1, worker="", replay_line=""
    )
    noted(tmp_path / "r")
    asked = []
    monkeypatch.setattr(sweep, "in_docker", lambda: asked.append("daemon") or sweep.InDocker())
    monkeypatch.setattr(attached, "heal", lambda *_, **__: asked.append("open faults"))

    Run(settings, Progress(None, tty=False))._sweep("llmchaos-1")

    assert asked == ([] if runtime == "local" else ["daemon", "open faults"])


class TestRemovalThatDoesNotEnd:
    """A container whose removal by Docker does not end."""

    @pytest.fixture(autouse=True)
    def stuck(self, monkeypatch):
        def run(command, **_):
            if command[1] == "ps":
                return "f00d shop-web-1\n"
            if command[1] == "rm":
                raise NotReady("`docker rm` ended with 1: Error: removal of container f00d is already in progress")
            return ""

        monkeypatch.setattr(docker_cli, "run", run)
        monkeypatch.setattr(removal, "end_compose", lambda _: None)
        monkeypatch.setattr(removal, "STRAGGLER_S", 0.001)

    @pytest.mark.parametrize("remove", [removal.remove_dead, removal.remove_owned])
    def test_a_removal_that_does_not_end_has_a_deadline_and_lists_the_rest(self, remove):
        with pytest.raises(NotReady, match=r"removal of container shop-web-1 of shop within 0\.05 s: `docker rm -f`"):
            remove("shop", GONE, deadline_s=0.05)


@pytest.mark.parametrize(
    "said", ["Error: No such container: a\nError: removal of b is already in progress", "Error: c: device busy"]
)
def test_a_missing_object_hides_no_other_error(monkeypatch, said):
    def run(command, **_):
        if command[1] == "ps":
            return "a one\n"
        raise (
            NotReady(f"`docker rm` ended with 1: Error: No such container: a\n{said}")
            if command[1] == "rm"
            else AssertionError
        )

    monkeypatch.setattr(
        docker_cli, "run", lambda command, **_: "" if command[1] in {"network", "volume", "image"} else run(command)
    )

    with pytest.raises(NotReady, match="did not finish" if "progress" in said else "device busy"):
        removal.remove_owned("shop", GONE, deadline_s=0.0)


def test_an_orphan_of_a_name_that_a_live_run_has_too_is_left_alone(daemon, capsys, monkeypatch):
    rows = [
        {"Labels": f"com.docker.compose.project=llmchaos-1,llmchaos.owner={who}"}
        for who in (GONE, identity.owner_label())
    ]
    removed = daemon()
    monkeypatch.setattr(docker_cli, "list_rows", lambda *_: rows)

    assert healed(capsys) == (0, "no orphans found\n")
    assert removed == []


def test_a_compose_command_is_matched_by_its_whole_project_name():
    def command(project):
        words = ("docker", "compose", "-p", project, "up")
        echo = "import sys; [print(line, end='', flush=True) for line in sys.stdin]"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", echo, *words], text=True, **pipes)

    dead, sibling = command("llmchaos-1-abcd"), command("llmchaos-1-abcd-gw1")
    try:
        for one in (dead, sibling):
            until(lambda one=one: b"compose" in Path(f"/proc/{one.pid}/cmdline").read_bytes(), "the command's words", 5)

        removal.end_compose("llmchaos-1-abcd")

        assert dead.wait(timeout=5) == -signal.SIGKILL
        sibling.stdin.write("here\n")  # a process that was killed answers nothing more
        sibling.stdin.flush()
        assert sibling.stdout.readline() == "here\n"
    finally:
        for one in (dead, sibling):
            one.kill()
            one.communicate()


def test_only_a_helper_process_that_lives_is_ended(tmp_path, monkeypatch):
    journal, ended = Journal(tmp_path / "journal.jsonl"), []
    me = os.getpid()
    for pid, started in ((0, ""), (-1, ""), (me, ""), (me, "1"), (me, identity.process_started(me))):
        journal.write(lines.Process(trial="001", pid=pid, started=started))
    with journal.path.open("a") as file:
        file.write('{"at_unix_s": 1, "kind": "process", "trial": "001", "pid": "me", "started": 7}\n')
    monkeypatch.setattr(os, "killpg", lambda pid, number: ended.append((pid, number)))

    watchdog.kill_processes(journal.path)

    assert ended == [(me, signal.SIGKILL)]


def test_the_watchdog_reverts_faults_in_an_attached_stack_and_removes_nothing(tmp_path, monkeypatch):
    manifest, removed = attached_run(tmp_path / "r", "ensure_running", "ensure_memory"), []
    shop = Shop(monkeypatch, "web")
    monkeypatch.setattr(removal, "remove_dead", lambda *which, **_: removed.append(which))

    watchdog.clean_up(manifest)

    assert shop.done == ["limit_memory web", "start web"]
    assert removed == []
    assert list(notes.dead_runs()) == []


def test_only_process_lines_of_a_long_journal_are_decoded(tmp_path, monkeypatch):
    journal, decoded = Journal(tmp_path / "journal.jsonl"), []
    for number in range(3):
        journal.write(lines.Event(trial="001", at_s=number, source="runtime", what="api die"))
    journal.write(lines.Process(trial="001", pid=0, started=""))
    line_of = watchdog.journal.line_of
    monkeypatch.setattr(watchdog.journal, "line_of", lambda value: decoded.append(value["kind"]) or line_of(value))

    watchdog.kill_processes(journal.path)

    assert decoded == ["process"]


def test_cpu_time_is_restored_at_the_daemon_of_the_dead_run(monkeypatch):
    environments = []
    monkeypatch.setattr(docker_cli, "run", lambda _, env: environments.append(env))
    found = restrictions.AsFound(networks={}, cpus_nano=10**9, cpu_quota_us=0, memory_bytes=0, swap_bytes=0)
    container = type("Container", (), {"id": "f00d"})

    restrictions._give_back_cpu(container, found, docker_cli.Daemon(host="unix:///theirs.sock"))
    restrictions._give_back_cpu(container, found, None)

    assert [env["DOCKER_HOST"] for env in environments] == ["unix:///theirs.sock", NO_DAEMON]


def test_a_missing_daemon_does_not_count_as_reverted(tmp_path, monkeypatch):
    class Refuses:
        def __init__(self, **_):
            raise docker.errors.DockerException("Error while fetching server API version")

    path = noted(tmp_path / "r")
    monkeypatch.setattr(docker, "APIClient", Refuses)

    removed, (problem,) = swept()

    assert removed == ()
    assert f"the Docker daemon at {NO_DAEMON} does not answer: Error while fetching server API version" in problem
    assert "project shop runs there" in problem
    assert f"unless the stack is gone for good; then `rm -rf {path} {path.with_suffix('')}` forgets the run" in problem
    assert path.exists()


def test_a_local_run_that_cannot_be_seen_is_named_with_its_processes(tmp_path, monkeypatch, capsys):
    project = identity.project_name(7)
    monkeypatch.setattr(cleanup, "_runs", lambda: {(project, str(tmp_path), ELSEWHERE): {12, 11}})
    monkeypatch.setattr(sweep, "in_docker", sweep.InDocker)

    _, said = healed(capsys)

    assert f"left alone {project}: its owner {ELSEWHERE} may still live" in said
    assert f"kill -KILL 11 12; rm -r {tmp_path}/local/{project}" in said
