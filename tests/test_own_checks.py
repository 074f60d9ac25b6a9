"""Checks of a user's own stack."""

from dataclasses import replace

import pytest
from support.fake_compose import FakeCompose
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos import experiment, faults, loads  # noqa: F401 - else each session inside these tests would import them anew
from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.runtime.docker import agent_image, attached, docker_cli
from pytest_llmchaos.session import own_checks
from pytest_llmchaos.session.own_checks import Problems
from pytest_llmchaos.slo.arithmetic import InvalidSlo
from pytest_llmchaos.subject.headers import headers_of

PROJECT = "com.docker.compose.project"
PORT = {"target": 8080, "published": "1", "protocol": "tcp"}
SERVICES = {"web": {"ports": [PORT]}, "worker": {"restart": "always"}, "prom": {"ports": [PORT]}}
SCENARIO = """
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault=faults.kill("worker"))

def test_one(trial):
    assert trial
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("NOT_SET", raising=False)
    FakeCompose({"services": SERVICES}).install(monkeypatch)
    return make_folder(tmp_path)


class Container:
    """A container as the SDK shows it."""

    def __init__(self, service, *, status="running", **labels):
        self.name, self.id, self.status = f"shop-{service}-1", service, status
        self.labels = {"com.docker.compose.service": service, PROJECT: "shop", "llmchaos.allow": "true", **labels}
        binding = [{"HostIp": "", "HostPort": "18080"}]
        self.attrs = {"HostConfig": {"PortBindings": {"8080/tcp": binding}}}


class Client:
    """The SDK's client, which can list and nothing else."""

    def __init__(self, *containers):
        self.containers, self._all, self.is_closed = self, containers, False

    def list(self, *, filters, **_):
        wanted = filters["label"] if isinstance(filters["label"], list) else [filters["label"]]
        pairs = [one.split("=", 1) for one in wanted]
        return [one for one in self._all if all(one.labels.get(name) == value for name, value in pairs)]

    def close(self):
        self.is_closed = True


@pytest.fixture
def containers(monkeypatch):
    """Let a project have these containers. Returns the client."""

    def have(*found):
        client = Client(*found)
        monkeypatch.setattr(attached.AttachedRuntime, "_new_client", lambda _: client)
        return client

    return have


@pytest.fixture
def plan(pytester, folder):
    """The plan of a scenario on a user's stack."""

    def run(*args, scenario=SCENARIO, **keys):
        written = {
            "compose": f"{folder}/compose.yaml",
            "slo": f"{folder}/slo.yaml",
            "api": "web",
            "targets": "web worker",
            **keys,
        }
        pytester.makeini("[pytest]\n" + "".join(f"llmchaos_{key} = {value}\n" for key, value in written.items()))
        pytester.makepyfile(test_scenario=scenario)
        result = pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:locust", *args)
        return result, [*result.outlines, *result.errlines]

    return run


def all_problems(subject):
    problems = Problems()
    own_checks.examine(subject, problems)
    with pytest.raises((NotReady, BadScenario)) as caught:
        problems.require_none()
    return caught


def test_problems_that_do_not_depend_on_each_other_are_one_message(folder):
    (folder / "slo.yaml").write_text("")
    (folder / "ca.pem").write_text("no certificate")
    subject = subject_of(
        folder,
        targets=("web", "wroker"),
        headers=("Authorization: Bearer $NOT_SET",),
        prometheus_headers=("X-Key: $NOT_SET",),
        tls="ca.pem",
    )

    lines = str(all_problems(subject).value).splitlines()

    assert [line.partition(" ")[0] for line in lines] == [
        "llmchaos_prometheus_headers:",
        "llmchaos_headers:",
        "llmchaos_tls:",
        f"{folder}/slo.yaml:1:1:",
        f"{folder}/compose.yaml:",
    ]
    assert "llmchaos_targets names 'wroker', which the compose file lacks; did you mean 'worker'? it has" in lines[-1]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"", r"slo\.yaml:1:1: must hold at least one document of kind SLO, got none"),
        (b"kind: [", r"slo\.yaml"),
        (b"\xff\xfe", r"slo\.yaml: must be a text file in UTF-8 that can be read"),
    ],
)
def test_an_only_problem_keeps_its_error(folder, written, message):
    (folder / "slo.yaml").write_bytes(written)

    caught = all_problems(subject_of(folder))

    assert caught.type is InvalidSlo
    caught.match(message)


def test_several_wrong_files_are_a_wrong_scenario_and_a_missing_variable_is_not(folder):
    (folder / "slo.yaml").write_text("")
    wrong = subject_of(folder, targets=("wroker",))

    assert all_problems(wrong).type is BadScenario
    assert all_problems(replace(wrong, prometheus_headers=headers_of(("X-Key: $NOT_SET",)))).type is NotReady


def test_a_plan_shows_what_the_start_would_refuse(plan):
    result, lines = plan("--chaos-plan", headers="Authorization: Bearer $NOT_SET", metrics="nod:1")

    assert result.ret == 0
    refused = [line for line in lines if line.startswith("not ready: ")]
    assert len(refused) == 2
    assert "needs the environment variable NOT_SET, which is not set" in refused[0]
    assert "llmchaos_metrics names 'nod', which the compose file lacks" in refused[1]
    assert any(line.startswith("test_scenario") or "kill worker at +0 s" in line for line in lines)
    assert any("nothing was touched" in line for line in lines)


ON_THE_WIRE = SCENARIO.replace('faults.kill("worker")', 'faults.flaky("worker"), fault_s=1')
MARKED = f"""import pytest
{SCENARIO}
@pytest.mark.llmchaos_wire("worker")
def test_free(lab):
    assert lab
"""
NO_AGENT = f"{agent_image.VARIABLE} names the image mirror/agent:2, which Docker lacks: unset the variable, or pull"


@pytest.fixture
def no_agent(monkeypatch, containers):
    """Docker lacks the image of the fault agent, and a project runs."""
    monkeypatch.setenv(agent_image.VARIABLE, "mirror/agent:2")
    monkeypatch.setattr(docker_cli, "has_image", lambda _: False)
    containers(Container("web"), Container("worker"))


@pytest.mark.parametrize("attach", ["false", "true"], ids=["own", "attached"])
@pytest.mark.parametrize(("scenario", "needed"), [(SCENARIO, False), (ON_THE_WIRE, True), (MARKED, True)])
@pytest.mark.usefixtures("no_agent")
def test_a_missing_image_of_the_fault_agent_is_in_the_plan_of_those_who_need_it(plan, attach, scenario, needed):
    result, lines = plan("--chaos-plan", scenario=scenario, attach=attach)

    assert result.ret == 0, lines
    assert [line.startswith(f"not ready: {NO_AGENT}") for line in lines if "not ready: " in line] == [True] * needed


@pytest.mark.parametrize("attach", ["false", "true"], ids=["own", "attached"])
@pytest.mark.usefixtures("no_agent")
def test_a_missing_image_of_the_fault_agent_ends_the_session_before_anything_starts(plan, attach):
    result, lines = plan("--chaos-unleash", scenario=ON_THE_WIRE, attach=attach, metrics="nod:1")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert any(NO_AGENT in line for line in lines), lines
    assert attach == "true" or any("llmchaos_metrics names 'nod'" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("vlm", "did you mean 'vllm'? they are "), ("openai", "they are "), ("qqqq", "they are ")],
)
def test_a_model_server_without_a_metrics_page_is_in_the_plan(plan, name, hint):
    result, lines = plan("--chaos-plan", metrics="web", servers=f"web: {name}")

    assert result.ret == 0
    (line,) = (line for line in lines if line.startswith("not ready: "))
    assert line.startswith(
        f"not ready: llmchaos_servers names '{name}' for web, and no model server with a metrics page"
    )
    assert f"has that name; {hint}" in line


@pytest.mark.usefixtures("no_agent")
def test_a_file_of_queries_that_cannot_be_read_is_in_the_plan(plan, folder):
    (folder / "board.json").write_text("{}")

    result, lines = plan("--chaos-plan", queries=f"{folder}/board.json")

    assert result.ret == 0
    (line,) = (line for line in lines if line.startswith("not ready: "))
    assert line.startswith("not ready: board.json must be a Grafana dashboard")


def test_a_model_server_without_a_metrics_page_ends_the_session_before_anything_starts(plan):
    result, lines = plan(metrics="web", servers="web: vlm")

    assert result.ret != 0
    assert any("did you mean 'vllm'?" in line for line in lines)
    assert not any("starting the stack" in line for line in lines)


def test_the_same_problem_is_named_once(folder, monkeypatch):
    def refuse():
        raise NotReady("no Docker daemon answers")

    monkeypatch.setattr(docker_cli, "require_engine", refuse)
    problems = Problems()

    own_checks.examine(subject_of(folder), problems, {"web"})

    assert [str(one) for one in problems.errors] == ["no Docker daemon answers"]


def test_a_plan_of_a_stack_that_is_ready_has_notes_alone(plan):
    _, lines = plan("--chaos-plan")

    assert not [line for line in lines if line.startswith("not ready")]
    assert any('note: the run starts worker (always) with restart: "no"' in line for line in lines)


@pytest.mark.parametrize("args", [["--chaos-plan"], []], ids=["plan", "leash"])
def test_a_plan_of_an_attached_stack_shows_for_each_target_whether_it_may_be_hit(plan, containers, args):
    client = containers(
        Container("web"), Container("worker", **{"llmchaos.allow": "no"}), Container("gpu", status="paused")
    )

    _, lines = plan(*args, attach="true", targets="web worker gpu")

    assert [line for line in lines if line.startswith("target ")] == [
        "target web: may be hit",
        (
            "target worker: may not be hit, because it lacks the label llmchaos.allow=true: "
            'add `labels: {llmchaos.allow: "true"}` to it in the compose file, then `docker compose up -d worker`'
        ),
        "target gpu: may not be hit, because it is paused: unpause it (`docker unpause shop-gpu-1`)",
    ]
    assert client.is_closed


def test_a_container_that_compose_did_not_start_gets_its_label_from_docker_run(plan, containers):
    plain = Container("model", **{"llmchaos.allow": "no", "role": "model"})
    del plain.labels["com.docker.compose.service"], plain.labels[PROJECT]
    containers(Container("web"), Container("worker"), plain)

    _, lines = plan("--chaos-plan", attach="true", targets="worker label:role=model")

    assert any("target model: may not be hit, because it lacks" in line for line in lines)
    assert any("start it anew with `--label llmchaos.allow=true`" in line for line in lines)


def test_a_stack_that_is_not_there_is_in_the_plan(plan, containers):
    containers()

    result, lines = plan("--chaos-plan", attach="true")

    assert result.ret == 0
    assert any(line.startswith("not ready: project 'shop' has no container") for line in lines)


MISSPELT = "llmchaos_targets names 'wroker', which"


@pytest.mark.parametrize("attach", ["false", "true"])
@pytest.mark.parametrize("args", [["--chaos-plan"], []], ids=["plan", "run"])
def test_a_misspelt_target_is_the_key_s_mistake_and_not_the_scenario_s(plan, containers, attach, args):
    containers(Container("web"), Container("worker"))

    result, lines = plan(*args, targets="web wroker", attach=attach)

    said = "\n".join(lines)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert MISSPELT in said
    assert "did you mean 'worker'?" in said
    assert "may be hit; available" not in said


def test_a_misspelt_fault_is_the_scenario_s_mistake(plan):
    result, lines = plan("--chaos-plan", targets="web")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "kill worker: target 'worker' matches no service that may be hit; available: web" in "\n".join(lines)
