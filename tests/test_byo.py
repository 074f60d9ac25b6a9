"""A user's own stack in ini keys, and an attached stack on the leash."""

import http.server
import json
import os
import subprocess
import threading
from dataclasses import replace

import docker
import pytest
from support.journals import intend, undo
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos.cleanup.watchdog import Watchdog
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.host import identity, measurement_lock, state_dirs
from pytest_llmchaos.prometheus import required_metrics
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.runtime.docker import attach_preflight, docker_cli, members, notes
from pytest_llmchaos.runtime.docker import attached as attach
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings, abilities_of
from pytest_llmchaos.slo.arithmetic import Slo


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


@pytest.mark.parametrize("attach", [False, True])
def test_a_fault_that_only_the_lab_can_prove_or_perform_is_skipped(folder, attach):
    for scraped, able in [((), {"pause"}), (("web",), {"pause", "overload"})]:
        own = subject_of(folder, attach=attach, metrics=scraped)
        settings = Settings(
            run="r",
            seed=1,
            runtime="compose",
            backend="own",
            reports=folder,
            repeat=1,
            worker="",
            replay_line="",
            own=own,
        )
        assert {"pause", "overload", "engine"} & abilities_of(settings) == able


@pytest.fixture
def compose_says(monkeypatch):
    """Output of `docker compose config`."""

    def says(**services):
        text = json.dumps({"name": "shop", "services": services})
        monkeypatch.setattr(docker_cli, "require_engine", lambda: None)
        monkeypatch.setattr(docker_cli, "run", lambda command, **_: text)

    return says


@pytest.fixture
def prometheus():
    """Answer as Prometheus does.

    It has `sampled` by its series and `declared` by its HELP line.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data = [{}] if self.path.endswith("series?match[]=sampled") else {}
            if self.path.endswith("metadata?metric=declared"):
                data = {"declared": [{}]}
            body = json.dumps({"status": "success", "data": data}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def slo_over(good, total):
    return Slo(name="one", objective=0.9, window_days=30, description="", good=good, total=total)


def test_metrics_are_known_by_a_series_or_by_their_declaration(prometheus):
    required_metrics.require_metrics(Prometheus(prometheus), [slo_over('sampled{code="200"}', "declared_total")])


def test_a_metric_without_an_exporter_is_named(prometheus, monkeypatch):
    monkeypatch.setattr(required_metrics, "METRICS_DEADLINE_S", 0.3)

    with pytest.raises(NotReady, match="lacks the metric missing_total of the SLO file"):
        required_metrics.require_metrics(Prometheus(prometheus), [slo_over('missing_total{code="200"}', "sampled")])


def test_counts_of_the_clients_appear_with_the_first_load(prometheus):
    slo = slo_over('llmchaos_client_requests_total{outcome="ok"}', "llmchaos_client_requests_total")

    required_metrics.require_metrics(Prometheus(prometheus), [slo])


SCENARIO = """
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault=faults.kill({target!r}))

def test_one(trial):
    assert trial
"""


@pytest.fixture
def chaos(pytester, folder, monkeypatch):
    """A pytest run in a folder with a stack in its ini file, not to be touched."""

    def refuse(*_, **__):
        raise NotReady("no Docker here")

    def run(*args, attach="false", target="web", **files):
        monkeypatch.setattr("pytest_llmchaos.session.campaign.Campaign.preflight", lambda self: pytest.fail("touched"))
        monkeypatch.setattr(docker_cli, "run", refuse)
        pytester.makeini(
            f"[pytest]\nllmchaos_compose = {folder}/compose.yaml\nllmchaos_slo = {folder}/slo.yaml\n"
            f"llmchaos_api = web\nllmchaos_prometheus = prom\nllmchaos_targets = web worker\nllmchaos_attach = {attach}\n"
        )
        pytester.makepyfile(**(files or {"test_scenario": SCENARIO.format(target=target)}))
        return pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:locust", *args)

    return run


def test_a_stack_of_others_is_only_planned_for_and_the_session_does_not_pass(chaos):
    result = chaos(attach="true")

    result.stdout.fnmatch_lines(["*kill web at +0 s*", "*nothing was touched*"])
    assert (
        "leashed: llmchaos_attach names a stack that already runs, so nothing was injected; add --chaos-unleash"
        in str(result.outlines)
    )
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_workers_do_not_slip_the_leash(chaos):
    result = chaos("-n", "2", attach="true")

    result.stdout.fnmatch_lines(["*kill web at +0 s*", "*nothing was touched*"])
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_requested_plan_is_a_success(chaos):
    assert chaos("--chaos-plan", attach="true").ret == 0


UNIT = "def test_unit():\n    assert True\n"
BY_HAND = "def test_by_hand(lab):\n    assert lab\n"
THROUGH = (
    "import pytest\n\n@pytest.fixture\ndef mine(lab):\n    return lab\n\ndef test_by_hand(mine):\n    assert mine\n"
)


def test_tests_without_a_stack_run_on_the_leash_as_without_it(chaos):
    result = chaos(attach="true", test_unit=UNIT)

    result.assert_outcomes(passed=1)
    assert "leashed" not in str(result.outlines)
    assert result.ret == 0


@pytest.mark.parametrize("text", [BY_HAND, THROUGH], ids=["requested", "requested by a fixture"])
def test_the_leash_holds_a_test_that_uses_the_lab_without_a_trial(chaos, text):
    result = chaos(attach="true", test_unit=UNIT, test_hand=text)

    result.assert_outcomes()
    assert "leashed: llmchaos_attach names a stack that already runs" in str(result.outlines)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_leash_holds_a_test_that_requests_the_lab_while_it_runs(chaos):
    late = "def test_late(request):\n    request.getfixturevalue('lab')\n"

    result = chaos(attach="true", test_late=late)

    result.assert_outcomes(errors=1)
    assert "NotReady: leashed: llmchaos_attach names a stack that already runs" in str(result.outlines)


def test_a_requested_plan_runs_nothing_even_if_there_is_nothing_to_plan(chaos):
    result = chaos("--chaos-plan", attach="true", test_unit=UNIT)

    result.assert_outcomes()
    result.stdout.fnmatch_lines(["0 trials planned*nothing was touched"])


def test_targets_are_those_of_the_ini_file_and_not_of_the_lab(chaos):
    result = chaos("--chaos-plan", target="model-1")

    assert "'model-1' matches no service that may be hit; available: web, worker" in str(
        result.outlines + result.errlines
    )


def test_keys_that_need_docker_are_refused_for_local_processes(chaos):
    result = chaos("--chaos-runtime=local", "--chaos-plan")

    assert "llmchaos_prometheus needs the compose runtime, and the runtime is local: remove the key" in str(
        result.outlines + result.errlines
    )
    assert result.ret != 0


def manifest(project, directory, owner="1:1:another-boot"):
    about = {"runtime": "compose", "owned": False, "journal": str(directory / "journal.jsonl")}
    return RunManifest(project=project, owner=owner, directory=str(directory), **about)


class Left:
    """A runtime that is only closed."""

    def down(self):
        return None


@pytest.fixture
def ending(tmp_path, monkeypatch):
    """A run about to end with one fault in its journal, and its watchdog's messages."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def make(*, attached, undone):
        subject = replace(attach._bare(("web",)), attach=attached)
        about = {"seed": 1, "runtime": "compose", "backend": "own", "repeat": 1, "worker": "", "replay_line": ""}
        run = Run(Settings(run="r", own=subject, reports=tmp_path, **about), None)
        intend(run.journal, "web")
        undo(run.journal, "web", ok=undone)
        if attached:
            run._noted = notes.note(manifest("shop", tmp_path, owner=identity.owner_label()))
        read_fd, write_fd = os.pipe()
        heard = tmp_path / "heard"
        with heard.open("wb") as out:
            process = subprocess.Popen(["cat"], stdin=read_fd, stdout=out)
        os.close(read_fd)
        run._runtime, run._watchdog = Left(), Watchdog(process, write_fd)
        problems = run.close(0)
        reap(process.pid)
        return problems, heard.read_bytes(), list((state_dirs.lasting_dir() / "attached").glob("*.json"))

    return make


def reap(pid):
    """Wait for a child without another waiter."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


def test_an_open_fault_in_an_attached_stack_keeps_the_watchdog_at_work_and_is_reported(ending):
    problems, heard, noted = ending(attached=True, undone=False)

    (said,) = problems
    assert "faults in web are not reverted" in said
    assert "`llmchaos heal`" in said
    assert heard == b""
    assert len(noted) == 1


@pytest.mark.parametrize(
    ("attached", "undone"),
    [
        pytest.param(True, True, id="nothing is open"),
        pytest.param(False, False, id="the stack with the open fault is removed"),
    ],
)
def test_the_watchdog_is_dismissed_if_no_fault_is_open(ending, attached, undone):
    assert ending(attached=attached, undone=undone) == ([], b"clean\n", [])


class Target:
    """A container of an attached stack, as the SDK shows it."""

    id = "0123456789abcdef"

    def __init__(self, service, status="running"):
        self.status = status
        self.name = f"shop-{service}-1"
        self.labels = {members.PROJECT: "shop", members.SERVICE: service, attach_preflight.ALLOW: "true"}
        self.limit = {"Memory": 64}

    @property
    def attrs(self):
        networks = {"net": {"Aliases": [], "IPAMConfig": None}}
        return {"HostConfig": self.limit, "NetworkSettings": {"Networks": networks}}


class Client:
    """The SDK's client, on these containers."""

    def __init__(self, *containers):
        self.containers = self
        self._all = containers

    def list(self, *, filters, ignore_removed=False, **_):
        if not ignore_removed:  # the SDK inspects each that was listed, and one may be removed by then
            raise docker.errors.NotFound("No such container: one that was listed")
        chosen = str(filters["label"]).rpartition("com.docker.compose.service=")
        return [c for c in self._all if not chosen[0] or c.labels.get("com.docker.compose.service", "?") in chosen[2]]

    def close(self):
        return None


@pytest.fixture
def taking_part(tmp_path, monkeypatch):
    """A runtime attached to these containers, with the test's own slot and notes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")
    monkeypatch.setattr(docker_cli, "require_engine", lambda: None)
    monkeypatch.setattr(attach, "EventReader", lambda *_: Reader())

    def make(*containers):
        services = (c.labels.get("com.docker.compose.service") for c in containers)
        subject = attach._bare(tuple(filter(None, services)))
        runtime = attach.AttachedRuntime(
            subject, project="shop", run="run", owner=identity.owner_label(), directory=tmp_path / "r"
        )
        monkeypatch.setattr(runtime, "_new_client", lambda: Client(*containers))
        return runtime

    return make


class Reader:
    """A sink that ignores messages."""

    def start(self):
        return None

    def close(self):
        return None


STOPPED = [
    pytest.param("exited", r"target 'web' does not run \(exited\): start it", id="exited"),
    pytest.param("created", r"target 'web' does not run \(created\): start it", id="created"),
    pytest.param("paused", "target 'web' is paused: unpause it", id="paused"),
]


@pytest.mark.parametrize(("status", "message"), STOPPED)
def test_a_target_that_its_owner_stopped_is_reported_before_anything_starts(taking_part, status, message):
    runtime = taking_part(Target("web", status), Target("worker"))

    with pytest.raises(NotReady, match=f"project shop: {message}.*; nothing was touched") as caught:
        runtime.prepare()

    assert "worker" not in str(caught.value)


@pytest.mark.parametrize(("status", "message"), STOPPED)
def test_a_target_that_was_stopped_since_is_reported_when_the_run_begins(taking_part, status, message):
    web = Target("web")
    runtime = taking_part(web)
    runtime.prepare()
    web.status = status

    with pytest.raises(NotReady, match=message):
        runtime.up()

    assert runtime._found == {}


def test_what_another_run_has_stopped_is_no_reason_to_refuse_but_its_end_is_waited_for(taking_part, tmp_path):
    runtime = taking_part(Target("web", "exited"))
    notes.note(manifest("shop", tmp_path))

    runtime.prepare()

    with pytest.raises(NotReady, match="target 'web' does not run"):
        runtime.up()


def test_a_container_that_carries_the_projects_name_alone_is_no_service_of_it(taking_part):
    bare = Target("web")
    bare.labels = {members.PROJECT: "shop"}
    runtime = taking_part(Target("web"), bare)

    runtime.prepare()

    assert set(runtime._containers()) == {"web"}


def test_notes_of_other_projects_excuse_nothing(taking_part, tmp_path):
    runtime = taking_part(Target("web", "exited"))
    notes.note(manifest("library", tmp_path))
    (state_dirs.lasting_dir() / "attached" / "torn.json").write_text("[")
    (state_dirs.lasting_dir() / "attached" / "odd.json").write_text("[]")

    with pytest.raises(NotReady, match="target 'web' does not run"):
        runtime.prepare()


def test_how_a_stack_of_others_was_found_is_seen_while_no_trial_of_a_sibling_is_on(taking_part):
    web = Target("web")
    runtime = taking_part(web)
    runtime.prepare()

    with measurement_lock.measuring(deadline_s=0.0):
        web.limit = {"Memory": 8}  # a sibling's fault
        attaching = threading.Thread(target=runtime.up)
        attaching.start()
        attaching.join(timeout=0.3)
        assert attaching.is_alive()
        web.limit = {"Memory": 64}
    attaching.join(timeout=30)

    assert runtime._found["web"].memory_bytes == 64
    with measurement_lock.measuring(deadline_s=0.0):
        pass  # it is free again
