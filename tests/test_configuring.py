"""Restarts of services whose environment variables change."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from support.clock import Clock

from pytest_llmchaos.errors import BadScenario, NotReady, PrometheusUnreachable
from pytest_llmchaos.model import ServiceState
from pytest_llmchaos.prometheus.queries import Prometheus, Target
from pytest_llmchaos.runtime import configuring
from pytest_llmchaos.runtime.configuring import ConfigureAbility
from pytest_llmchaos.runtime.docker import agent_post
from pytest_llmchaos.runtime.docker.agent_post import Post
from pytest_llmchaos.runtime.docker.attached import AttachedRuntime
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.docker.events import NUMBER
from pytest_llmchaos.runtime.docker.override import environment_override
from pytest_llmchaos.runtime.docker.project import ComposeProject
from pytest_llmchaos.runtime.local.compose_reader import Addresses
from pytest_llmchaos.runtime.local.programs import Programs
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.runtime.local.supervisor_plugin import Control
from pytest_llmchaos.subject.lab import lab_subject, stack_dir

ONE, TWO = {"A": "1"}, {"A": "2"}


class Services(ConfigureAbility):
    """Services without processes. `acts` has what was done to them, in order."""

    def __init__(self, *, resting=(), broken=(), shared=()):
        self.subject = lab_subject("sim")
        self.resting, self.broken, self.shared = set(resting), set(broken), set(shared)
        self.acts = []
        self.now = 100.0
        self._forget_environment()

    def _require_restartable(self, services):
        if self.shared & set(services):
            raise NotReady("another container shares its network")

    def _runs(self, service):
        return service not in self.resting

    def _restart_with(self, environment, running, resting):
        self.acts.append((environment, tuple(running), tuple(resting)))
        if failed := self.broken & set(running):
            self.resting |= failed
            raise NotReady(f"{failed} ended")
        self.resting -= set(running)

    def stop_remediator(self):
        self.acts.append("stop remediator")

    def start_remediator(self):
        self.acts.append("start remediator")

    def state(self, service):
        return ServiceState(service=service, running=True, started_unix_s=self.now)

    def url(self, service):
        return f"http://127.0.0.1:9/{service}"


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(configuring, "time", clock)
    return clock


@pytest.fixture
def targets(monkeypatch, clock):
    """Answers of Prometheus, one for each query. The last one stays."""
    seen = [(target("api"),)]

    def answer(_):
        now = seen.pop(0) if len(seen) > 1 else seen[0]
        if isinstance(now, Exception):
            raise now
        return now

    monkeypatch.setattr(Prometheus, "targets", answer)
    return seen


def target(service, *, up=True, at=100.5, error=""):
    return Target(job="j", service=service, url=f"http://{service}", up=up, last_error=error, last_scrape_unix_s=at)


def test_services_restart_if_their_variables_change_and_once(targets):
    services = Services()

    services.configure({"api": ONE, "model-1": ONE})
    services.configure({"model-1": ONE, "api": dict(ONE), "model-2": {}})
    services.configure({"api": TWO, "model-1": ONE})
    services.configure({"api": TWO})
    services.configure({})
    services.configure({})

    assert services.acts == [
        ({"api": ONE, "model-1": ONE}, ("api", "model-1"), ()),
        ({"api": TWO, "model-1": ONE}, ("api",), ()),
        ({"api": TWO}, ("model-1",), ()),
        ({}, ("api",), ()),
    ]


def test_a_new_stack_has_its_own_variables(targets):
    services = Services()
    services.configure({"api": ONE})

    services._forget_environment()
    services.configure({})

    assert len(services.acts) == 1


@pytest.mark.parametrize("environment", [{"docker-proxy": ONE}, {"api": {"A B": "1"}}, {"api": {"A": 1}}])
def test_bad_variables_touch_nothing(targets, environment):
    services = Services()

    with pytest.raises(BadScenario, match=r"configure\(environment\)"):
        services.configure(environment)

    assert services.acts == []


def test_a_service_that_cannot_be_restarted_is_left_as_it_was(targets):
    services = Services(shared={"api"})

    with pytest.raises(NotReady, match="shares its network"):
        services.configure({"model-1": ONE, "api": ONE})
    services.configure({})

    assert services.acts == []


def test_what_a_failed_restart_left_down_is_started_by_the_next_call(targets):
    services = Services(broken={"api"}, resting={"model-2"})
    with pytest.raises(NotReady, match="ended"):
        services.configure({"api": ONE, "model-1": ONE, "model-2": ONE})
    services.broken.clear()

    services.configure({})
    services.configure({})

    assert services.acts[1:] == [({}, ("api", "model-1"), ("model-2",))]


def test_a_service_at_rest_gets_its_variables_without_a_start(targets):
    targets[:] = [PrometheusUnreachable("no query is due")]
    services = Services(resting={"api", "remediator"})

    services.configure({"api": ONE, "remediator": ONE})

    assert services.acts == [({"api": ONE, "remediator": ONE}, (), ("api", "remediator"))]


def test_a_service_that_was_stopped_after_its_restart_is_not_started(targets):
    services = Services()
    services.configure({"api": ONE})
    services.resting.add("api")

    services.configure({"api": TWO})

    assert services.acts[1:] == [({"api": TWO}, (), ("api",))]


def test_a_remediator_stops_before_others_restart_and_starts_when_they_are_back(targets):
    services = Services()

    services.configure({"api": ONE, "remediator": ONE})

    assert services.acts == [
        "stop remediator",
        ({"api": ONE, "remediator": ONE}, ("api",), ("remediator",)),
        "start remediator",
    ]


def test_a_restart_ends_when_prometheus_has_scraped_the_new_process(targets):
    old, down = target("api", at=100.0), target("api", up=False, at=101.0)
    others = (target("model-1", at=99.0), target("prometheus", up=False))
    targets[:] = [(old, *others), (down, *others), PrometheusUnreachable("it restarts"), (target("api"), *others)]

    Services().configure({"api": ONE})

    assert len(targets) == 1


def test_a_service_that_is_not_scraped_again_is_named(targets, clock):
    targets[:] = [(target("api", up=False, error="connection refused"), target("model-1", at=0.0))]
    services = Services()

    with pytest.raises(
        NotReady,
        match=r"^api, model-1 was restarted with other variables, and Prometheus did not scrape it within 20 s: "
        r"api at http://api \(connection refused\); model-1 at http://model-1 \(not scraped yet\); see its log$",
    ):
        services.configure({"api": ONE, "model-1": ONE})
    assert 20 < clock.passed_s < 20.3
    with pytest.raises(NotReady):
        services.configure({})

    assert [act[1] for act in services.acts] == [("api", "model-1")] * 2


def test_compose_expands_nothing_in_a_value():
    laid = environment_override({"api": {"A": "$HOME ${B} $$", "C": 'a "b" \\ é: #'}, "model-1": {"D": ""}})

    assert yaml.safe_load(laid) == {
        "services": {
            "api": {"environment": {"A": "$$HOME $${B} $$$$", "C": 'a "b" \\ é: #'}},
            "model-1": {"environment": {"D": ""}},
        }
    }


def test_composes_commands_read_the_variables_until_they_are_taken_back(tmp_path):
    project = ComposeProject(lab_subject("sim"), name="llmchaos-1", labels={}, directory=tmp_path)
    plain = project.command()

    project.write_environment({"api": ONE})
    assert project.command()[len(plain) - 2 :] == ["-f", str(tmp_path / "compose.environment.yaml"), *plain[-2:]]

    project.write_environment({})
    project.write_environment({})
    assert project.command() == plain


def test_a_restart_is_over_when_the_agent_stands_at_the_new_container(monkeypatch, clock):
    post = Post("api", None, None, None, None)
    post._armed.set()
    post._armed_at, post._error = "old", "the namespace is gone"
    monkeypatch.setattr(agent_post, "time", clock)

    with pytest.raises(NotReady, match="no fault agent entered its way within 3 s: the namespace is gone"):
        post.wait_at("new", 3)
    assert 3 < clock.passed_s < 3.1

    post._armed_at = "new"
    post.ports = (8080,)
    before_s = clock.passed_s
    post.wait_at("new", 3)
    assert clock.passed_s == before_s

    post.ports = ()  # the service does not listen
    post.wait_at("new", 3)
    assert 3 <= clock.passed_s - before_s < 3.1
    post._armed.clear()
    post._error = ""
    with pytest.raises(NotReady, match="it did not report that it is ready; see its log"):
        post.wait_at("new", 3)


def test_only_services_with_an_agent_wait_for_it(monkeypatch, tmp_path):
    def container(number):
        return SimpleNamespace(labels={NUMBER: str(number)}, attrs={"State": {"StartedAt": f"start {number}"}})

    runtime = ComposeRuntime(lab_subject("sim"), project="p", run="r", owner="o", directory=tmp_path)
    found = {"api": [container(1)], "model-1": [container(1), container(2)], "model-2": [container(1)]}
    monkeypatch.setattr(runtime, "_all_of", found.__getitem__)
    waited = []
    for name in ("model-1#2", "model-2"):
        wait = functools.partial(lambda name, started, _: waited.append((name, started)), name)
        runtime._posts[name] = SimpleNamespace(wait_at=wait)

    runtime._await_agents(["api", "model-1", "model-2"])

    assert waited == [("model-1#2", "start 2"), ("model-2", "start 1")]


def test_an_attached_stack_is_not_configured(tmp_path):
    about = {"project": "p", "run": "r", "owner": "o", "directory": tmp_path}

    assert "configure" not in AttachedRuntime(replace(lab_subject("sim"), attach=True), **about).abilities


def test_the_local_runtime_reads_variables_as_the_compose_file_has_them(tmp_path):
    subject, free = lab_subject("sim"), iter(range(21000, 22000))
    programs = Programs(stack=stack_dir(), files=subject.compose_files, backend="sim", project="p", model=subject.model)
    addresses = Addresses(lambda: next(free), {})

    found = programs.settings(
        "api", {"LAB_REPLICAS": "model-1=http://model-1:8080", "LAB_QUEUE": "0"}, tmp_path, addresses
    )

    assert found == {"LAB_REPLICAS": f"model-1=http://{addresses.of('model-1', 8080)}", "LAB_QUEUE": "0"}


def test_a_process_that_ends_by_itself_just_after_its_grace_is_no_error(tmp_path):
    calls, late = [], [NotReady("it still runs"), None]

    def wait_dead(service, deadline_s=5.0, *, pid=0):
        calls.append((service, deadline_s, pid))
        if (error := late.pop(0)) is not None:
            raise error

    runtime = LocalRuntime(lab_subject("sim"), project="p", run="r", owner="o", directory=tmp_path)
    runtime._control = SimpleNamespace(
        wait_dead=wait_dead, call=lambda *words: calls.append(words)
    )  # None: it had ended

    runtime._await_end("api", 7, 1)

    assert calls == [("api", 1, 7), ("kill", "api", "SIGKILL"), ("api", 5.0, 7)]


def test_supervisord_starts_a_process_with_its_changed_variables():
    config = SimpleNamespace(name="api", environment={"A": "1", "B": "2"})
    control = Control.__new__(Control)
    control._processes = lambda: {"api": SimpleNamespace(config=config)}

    assert control.configure("api", '{"A": "\\u00e9"}')
    assert config.environment == {"A": "é"}
