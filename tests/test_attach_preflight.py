"""Checks of an attached stack before a run."""

import json
import re
from dataclasses import replace

import pytest
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import ports
from pytest_llmchaos.runtime.docker import attach_preflight, docker_cli, preflight
from pytest_llmchaos.runtime.docker import attached as attach
from pytest_llmchaos.runtime.docker.events import NUMBER
from pytest_llmchaos.runtime.docker.place import Place

PROJECT = "com.docker.compose.project"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(docker_cli, "require_engine", lambda: None)
    return make_folder(tmp_path)


class Target:
    """A container as the SDK shows it."""

    def __init__(self, service, ports=None, *, status="running", folder="", **labels):
        self.status = status
        self.id = str(id(self))
        self.name = f"shop-{service}-1"
        self.labels = {"com.docker.compose.service": service, PROJECT: "shop"}
        self.labels |= {f"{PROJECT}.working_dir": folder, "llmchaos.allow": "true"}
        self.labels |= {name.replace("_", "."): value for name, value in labels.items()}
        bound = {
            inside: [{"HostIp": host, "HostPort": str(port)} for host, port in bindings]
            for inside, bindings in (ports or {}).items()
        }
        self.attrs = {"HostConfig": {"PortBindings": bound}}


class Client:
    """The SDK's client."""

    def __init__(self, *containers):
        self.containers = self
        self._all = containers

    def list(self, *, filters, **_):
        if "name" in filters:
            return [c for c in self._all if re.search(filters["name"][0], f"/{c.name}")]
        wanted = filters["label"] if isinstance(filters["label"], list) else [filters["label"]]
        pairs = [one.split("=", 1) for one in wanted]
        return [c for c in self._all if all(c.labels.get(name) == value for name, value in pairs)]


@pytest.fixture
def runtime(folder, monkeypatch):
    """The runtime of these keys, on these containers."""

    def make(*containers, project="shop", ports=None, **changes):
        subject = subject_of(folder, attach=True, project=project, **changes)
        subject = replace(subject, ports=ports or subject.ports)
        made = attach.AttachedRuntime(
            subject, project=project or attach_preflight.NO_PROJECT, run="r", owner="1:1:boot", directory=folder
        )
        monkeypatch.setattr(made, "_new_client", lambda: Client(*containers))
        return made

    return make


WEB = {"8080/tcp": [("127.0.0.1", 18080)]}
PROM = {"9090/tcp": [("", 19090)]}


def stack(**web):
    return Target("web", **{"ports": WEB, **web}), Target("worker"), Target("prom", ports=PROM)


def test_the_project_is_the_one_that_compose_finds_with_its_variables_filled_in(folder, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command)
        if "ps" in command:
            return ""
        return json.dumps({"name": "shop-blue", "services": {}})

    monkeypatch.setattr(docker_cli, "run", run)

    assert preflight.examine(subject_of(folder, attach=True)).project == "shop-blue"
    assert "--no-interpolate" not in asked[0]


def test_a_project_that_the_user_names_needs_no_readable_compose_file(folder, monkeypatch):
    monkeypatch.setattr(
        docker_cli, "run", lambda command, **_: pytest.fail("Compose was called") if "compose" in command else ""
    )

    assert preflight.examine(subject_of(folder, attach=True, project="shop")).project == "shop"


def test_a_compose_file_that_lacks_a_variable_is_an_error_with_the_key_to_write(folder, monkeypatch):
    def run(*_, **__):
        raise NotReady("required variable IMAGE is missing a value")

    monkeypatch.setattr(docker_cli, "run", run)

    with pytest.raises(NotReady, match=r"variable IMAGE is missing .* or name its project with llmchaos_project"):
        preflight.examine(subject_of(folder, attach=True))


def test_a_project_that_does_not_run_is_reported_with_the_one_of_the_same_folder(runtime, folder):
    with pytest.raises(NotReady) as nothing:
        runtime(project="other").prepare()
    with pytest.raises(NotReady) as elsewhere:
        runtime(*(Target("web", folder=str(folder)) for _ in range(2)), project="other").prepare()

    assert "project 'other' has no container: start it (`docker compose -f" in str(nothing.value)
    assert f'but shop was started from {folder}: add llmchaos_project = "shop"' in str(elsewhere.value)


def test_services_without_a_container_are_named_with_their_keys_and_what_runs(runtime):
    with pytest.raises(NotReady) as caught:
        runtime(*stack()[1:], replicas=("worker", "worker-2"), remediator="fixer").prepare()

    said = str(caught.value)
    assert "llmchaos_api names 'web', which has no container: start it (`docker compose up -d web`)" in said
    assert "or name one of prom, worker" in said
    assert "llmchaos_replicas names 'worker-2'" in said
    assert "fixer" not in said


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"llmchaos_allow": "no"}, "target 'worker' lacks the label llmchaos.allow=true"),
        ({"llmchaos_owner": "7:1:boot"}, "target 'worker' belongs to a run of llmchaos"),
        ({"status": "exited"}, r"target 'worker' does not run \(exited\)"),
        ({"status": "paused"}, "target 'worker' is paused"),
    ],
)
def test_every_container_of_a_scaled_target_is_checked(runtime, second, message):
    runtime(*stack(), Target("worker")).prepare()

    with pytest.raises(NotReady, match=message):
        runtime(*stack(), Target("worker", **second)).prepare()


@pytest.mark.parametrize(
    ("ports", "wanted", "found"),
    [
        (WEB, 0, "http://127.0.0.1:18080"),
        (WEB, 8080, "http://127.0.0.1:18080"),
        ({"443/tcp": [("", 18443)], **WEB}, 8080, "http://127.0.0.1:18080"),
        ({"443/tcp": [("", 18443)], **WEB}, 443, "http://127.0.0.1:18443"),
        ({"8080/udp": [("", 1)], **WEB}, 0, "http://127.0.0.1:18080"),
        ({"443/tcp": [("", 0)], **WEB}, 0, "http://127.0.0.1:18080"),
        ({"443/tcp": [], **WEB}, 0, "http://127.0.0.1:18080"),
        ({"8080/tcp": [("::1", 18180)]}, 0, "http://[::1]:18180"),
        ({"8080/tcp": [("192.0.2.1", 18180)]}, 0, "http://192.0.2.1:18180"),
        ({"8080/tcp": [("0.0.0.0", 18180), ("::", 18180)]}, 0, "http://127.0.0.1:18180"),
        ({"443/tcp": [("", 18443)], **WEB}, 0, "llmchaos_api names 'web', which publishes 2 ports (443, 8080): write the"),
        (WEB, 443, "llmchaos_api names port 443 of 'web', which publishes 8080"),
        ({}, 443, "llmchaos_api names port 443 of 'web', which publishes no fixed port"),
        ({"8080/tcp": [("", 0)]}, 0, "service 'web' publishes no fixed port on this machine"),
    ],
)  # fmt: skip
def test_the_address_of_a_service_is_that_of_its_container_port(runtime, ports, wanted, found):
    made = runtime(*stack(ports=ports), ports=(("web", "", wanted), ("prom", "", 0)))

    if found.startswith("http"):
        made.prepare()
        assert (made.url("web"), made.url("prom")) == (found, "http://127.0.0.1:19090")
        return
    with pytest.raises(NotReady) as caught:
        made.prepare()
    assert found in str(caught.value)


def test_a_port_on_the_loopback_of_another_machine_is_an_error():
    far = Place(reach="192.0.2.7", elsewhere="the Docker daemon is on another machine")
    web = Target("web", ports=WEB)

    with pytest.raises(
        NotReady, match=r"publishes its port on 127\.0\.0\.1 alone, but the Docker daemon is on another"
    ):
        attach_preflight.address_of("web", 0, "llmchaos_api", [web], far)
    web = Target("web", ports={"8080/tcp": [("127.0.0.1", 1), ("", 2)]})
    assert attach_preflight.address_of("web", 0, "llmchaos_api", [web], far) == ("192.0.2.7", 2)


def test_a_port_on_every_ipv4_address_alone_is_an_error_without_ipv4_loopback(monkeypatch):
    monkeypatch.setattr(ports, "is_own_address", lambda host: host == "::1")
    web = Target("web", ports={"8080/tcp": [("0.0.0.0", 1)]})

    with pytest.raises(
        NotReady,
        match=r"its port on 0\.0\.0\.0 alone, but this machine has no such loopback address: .* reached at ::1",
    ):
        attach_preflight.address_of("web", 0, "llmchaos_api", [web], Place())


class Plain(Target):
    """A container that Compose did not start."""

    def __init__(self, name, ports=None, *, status="running", number=None, **labels):
        super().__init__("", ports, status=status)
        self.name = name
        self.labels = {"llmchaos.allow": "true", "role": "model", **labels}
        if number is not None:
            self.labels[NUMBER] = number


VLLM = {"compose": (), "api": "container:my-vllm", "prometheus": "container:prom", "targets": ("label:role=model",)}


def test_containers_without_compose_are_checked_as_services_are(runtime):
    plain = [Plain("my-vllm", WEB, role="api"), Plain("prom", PROM, role="judge"), Plain("gpu-1")]
    made = runtime(*plain, Target("web"), project="", **VLLM)

    made.prepare()

    assert set(made._containers()) == {"my-vllm", "prom", "model"}
    assert (made.url("my-vllm"), made._container("model")) == ("http://127.0.0.1:18080", plain[2])


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "llmchaos_targets names 'label:role=model', which no container has"),
        (
            [Plain("gpu-1", status="exited")],
            r"target 'model' does not run \(exited\): start it \(`docker start gpu-1`\)",
        ),
        ([Plain("gpu-1", **{"llmchaos.allow": "no"})], "target 'model' lacks the label llmchaos.allow=true"),
        ([Plain("gpu-1"), Plain("gpu-2")], r"'label:role=model' is on several containers \(gpu-1, gpu-2\): name each"),
        ([Plain("gpu-1", number="1"), Plain("gpu-2", number="2")], ""),
    ],
)
def test_a_label_stands_for_one_container_or_for_replicas_of_one_service(runtime, models, message):
    made = runtime(Plain("my-vllm", WEB, role="api"), Plain("prom", PROM, role="judge"), *models, project="", **VLLM)

    if message:
        with pytest.raises(NotReady, match=message):
            made.prepare()
    else:
        made.prepare()


def test_a_label_is_looked_for_in_every_project(runtime):
    inside = Target("web", **{"role": "model", "com.docker.compose.container-number": "1"})
    outside = Plain("gpu-2", number="2")
    made = runtime(inside, outside, api="web", targets=("label:role=model",), prometheus="")

    assert made._client is None
    made._client = made._new_client()

    assert made._by_service() == {"model": [inside, outside]}


def test_containers_without_compose_have_no_project(folder, monkeypatch):
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: "")

    assert preflight.examine(subject_of(folder, attach=True, **VLLM)).project == attach_preflight.NO_PROJECT
