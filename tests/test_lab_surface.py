"""The lab's public surface: parts, views and keyword-only arguments."""

import importlib
import inspect
import pkgutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.clock import Clock
from support.fake_lab import ClockedRuntime, fake_lab

import pytest_llmchaos.lab as room
from pytest_llmchaos.errors import InvalidExperiment
from pytest_llmchaos.lab.current_test import CurrentTest
from pytest_llmchaos.lab.views import RemediatorView, ServiceView
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.slo.openslo import slos_of


@pytest.fixture
def lab(tmp_path):
    with fake_lab(tmp_path, Clock()) as made:
        yield made


def by_name_alone():
    """Return the keyword-only arguments of each function of the room, with defaults."""
    found = {}
    for module in (
        importlib.import_module(f"{room.__name__}.{one.name}") for one in pkgutil.iter_modules(room.__path__)
    ):
        own = [one for one in vars(module).values() if getattr(one, "__module__", None) == module.__name__]
        functions = [one for one in own if inspect.isfunction(one)]
        functions += [
            one for kind in own if inspect.isclass(kind) for one in vars(kind).values() if inspect.isfunction(one)
        ]
        for function in functions:
            given = [one for one in inspect.signature(function).parameters.values() if one.kind is one.KEYWORD_ONLY]
            if given and function.__name__ != "__init__":
                found[function.__qualname__] = {one.name: one.default for one in given}
    return found


def test_options_are_given_by_name_and_have_these_defaults():
    required = inspect.Parameter.empty

    assert by_name_alone() == {
        "CurrentTest.claim": {"keep": False},
        "Lab.say": {"deadline_s": None},
        "Lab.firing": {"of_services": False},
        "Lab.load": {
            "arrivals": None,
            "longest_s": 300.0,
            "remediator": True,
            "autoscaler": None,
            "wire": None,
            "read": (),
        },
        "Lab.hold_until": {"deadline_s": required, "what": required},
        "Lab.hold_steady": {"deadline_s": None},
        "Injector._proof": {"since_s": required, "within_s": required},
        "Lab.inject": {"abort_if": None, "blast_radius": None, "patience_s": 40.0},
        "is_scraped": {"resting": None},
        "Reasons.add": {"alerts_alone": False},
        "Reasons.during": {"alerts_alone": False},
        "RunningLoad._last": {"is_live": required},
        "RunningLoad.stop": {"drain": True},
        "rows_since": {"kept": None, "may_retry": False},
        "Seen.is_too_much": {"at_gateway": required},
        "at_rest": {"scales": required},
        "prepare": {"scales": required},
    }


def test_a_lab_is_shown_with_its_runtime(lab):
    assert repr(lab) == f"<lab on {lab.runtime!r}>"


def test_a_lab_has_the_test_that_it_is_given_and_else_one_of_its_seed(tmp_path):
    test = CurrentTest(1)
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()

    with fake_lab(tmp_path / "one", Clock(), test=test) as lab:
        assert lab.test is test
    with fake_lab(tmp_path / "other", Clock(), seed=7) as lab:
        assert lab.test.rng("load", 0).random() == CurrentTest(7).rng("load", 0).random()


@pytest.mark.parametrize(("pushgateway", "url"), [("pushgateway", "http://127.0.0.1:9/pushgateway"), (None, None)])
def test_a_lab_with_a_pushgateway_shows_its_faults(lab, pushgateway, url):
    made = type(lab)(
        runtime=lab.runtime,
        subject=replace(lab.subject, pushgateway=pushgateway),
        journal=lab.journal,
        directory=lab.directory,
        seed=1,
        say=lambda *_: None,
        judge=lambda *_: None,
    )

    assert made.signals._url == url


def test_a_lab_has_one_prometheus_and_the_slos_of_its_subject(lab):
    lab._prometheus = None

    assert isinstance(lab.prometheus, Prometheus)
    assert lab.prometheus is lab.prometheus
    assert lab.prometheus.url == "http://127.0.0.1:9/prometheus"
    assert lab.slos is lab.slos
    assert lab.slos == slos_of(lab.subject.slo_file)


def test_records_are_numbered_and_each_has_a_folder(lab):
    (lab.directory / "trials" / "002").mkdir(parents=True)  # as another program may have made it

    with lab.recording() as first:
        assert lab.record is first
    with pytest.raises(ValueError, match="it broke"), lab.recording() as second:
        raise ValueError("it broke")

    assert (first.trial, second.trial, lab.trials) == ("001", "002", 2)
    assert second.directory == lab.directory / "trials" / "002"
    assert first.directory.is_dir()
    assert lab.record is None


class TestAService:
    def test_a_service_is_viewed_as_it_is_now(self, lab):
        api = lab.service("api")

        assert (api.name, api.url, api.state) == ("api", "http://127.0.0.1:9/api", lab.runtime.state("api"))
        assert repr(api) == "<service api: running>"
        lab.runtime.kill("api")
        assert repr(api) == "<service api: down>"
        assert not api.state.running
        assert isinstance(api, ServiceView)


class TestTheRemediator:
    def test_the_remediator_is_stopped_and_started_only_if_needed(self, lab):
        view, touched = lab.remediator, lab.runtime.touched

        view.ensure(True)
        assert touched == []
        view.ensure(False)
        assert not view.running
        assert repr(view) == "<remediator: stopped>"
        touched.clear()
        view.ensure(False)
        assert touched == []
        view.ensure(True)
        assert view.running
        assert repr(view) == "<remediator: running>"

    def test_a_paused_remediator_does_not_run(self):
        runtime = ClockedRuntime(Clock())
        view = RemediatorView(runtime, "remediator")
        runtime.pause("remediator")

        with pytest.raises(InvalidExperiment, match="remediator is paused and cannot repair"):
            view.ensure(True)
        view.ensure(False)
        assert not view.running

    def test_an_unnamed_remediator_cannot_be_stopped_for_a_control_arm(self):
        view = RemediatorView(ClockedRuntime(Clock()), None)

        view.ensure(True)
        with pytest.raises(
            InvalidExperiment,
            match="remediator=False needs the name of the service that repairs the stack: set llmchaos_remediator",
        ):
            view.ensure(False)

    def test_the_remediator_does_not_run_in_a_stack_without_one(self):
        assert not RemediatorView(ClockedRuntime(Clock()), None).running

    def test_the_remediator_of_a_subject_is_its_service(self, lab):
        lab.subject = replace(lab.subject, remediator="api")
        lab.runtime.kill("remediator")

        assert lab.remediator.running

    def test_the_remediator_has_an_audit_of_all_it_did_since_an_instant(self):
        lines = [{"at": -0.5}, {"at": 0.0}, {"at": 0.5}, {"at": 7.0}, {"event": "undated"}]
        runtime = SimpleNamespace(audit=lambda: lines)
        view = RemediatorView(runtime, "remediator")

        assert view.audit() == [{"at": 0.0}, {"at": 0.5}, {"at": 7.0}, {"event": "undated"}]
        assert view.audit(0.5) == [{"at": 0.5}, {"at": 7.0}]
        assert view.audit(8.0) == []
        assert RemediatorView(SimpleNamespace(audit=lambda: None), "remediator").audit() is None
        assert RemediatorView(runtime, None).audit() is None
