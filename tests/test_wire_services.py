"""Services of a session that wire faults may hit."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.plugin_double import put_double

from pytest_llmchaos import faults, loads
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.session import run as session_run
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings, make_runtime
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.subject.requests import Requests

HEAD = """
from dataclasses import dataclass
import pytest
from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.faults.compositions import on_targets
from pytest_llmchaos.faults.kill import Kill

LOAD = loads.open_loop(rate_rps=2, max_tokens=8)

class OnTheWire(Kill):
    kind = "on_the_wire"
    needs = frozenset({"proxy"})

"""
KILL = """
@experiment(load=LOAD, fault=faults.kill("api"))
def test_kill(trial):
    assert trial.victims
"""
ON_THE_WIRE = """
@experiment(load=LOAD, fault=[on_targets(OnTheWire(), "model-2"), faults.none()])
def test_wire(trial):
    assert trial.victims or trial.is_control
"""
LACKING = """
class Lacking(OnTheWire):
    needs = frozenset({"proxy", "partition"})

@experiment(load=LOAD, fault=on_targets(Lacking(), "model-1"))
def test_lacking(trial):
    assert trial.victims
"""
FREE = """
@pytest.mark.llmchaos_wire({targets})
def test_free(lab):
    pass
"""


PREFLIGHT = Campaign.preflight


@pytest.fixture
def chaos(pytester, monkeypatch):
    """Plan a file of tests. Returns the outcome and the services, None if unplanned."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    put_double(monkeypatch)
    seen = []
    monkeypatch.setattr(Campaign, "preflight", lambda self: seen.append(self.wire()))
    monkeypatch.setattr(Run, "lab", lambda self: None)

    def run(*parts, option=()):
        pytester.makepyfile(test_it=HEAD + "".join(parts))
        common = ("-p", "pytest_llmchaos.plugin", "-p", "no:cacheprovider", "-o", "llmchaos_runtime=local")
        done = pytester.runpytest_inprocess(*common, "--strict-markers", *option)
        return done, (seen[-1] if seen else None)

    return run


@pytest.mark.parametrize(
    ("parts", "services"),
    [
        ([KILL], set()),
        ([KILL, ON_THE_WIRE], {"model-2"}),
        ([ON_THE_WIRE.replace("model-2", "model-*")], {"model-1", "model-2"}),  # one of them is drawn
        ([KILL, LACKING], set()),  # such a trial is skipped
        ([FREE.format(targets="'api'"), ON_THE_WIRE], {"api", "model-2"}),
        ([FREE.format(targets="'model-*', 'remediator'")], {"model-1", "model-2", "remediator"}),
        (["pytestmark = pytest.mark.llmchaos_wire('api')\n", FREE.format(targets="'model-1'")], {"api", "model-1"}),
    ],
    ids=["none", "a fault", "a drawn service", "a skipped fault", "a mark", "a pattern", "two marks"],
)
def test_the_services_of_faults_and_marks_are_known_before_the_start(chaos, parts, services):
    done, found = chaos(*parts)

    assert done.ret == 0, done.stdout.str()
    assert found == services


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (
            "'db'",
            "test_it.py: pytest.mark.llmchaos_wire: target 'db' matches no service that may be hit; available: api, model-1, model-2",
        ),
        ("", "pytest.mark.llmchaos_wire takes names of services, got ()"),
        ("['api']", "pytest.mark.llmchaos_wire takes names of services, got (['api'],)"),
        ("service='api'", "pytest.mark.llmchaos_wire takes names of services, got {'service': 'api'}"),
    ],
)
def test_a_mark_without_a_known_service_ends_the_session(chaos, mark, said):
    done, found = chaos(FREE.format(targets=mark))

    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert said in done.stderr.str()
    assert found is None


@pytest.mark.parametrize("option", [(), ("--chaos-plan",)], ids=["run", "plan"])
def test_messages_of_an_unknown_service_end_the_session(chaos, option):
    timed = 'faults.timed(faults.kill("api"), at="after:chat#1.received", on="db")'

    done, found = chaos(KILL.replace('faults.kill("api")', timed), option=option)

    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py: target 'db' matches no service that may be hit; available: api" in done.stderr.str()
    assert found is None


def test_the_loads_of_a_test_get_the_services_of_its_mark(chaos, monkeypatch):
    monkeypatch.setattr(Run, "lab", lambda run: run.test)
    others = "def test_plain(lab):\n    assert lab.wire == ()\n"
    marked = FREE.format(targets="'model-*'").replace("pass", "assert lab.wire == ('model-1', 'model-2')")

    done, _ = chaos(others, marked, others.replace("plain", "last"))

    done.assert_outcomes(passed=3)


def test_the_mark_is_listed(pytester):
    done = pytester.runpytest_inprocess("--markers")

    done.stdout.fnmatch_lines(["@pytest.mark.llmchaos_wire(*services): *"])


def test_the_run_hands_them_to_its_runtime_again_after_a_failed_start(monkeypatch, tmp_path):
    settings = Settings(
        run="r", seed=1, runtime="local", backend="sim", reports=tmp_path, repeat=1, worker="", replay_line=""
    )
    given = []

    class Unready:
        def prepare(self):
            raise session_run.NotReady("not yet")

    monkeypatch.setattr(session_run, "make_runtime", lambda *_, wire, **__: given.append(wire) or Unready())
    run = Run(settings, Progress(None, tty=False))
    run.wire = frozenset({"model-1"})
    for _ in range(2):
        with pytest.raises(session_run.NotReady):
            run.preflight()

    assert given == [{"model-1"}, {"model-1"}]


def test_only_the_local_runtime_needs_them(tmp_path):
    for runtime in ("local", "compose"):
        settings = Settings(
            run="r", seed=1, runtime=runtime, backend="sim", reports=tmp_path, repeat=1, worker="", replay_line=""
        )
        made = make_runtime(settings, lab_subject("sim"), project="p", owner_id="o", wire={"model-1"})

        assert made.name == runtime
        assert getattr(made, "_wire", None) == (("model-1",) if runtime == "local" else None)


def chat_with(*found):
    """An experiment whose clients chat."""
    return SimpleNamespace(load=loads.open_loop(), faults=found, is_scaled=False)


@pytest.mark.parametrize(
    "fault",
    [
        faults.flaky("api"),
        faults.stall(["api", "model-1"]),
        faults.timed(faults.kill("model-1"), at="after:chat#1.received", on="api"),
    ],
    ids=str,
)
def test_a_fault_that_reads_requests_is_refused_where_clients_use_tls(tmp_path, fault):
    settings = Settings(
        run="r", seed=1, runtime="local", backend="sim", reports=tmp_path, repeat=1, worker="", replay_line=""
    )
    plain, subject = Campaign(settings, Progress), lab_subject("sim")
    plain.require_readable(chat_with(fault))
    behind_tls = Campaign(SimpleNamespace(seed=1, subject=replace(subject, requests=Requests(tls="system"))), Progress)

    with pytest.raises(BadScenario, match=r"has to read requests of api, and clients send them through TLS .*choose a"):
        behind_tls.require_readable(chat_with(faults.none(), fault))

    behind_tls.require_readable(
        chat_with(faults.flaky("model-1"), faults.latency("api", delay_s=1), faults.kill("api"))
    )


def test_a_fault_that_reads_requests_is_refused_where_the_settings_show_no_http1():
    shown = (("model-2", "TLS on port 8443 (its health check requests https://localhost:8443)"),)
    campaign = Campaign(SimpleNamespace(seed=1, subject=replace(lab_subject("sim"), unreadable=shown)), Progress)

    with pytest.raises(BadScenario, match=r"read requests of model-2 .* takes TLS on port 8443 \(its health check"):
        campaign.require_readable(chat_with(faults.flaky("model-*")))

    campaign.require_readable(chat_with(faults.flaky("model-1"), faults.reset("model-2"), faults.kill("model-2")))


def test_a_fault_that_the_load_cannot_meet_ends_the_plan_with_its_file(chaos):
    done, _ = chaos(
        KILL.replace('kill("api")', 'stall("model-1", after_tokens=9), fault_s=1'), option=("--chaos-plan",)
    )

    assert done.ret == pytest.ExitCode.USAGE_ERROR
    said = "test_it.py: scenario 'it': stall model-1 with after_tokens=9 needs an answer of at least 9 tokens, and the load's"
    assert said in done.stderr.str()


def test_what_the_preflight_reads_ends_the_session_before_the_start(chaos, monkeypatch):
    def preflight(run):
        run.subject = replace(run.subject, unreadable=(("model-2", "HTTP/2 on port 50051"),))

    monkeypatch.setattr(Campaign, "preflight", PREFLIGHT)
    monkeypatch.setattr(Run, "preflight", preflight)

    done, _ = chaos(KILL.replace('kill("api")', 'flaky("model-2"), fault_s=1'))

    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        "has to read requests of model-2 as HTTP/1 without TLS, and model-2 takes HTTP/2 on port" in done.stderr.str()
    )
