"""A worker's run: start, waits, interruptions, problems and the report folder."""

import dataclasses
import errno
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.fake_runtime import FakeRuntime
from support.journals import intend
from support.server_pages import page_with

from pytest_llmchaos import cli, experiment, faults, loads
from pytest_llmchaos.chaos_session.terminal import fitted
from pytest_llmchaos.cleanup.sweep import Swept
from pytest_llmchaos.errors import EvidenceLost, InvalidExperiment, NotReady
from pytest_llmchaos.evidence import journal
from pytest_llmchaos.evidence.journal import open_intents
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.loadgen.status import LoadStatus
from pytest_llmchaos.model import Sample
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.preflight import ScrapedServer
from pytest_llmchaos.session import run as sessions
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings
from pytest_llmchaos.subject.headers import headers_of
from pytest_llmchaos.subject.lab import Endpoint
from pytest_llmchaos.subject.requests import Requests
from pytest_llmchaos.trial.perform import Performed


class TimedOut(BaseException):
    """An error that a plugin raises at any time, as pytest-timeout does."""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")
    about = {"runtime": "compose", "backend": "sim", "repeat": 1, "worker": "", "replay_line": "pytest"}
    return Settings(run="r", seed=1, reports=tmp_path, **about)


@pytest.fixture
def plan():
    made = experiment(load=loads.open_loop(rate_rps=2), fault=faults.kill("api")).kwargs["experiment"]
    return plan_trial(
        scenario="s", hypothesis="", experiment=made, fault=made.faults[0], repeat=0, seed=1, services=("api",)
    )


class Stack(FakeRuntime):
    """The fake with a start and a removal."""

    def prepare(self):
        pass

    up = down = lambda *_, **__: None

    def url(self, service):
        return f"http://{service}"

    def images(self):
        return {}


@pytest.fixture
def run(settings, monkeypatch, tmp_path):
    """A run with a fake stack and its own state folder, without a watchdog."""
    dog = SimpleNamespace(dismiss=lambda: None, leave=lambda: None)
    monkeypatch.setattr(sessions, "make_runtime", lambda *_, **__: Stack())
    monkeypatch.setattr(sessions.sweep, "sweep_dead_runs", lambda *_, **__: Swept())
    monkeypatch.setattr(sessions.watchdog, "start", lambda *_: dog)
    monkeypatch.setattr(sessions.notes, "note", lambda manifest: manifest)
    monkeypatch.setattr(sessions.notes, "intents_of", lambda _: tmp_path / "kept.jsonl")
    for name in ("keep_as_found", "forget"):
        monkeypatch.setattr(sessions.notes, name, lambda _: None)
    for name in ("dead_runs", "unreadable"):
        monkeypatch.setattr(sessions.notes, name, dict)
    made = Run(settings, Progress(None, tty=False))
    yield made
    if made.opened:
        made.close(0)


@pytest.fixture
def sigterm_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def test_notices_about_a_stack_are_printed_before_it_is_checked(run, monkeypatch):
    printed = []
    run.progress = Progress(lambda text, _: printed.append(text), tty=False)
    run.subject = dataclasses.replace(run.subject, own=True)
    monkeypatch.setattr(
        sessions.own_checks.preflight, "examine", lambda subject: dataclasses.replace(subject, notices=("it restarts",))
    )

    run.preflight()

    assert printed == ["it restarts"]


def test_a_variable_that_a_header_needs_is_missing_before_anything_starts(run, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    requests = Requests(headers=headers_of(["Authorization: Bearer $NOT_SET"]))
    run.subject = dataclasses.replace(run.subject, own=True, requests=requests)
    monkeypatch.setattr(sessions.own_checks.preflight, "examine", lambda subject: subject)

    with pytest.raises(NotReady, match="Authorization needs the environment variable NOT_SET"):
        run.preflight()


def test_the_first_request_makes_metrics_appear_that_are_required_then(run, monkeypatch):
    order = []
    run.subject = dataclasses.replace(run.subject, own=True)
    monkeypatch.setattr(sessions.own_checks.preflight, "examine", lambda subject: subject)
    monkeypatch.setattr(sessions, "require_answer", lambda url, *_: order.append(url))
    monkeypatch.setattr(sessions, "require_metrics", lambda *_, **__: order.append("metrics"))

    run.lab()

    assert order == ["http://api", "metrics"]


def test_bounds_that_are_no_edge_are_printed_before_the_first_trial(run, monkeypatch):
    printed = []
    run.progress = Progress(lambda text, _: printed.append(text), tty=False)
    run.subject = dataclasses.replace(run.subject, own=True)
    monkeypatch.setattr(sessions.own_checks.preflight, "examine", lambda subject: subject)
    monkeypatch.setattr(sessions, "require_answer", lambda *_: None)
    monkeypatch.setattr(sessions, "require_metrics", lambda *_, **__: None)
    monkeypatch.setattr(sessions, "coarse_bounds", lambda _, slos: (f"the first of {len(slos)} is coarse",))

    run.lab()

    assert any(line.endswith("the first of 7 is coarse") for line in printed)


def test_what_is_wrong_with_a_stack_that_is_up_is_one_message(run, monkeypatch):
    def refuse(what):
        def check(*_, **__):
            raise NotReady(what)

        return check

    scrapes = (Endpoint(service="web"),)
    run.subject = dataclasses.replace(run.subject, own=True, scrapes=scrapes, alerts=Endpoint(service="prom"))
    monkeypatch.setattr(sessions.own_checks.preflight, "examine", lambda subject: subject)
    monkeypatch.setattr(sessions, "require_metrics", lambda *_, **__: pytest.fail("appear only after an answer"))
    for name in ("require_answer", "require_scrapes", "require_rules"):
        monkeypatch.setattr(sessions, name, refuse(name))

    with pytest.raises(NotReady) as refused:
        run.lab()

    assert str(refused.value).splitlines() == ["require_answer", "require_scrapes", "require_rules"]


def test_model_servers_of_a_stack_are_known_before_its_metrics_are_required(run, monkeypatch):
    order, known = [], (ScrapedServer(service="model", page=page_with(), server=servers()["vllm"]),)
    scrapes = (Endpoint(service="model"),)
    run.subject = dataclasses.replace(
        run.subject, own=True, scrapes=scrapes, alerts=Endpoint(service="prom"), busy_query="llmchaos:requests_running"
    )
    monkeypatch.setattr(sessions.own_checks.preflight, "examine", lambda subject: subject)
    monkeypatch.setattr(sessions, "require_answer", lambda *_: order.append("answer"))
    monkeypatch.setattr(sessions, "require_rules", lambda _: order.append("rules"))

    def find(prometheus, subject, url, say):
        order.append(url)
        return known

    def require(_, __, *, jobs, servers, also):
        assert (jobs, servers) == (["model"], known)
        assert also["llmchaos:requests_running"] == "llmchaos_busy_query"
        order.append("metrics")

    monkeypatch.setattr(sessions.model_servers, "find", find)
    monkeypatch.setattr(sessions.model_servers, "require_distinct", lambda *_: order.append("distinct"))
    monkeypatch.setattr(sessions.model_servers, "require_live_rules", lambda *_: order.append("live rules"))
    monkeypatch.setattr(sessions, "require_metrics", require)

    run.lab()

    assert order == ["answer", "http://pushgateway", "metrics", "distinct", "rules", "live rules"]


def test_missing_metrics_and_dead_alerts_are_one_message(run, monkeypatch):
    def refuse(what):
        def check(*_, **__):
            raise NotReady(what)

        return check

    run.subject = dataclasses.replace(
        run.subject, own=True, scrapes=(Endpoint(service="web"),), alerts=Endpoint(service="prom")
    )
    monkeypatch.setattr(sessions.own_checks.preflight, "examine", lambda subject: subject)
    monkeypatch.setattr(sessions, "require_answer", lambda *_: None)
    monkeypatch.setattr(sessions, "require_rules", lambda *_: None)
    monkeypatch.setattr(sessions.model_servers, "find", lambda *_: (SimpleNamespace(),))
    monkeypatch.setattr(sessions.model_servers, "names_in_queries", lambda *_: {})
    monkeypatch.setattr(sessions.model_servers, "require_distinct", lambda *_: pytest.fail("some metrics are missing"))
    monkeypatch.setattr(sessions, "require_metrics", refuse("metrics"))
    monkeypatch.setattr(sessions.model_servers, "require_live_rules", refuse("alerts"))

    with pytest.raises(NotReady) as refused:
        run.lab()

    assert str(refused.value).splitlines() == ["metrics", "alerts"]


@pytest.mark.usefixtures("sigterm_ignored")
def test_a_cancelled_job_ends_its_session_as_ctrl_c_does_so_that_faults_are_reverted(run):
    run.lab()

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)

    assert run.close(2) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_open_faults_in_an_attached_stack_are_noted_where_ci_does_not_wipe(run, tmp_path):
    run.subject = dataclasses.replace(run.subject, attach=True)
    run.lab()

    intend(run.journal, "web", "ensure_running")

    assert [undo.service for undo in open_intents(tmp_path / "kept.jsonl").undos] == ["web"]


def test_the_record_of_an_attached_stack_has_its_containers_of_no_project(run, tmp_path):
    run.subject = dataclasses.replace(run.subject, attach=True, selectors=(("gpu", "container:gpu"),))
    run.lab()

    (stack,) = (one.line for one in journal.lines(tmp_path / "r" / "journal.jsonl") if hasattr(one.line, "selectors"))
    assert stack.selectors == {"gpu": "container:gpu"}


def test_a_session_that_lost_evidence_does_not_pass(run, tmp_path):
    run.lab()
    run.journal.lost = EvidenceLost("no space left")

    assert run.close(0) == ["the journal is incomplete: no space left"]
    assert exit_status_in(tmp_path) == 3


def exit_status_in(reports):
    *_, last = journal.lines(reports / "r" / "journal.jsonl")
    return last.line.exit_status


@pytest.mark.parametrize(
    ("status", "before", "written"), [(0, [], 0), (0, ["the ledger is full"], 3), (1, ["the ledger is full"], 1)]
)
def test_a_session_that_fails_for_its_orphans_journals_that(run, tmp_path, status, before, written):
    run.announce([])

    assert run.close(status, before) == before
    assert exit_status_in(tmp_path) == written


def is_free():
    """True if another thread could measure now."""
    found = []

    def look():
        try:
            with measurement_lock.measuring(deadline_s=0.0):
                found.append(True)
        except NotReady:
            found.append(False)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def test_a_stack_is_started_with_the_machine_to_itself_and_no_longer(settings, monkeypatch):
    seen = []
    monkeypatch.setattr(Run, "_start", lambda _: seen.append(is_free()) or FakeRuntime())
    run = Run(settings, Progress(None, tty=False))

    assert run.lab() is run.lab()

    assert (seen, is_free()) == ([False], True)


def test_a_trial_that_starts_the_stack_keeps_the_machine_in_between(settings, plan, monkeypatch):
    seen = []
    monkeypatch.setattr(Run, "_start", lambda _: FakeRuntime())
    monkeypatch.setattr(sessions, "perform", lambda *_: seen.append(is_free()) or Performed(name="001"))
    run = Run(settings, Progress(None, tty=False))

    run.perform(plan)
    run.perform(plan)

    assert seen == [False, True], "the second one takes the slot by itself, with a stack that can rest"
    assert is_free()


def test_nothing_is_started_while_another_process_measures_and_the_wait_is_printed(settings, monkeypatch):
    said, started, leave = [], [], threading.Event()
    monkeypatch.setattr(Run, "_start", lambda _: started.append(leave.is_set()) or FakeRuntime())
    inside = threading.Event()

    def other():
        with measurement_lock.measuring():
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(20)

    def write(text, _end):
        said.append(text)
        leave.set()

    Run(settings, Progress(write, tty=False)).lab()
    thread.join()

    assert started == [True]
    assert said[0].startswith("waiting for ")


def test_a_start_that_was_interrupted_is_tried_again_and_one_that_failed_is_not(settings, monkeypatch):
    errors = [
        TimedOut("Timeout >20.0s"),
        KeyboardInterrupt(),
        NotReady("no port is free"),
        AssertionError("unreachable"),
    ]

    def start(_):
        raise errors.pop(0)

    monkeypatch.setattr(Run, "_start", start)
    run = Run(settings, Progress(None, tty=False))

    for expected in (TimedOut, KeyboardInterrupt, NotReady):
        with pytest.raises(expected):
            run.lab()
    with pytest.raises(NotReady, match="the stack could not be started: no port is free"):
        run.lab()
    assert len(errors) == 1


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupted_trial_is_performed_again_only_if_it_had_not_begun(settings, plan, monkeypatch, begun):
    asked = []

    def cut(run, plan):
        asked.append(plan)
        run._lab = SimpleNamespace(newest_trial="001" if begun else "")
        raise TimedOut("Timeout >20.0s")

    monkeypatch.setattr(Run, "perform", cut)
    monkeypatch.setattr(Campaign, "_perform", lambda campaign, plan: campaign.run.perform(plan))
    campaign = Campaign(settings, lambda: Progress(None, tty=False))

    with pytest.raises(TimedOut):
        campaign.perform_once(plan)
    with pytest.raises((InvalidExperiment, TimedOut), match=r"Timeout >20\.0s") as again:
        campaign.perform_once(plan).require()

    assert (len(asked), again.type) == ((1, InvalidExperiment) if begun else (2, TimedOut))


def progress_line(ended, *, inflight=0, settled_s=10.0):
    """The line 10 s after the start of the load."""
    load = SimpleNamespace(
        ended=lambda since_s: [sample for sample in ended if sample.end_s >= since_s],
        now_s=lambda: 10.0,
        offered_rps=lambda: 8.0,
        status=lambda: LoadStatus(outcomes={}, inflight=inflight, settled_s=settled_s),
    )
    return Progress(None, tty=False).line(SimpleNamespace(running_load=load), "fault", None)


def test_a_progress_line_whose_details_change_is_printed_every_five_seconds():
    printed = []
    progress = Progress(lambda text, _: printed.append(text), tty=False)

    for step in ("step 1", "step 2"):
        progress(None, f"building web: {step}", None)
    progress(None, "waiting: web is starting", 9.0)

    assert printed == ["building web: step 1", "waiting: web is starting (9 s left)"]


def sample(due_s, end_s, outcome):
    return Sample(due_s, due_s, None, end_s, 0.0, 0, outcome, "", f"{due_s} {outcome}")


def test_the_progress_line_counts_no_failure_as_answered():
    ended = [sample(5 + i / 8, 5.1 + i / 8, ("ok", "refused")[i % 2]) for i in range(40)]

    assert progress_line(ended) == "fault 10 s  offered 8.0/s, ok 4.0, failed 20, open 0, p95 inf"


def test_the_progress_line_counts_what_ended_lately_however_long_ago_it_was_due():
    """As slow answers do, and requests that run into their time limit."""
    slow = [sample(i / 8, 5 + i / 8, "ok") for i in range(40)]
    timed_out = [sample(0.0, 9.0, "timeout"), sample(0.0, 9.5, "left"), sample(0.0, 4.0, "timeout")]

    assert progress_line([*slow, *timed_out], inflight=12, settled_s=0.5) == (
        "fault 10 s  offered 8.0/s, ok 8.0, failed 1, open 12 (9.5 s), p95 5.00 s"
    )


def test_the_progress_line_of_a_service_that_hangs_has_the_age_of_the_oldest_request():
    assert (
        progress_line([], inflight=40, settled_s=5.0)
        == "fault 10 s  offered 8.0/s, ok 0.0, failed 0, open 40 (5.0 s), p95 -"
    )


@pytest.mark.parametrize(
    ("columns", "shown"), [(40, "ok 1.0, failed 2, p95 0.25 s"), (17, "ok 1.0, failed 2"), (3, "ok ")]
)
def test_a_line_too_long_for_the_terminal_loses_whole_values(columns, shown):
    assert fitted("ok 1.0, failed 2, p95 0.25 s", columns) == shown


def test_a_run_that_is_killed_is_the_latest_and_its_report_can_be_built(run, tmp_path, capsys):
    (tmp_path / "latest").symlink_to("earlier")

    run.announce([])

    assert (tmp_path / "latest").readlink() == Path("r")
    assert not (tmp_path / "r" / "report.html").exists()
    assert cli.main(["report", str(tmp_path / "latest")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'r' / 'report.html'}\n"


def test_a_worker_that_begins_late_does_not_make_its_run_the_newest(settings, run, tmp_path):
    run.announce([])
    newer, late = (
        Run(dataclasses.replace(settings, **about), Progress(None, tty=False))
        for about in ({"run": "s"}, {"worker": "gw2"})
    )

    newer.announce([])
    late.announce([])

    assert (tmp_path / "latest").readlink() == Path("s")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["latest", "r", "s"]
    assert newer.close(0) + late.close(0) == []


@pytest.mark.parametrize("taken", [True, False], ids=["a folder of the user's", "no links there"])
def test_a_run_goes_on_without_a_symlink(run, tmp_path, monkeypatch, taken):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    if taken:
        (tmp_path / "latest").mkdir()
    monkeypatch.setattr(Path, "symlink_to", refuse)

    run.announce([])

    assert (tmp_path / "latest").is_dir() is taken
    assert not (tmp_path / "latest").is_symlink()


@pytest.mark.parametrize("own", [True, False], ids=["own stack", "lab"])
def test_the_coverage_of_an_own_stack_lists_faults_that_can_hit_it(run, tmp_path, own):
    run.subject = dataclasses.replace(run.subject, own=own)
    run._runtime = Stack()
    run._runtime.abilities = frozenset({"kill", "start", "events"})

    run.announce([])

    (begun,) = journal.read(tmp_path / "r" / "journal.jsonl")
    assert ("kill" in begun["catalogue"]["faults"], "hang" in begun["catalogue"]["faults"]) == (True, not own)
