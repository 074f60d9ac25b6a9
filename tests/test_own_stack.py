"""Ini keys as the subject. A missing or wrong key is one error that names it."""

from dataclasses import replace

import pytest
from support.own_stack_keys import KEYS, make_folder, subject_of

from pytest_llmchaos.errors import BadScenario, Unsupported
from pytest_llmchaos.slo.openslo import slos_of
from pytest_llmchaos.subject import own_stack
from pytest_llmchaos.subject.headers import Header
from pytest_llmchaos.subject.lab import Endpoint, lab_subject


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def test_keys_are_a_subject(folder):
    subject = subject_of(folder, model="m:1b", tokens_per_s=80.0, allow=("volume:m",))

    assert subject.targets == ("web", "worker")
    assert (subject.api, subject.api_port, subject.remediator) == ("web", None, None)
    assert (subject.model, subject.capacity_tokens_per_s) == ("m:1b", 80.0)
    assert (subject.replica_header, subject.availability_query, subject.requests_query) == (None, None, None)
    assert subject.compose_files == (folder / "compose.yaml",)
    assert subject.own
    assert subject.allow == ("volume:m",)
    assert not subject.attach
    assert subject.ready_path is None
    assert subject_of(folder, attach=True, project="shop-2").project == "shop-2"
    assert subject_of(folder, ready_path="/readyz").ready_path == "/readyz"
    assert subject.audit_file == "/audit/audit.jsonl"
    assert subject_of(folder, remediator="fixer", audit_file="/log").audit_file == "/log"
    assert subject_of(folder, api="web:8080").api_port == 8080


def test_a_run_brings_the_judge_of_the_stack_that_it_starts(folder):
    subject = subject_of(folder, metrics=("web:9100/custom", "web", "worker"), prometheus="prom:9090/prefix")

    assert subject.brings_judge
    assert (subject.prometheus, subject.pushgateway) == (own_stack.JUDGE, own_stack.PUSHGATEWAY)
    assert subject.scrapes == (
        Endpoint(service="web", port=9100, path="/custom"),
        Endpoint(service="web"),
        Endpoint(service="worker"),
    )
    assert subject.scrape_jobs == ("web", "worker", own_stack.PUSHGATEWAY)
    assert subject.alerts == Endpoint(service="prom", port=9090, path="/prefix")
    assert subject_of(folder, prometheus="").alerts is None


def test_a_run_brings_the_judge_of_a_stack_that_runs_already(folder):
    subject = subject_of(folder, attach=True, metrics=("web",), api="web:8080", prometheus="prom:9090/prefix")

    assert subject.brings_judge
    assert subject.scrape_jobs == ("web", own_stack.PUSHGATEWAY)
    assert subject.ports == (("web", "", 8080), ("prom", "", 9090))


def test_services_have_the_model_servers_that_the_user_names(folder):
    subject = subject_of(folder, metrics=("web", "worker"), servers=("web: vllm", "worker :vllm"))

    assert subject.servers == (("web", "vllm"), ("worker", "vllm"))
    assert subject_of(folder).servers == ()
    container = {"metrics": ("container:web",), "servers": ("container:web: vllm",), "attach": True}
    assert subject_of(folder, **container).servers == (("web", "vllm"),)


def test_without_an_slo_file_the_clients_judge(folder):
    (slo,) = slos_of(subject_of(folder, slo="").slo_file)

    assert (slo.name, slo.objective) == ("availability", 0.995)
    assert slo.total.startswith("llmchaos_client_requests_total")


def test_docker_restarts_services_only_if_the_user_wants_it(folder):
    assert [subject_of(folder, restart=one).keeps_restart for one in ("", "no", "keep")] == [False, False, True]


def test_without_a_compose_file_the_lab_is_the_subject(folder):
    assert own_stack.own_subject(own_stack.OwnKeys(), folder) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compose": ()}, "llmchaos_api needs llmchaos_compose"),
        ({"compose": ("no.yaml",)}, r"llmchaos_compose: no file at .*no\.yaml"),
        (
            {"replica_header": "x replica"},
            "llmchaos_replica_header must be the name of a response header.* got 'x replica'",
        ),
        ({"ready_path": "readyz"}, "llmchaos_ready_path must be a path such as /readyz, got 'readyz'"),
        ({"audit_file": "log", "remediator": "fixer"}, "llmchaos_audit_file must be a path such as .* got 'log'$"),
        ({"audit_file": "/log"}, "llmchaos_audit_file .* got '/log' and no llmchaos_remediator: add it"),
        ({"slo": "no.yaml"}, r"llmchaos_slo: no file at .*no\.yaml"),
        ({"api": ""}, "llmchaos_api is missing, the service that .*: add it, such as llmchaos_api = web"),
        ({"agent": "agent/tasks"}, "llmchaos_agent must be .* such as agent or agent:8200, got 'agent/tasks'"),
        ({"ledger": "desk:8100/ledger"}, "llmchaos_ledger has no effect without llmchaos_agent, .*: add it"),
        ({"agent": "a", "ledger": "desk:x"}, "llmchaos_ledger must be .* such as desk:8100/ledger, got 'desk:x'"),
        (
            {"agent": "a:8200", "ledger": "a:8100/ledger"},
            "llmchaos_agent and llmchaos_ledger name two ports of 'a', and a run reaches one of a service: give both",
        ),
        ({"prometheus": "prom:x"}, "llmchaos_prometheus must be a service .* got 'prom:x'"),
        ({"metrics": ("web:0",)}, "llmchaos_metrics must be a service .* such as web:8080/metrics, got 'web:0'"),
        ({"metrics": ("web:70000",)}, "llmchaos_metrics must be .* got 'web:70000'"),
        ({"profiles": ("cpu",), "attach": True}, "llmchaos_profiles has no effect with llmchaos_attach"),
        ({"restart": "keep", "attach": True}, "llmchaos_restart has no effect with llmchaos_attach"),
        ({"restart": "always"}, 'llmchaos_restart must be "no" .* or "keep" .* got \'always\''),
        ({"profiles": ("c;pu",)}, "llmchaos_profiles must be names of profiles .* got 'c;pu'"),
        ({"targets": ()}, "llmchaos_targets is missing, .* such as llmchaos_targets = web worker"),
        ({"api": "web two"}, "llmchaos_api must be a service .* such as web or web:8080, got 'web two'"),
        ({"api": "web/v1"}, "llmchaos_api must be .* got 'web/v1'"),
        ({"api": "we;b"}, "llmchaos_api must be .* got 'we;b'"),
        ({"remediator": "fix er"}, "llmchaos_remediator must be .* got 'fix er'"),
        ({"targets": ("web", "wor;ker")}, "llmchaos_targets must be names of services .* got 'wor;ker'"),
        ({"allow": ("models",)}, "llmchaos_allow must be entries such as volume:models .* got 'models'"),
        (
            {"allow": ("volume:models",), "attach": True},
            "llmchaos_allow has no effect with llmchaos_attach: .* drop llmchaos_allow",
        ),
        ({"allow": ("volume:m", ":web")}, "llmchaos_allow must be .* got ':web'"),
        ({"project": "shop"}, "llmchaos_project has an effect only with llmchaos_attach"),
        ({"project": "Shop", "attach": True}, "llmchaos_project must be the name of a Compose project.* got 'Shop'"),
        ({"published_on": "a b"}, "llmchaos_published_on must be an address or a host name, .* got 'a b'"),
        (
            {"prometheus_headers": ("s3cret",)},
            "llmchaos_prometheus_headers must be lines .* got a line that does not begin with a name",
        ),
        ({"prometheus_headers": ("X:  ",)}, "llmchaos_prometheus_headers must be .* got 'X' without a value"),
        ({"prometheus_headers": ("a b: c",)}, "llmchaos_prometheus_headers must be .* got a line that"),
        ({"servers": ("web vllm",)}, "llmchaos_servers must be entries SERVICE: SERVER, such as .*, got 'web vllm'"),
        ({"servers": ("web: vLLM",)}, "llmchaos_servers must be entries .* got 'web: vLLM'"),
        (
            {"servers": ("wbe: vllm",), "metrics": ("web:9000",)},
            "llmchaos_servers names the service 'wbe', .* add it there, such as wbe:PORT/metrics; did you mean 'web'.",
        ),
        (
            {"servers": ("web: vllm",)},
            "'web', which has no endpoint in llmchaos_metrics: add it there, such as web:PORT/metrics",
        ),
        (
            {"queries": ("no.yml",)},
            "llmchaos_queries: no file at .*no.yml: give a path from the folder of the ini file",
        ),
        (
            {"servers": ("web: vllm", "web:vllm"), "metrics": ("web",)},
            "llmchaos_servers names 'web' twice, as vllm and vllm: remove one of the entries",
        ),
        ({"tokens_per_s": 0.0}, "llmchaos_tokens_per_s must be a number above 0 and below 1e9, got 0"),
        ({"tokens_per_s": float("nan")}, "llmchaos_tokens_per_s must be .* got nan"),
    ],
)
def test_a_key_that_is_wrong_or_missing_is_named(folder, changes, message):
    with pytest.raises(BadScenario, match=message):
        subject_of(folder, **changes)


@pytest.mark.parametrize(
    ("key", "written"), [("api", 'llmchaos_api = "web"'), ("targets", 'llmchaos_targets = ["web", "worker"]')]
)
def test_the_example_of_a_missing_key_has_the_format_of_the_ini_file(folder, key, written):
    keys = own_stack.OwnKeys(**{**KEYS, key: ()})

    with pytest.raises(BadScenario) as refused:
        own_stack.own_subject(keys, folder, toml=True)

    assert str(refused.value).endswith(f"add it, such as {written}")


def test_a_stack_that_runs_already_needs_a_compose_file_too(folder):
    with pytest.raises(BadScenario, match="llmchaos_attach needs llmchaos_compose"):
        own_stack.own_subject(own_stack.OwnKeys(attach=True), folder)


CONTAINERS = {
    "compose": (),
    "api": "container:my-vllm:8000",
    "prometheus": "label:app.kubernetes.io/name=prom:9090/prefix",
    "metrics": ("container:my-vllm:8000/metrics",),
    "targets": ("container:my-vllm", "label:role=model"),
}


def test_a_running_stack_may_be_containers_by_name_or_by_label_without_a_compose_file(folder):
    subject = subject_of(folder, attach=True, **CONTAINERS)

    assert subject.compose_files == ()
    assert subject.targets == ("my-vllm", "model")
    assert (subject.api, subject.alerts) == ("my-vllm", Endpoint(service="prom", port=9090, path="/prefix"))
    assert subject.scrapes == (Endpoint(service="my-vllm", port=8000, path="/metrics"),)
    assert subject.ports == (("my-vllm", "", 8000), ("prom", "", 9090))
    assert dict(subject.selectors) == {
        "my-vllm": "container:my-vllm",
        "prom": "label:app.kubernetes.io/name=prom",
        "model": "label:role=model",
    }


def test_services_of_a_project_and_other_containers_can_be_mixed(folder):
    subject = subject_of(folder, attach=True, targets=("web", "container:gpu-1"), replicas=("container:gpu-1",))

    assert (subject.targets, subject.replicas) == (("web", "gpu-1"), ("gpu-1",))
    assert subject.selectors == (("gpu-1", "container:gpu-1"),)
    assert subject_of(folder, attach=True, targets=("web", "gpu-1"), replicas=("container:gpu-1",)).replicas == (
        "gpu-1",
    )


def test_a_project_that_the_user_names_needs_no_compose_file(folder):
    subject = subject_of(folder, attach=True, project="shop", compose=())

    assert (subject.compose_files, subject.project, subject.selectors) == ((), "shop", ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("container:my-vllm", "web")}, "llmchaos_api needs llmchaos_compose"),
        ({"api": "web"}, "llmchaos_api needs llmchaos_compose"),
        ({"replicas": ("web",)}, "llmchaos_api needs llmchaos_compose"),
        ({"remediator": "fixer"}, "llmchaos_api needs llmchaos_compose"),
        ({"targets": ("container:my-vllm", "label:name=my-vllm")}, "'label:name=my-vllm', and 'container:my-vllm' has the"),
        ({"metrics": ("web",)}, "llmchaos_api needs llmchaos_compose"),
        ({"metrics": ("label:role=model:80",)}, "llmchaos_metrics names 'label:role=model', and Prometheus reaches a"),
        ({"metrics": ("model:80",)}, "llmchaos_metrics names 'label:role=model'"),
        ({"targets": ("label:gpu",)}, "llmchaos_api needs llmchaos_compose"),
    ],
)  # fmt: skip
def test_containers_with_one_name_or_without_their_project_are_an_error(folder, changes, message):
    with pytest.raises(BadScenario, match=message):
        subject_of(folder, attach=True, **{**CONTAINERS, **changes})


@pytest.mark.parametrize("text", ["container:my-vllm", "label:role=model", "label:gpu"])
def test_a_stack_that_the_run_starts_has_services_alone(folder, text):
    with pytest.raises(BadScenario, match=f"llmchaos_targets must be names of services .* got '{text}'"):
        subject_of(folder, targets=(text,))


@pytest.mark.parametrize(
    ("toml", "written"),
    [
        (True, 'llmchaos_api = "web"\nllmchaos_targets = ["web", "worker"]\nllmchaos_tokens_per_s = 500'),
        (False, "llmchaos_api = web\nllmchaos_targets = web worker\nllmchaos_tokens_per_s = 500"),
    ],
)
def test_the_former_key_for_all_roles_is_refused_with_the_lines_to_write(toml, written):
    with pytest.raises(BadScenario) as refused:
        own_stack.refuse_services(["api: web", "targets: web worker", "tokens_per_s: 500"], toml=toml)

    assert str(refused.value) == f"llmchaos_services is not an ini key: each role has its own, so write\n{written}"


def test_a_service_is_named_by_the_first_key_that_has_it(folder):
    subject = subject_of(folder, targets=("web", "worker"), remediator="fixer")

    assert own_stack.services_by_key(subject) == {
        "web": "llmchaos_api",
        "prom": "llmchaos_prometheus",
        "fixer": "llmchaos_remediator",
        "worker": "llmchaos_targets",
    }
    agents = subject_of(folder, agent="agent:8200", ledger="desk:8100/ledger")
    assert own_stack.services_by_key(agents).items() >= {"agent": "llmchaos_agent", "desk": "llmchaos_ledger"}.items()
    assert {(one.service, key) for one, key in own_stack.reached(agents)} >= {
        ("agent", "llmchaos_agent"),
        ("desk", "llmchaos_ledger"),
    }
    judged = subject_of(folder, prometheus="", metrics=("node",))
    assert own_stack.services_by_key(judged)["node"] == "llmchaos_metrics"


def test_a_load_of_tasks_goes_to_the_agent(folder):
    subject = subject_of(
        folder,
        agent="agent:8200",
        ledger="desk:8100/ledger",
        headers=("Host: llm.localhost", "X-Team: a"),
        tls="system",
        ready_path="/ready",
        replica_header="x-replica",
    )

    seen = subject.for_tasks()

    assert seen.ports == (("web", "", 0), ("prom", "", 0), ("agent", "", 8200), ("desk", "", 8100))
    assert (seen.api, seen.api_port, seen.requests.path, seen.requests.tls) == ("agent", 8200, "/tasks", "")
    assert [header.name for header in seen.requests.headers] == ["X-Team"]
    assert (seen.ready_path, seen.replica_header, seen.ledger.path) == (None, None, "/ledger")


def test_tasks_without_an_agent_or_a_model_for_tools_are_refused(folder):
    with pytest.raises(BadScenario, match="the stack lacks one: set llmchaos_agent to its service, such as agent:8200"):
        subject_of(folder).for_tasks()
    with pytest.raises(BadScenario, match=r"the stack lacks one: the lab has one if an experiment\(load=...\)"):
        replace(lab_subject("sim"), agents=None).for_tasks()
    for backend in ("ollama", "llamacpp"):
        with pytest.raises(Unsupported, match=r"smollm2:135m cannot call tools, .* use --chaos-backend=sim"):
            lab_subject(backend).for_tasks()


def test_without_the_former_key_nothing_is_refused():
    own_stack.refuse_services([], toml=True)


@pytest.mark.parametrize("lines", [["5"], ["unknown: x"], ["api:"]])
def test_the_former_key_with_anything_else_is_answered_with_what_to_write(lines):
    with pytest.raises(BadScenario) as refused:
        own_stack.refuse_services(lines, toml=True)

    assert str(refused.value) == (
        "llmchaos_services is not an ini key: each role has its own, so write\n"
        'llmchaos_api = "web"\nllmchaos_targets = ["web", "worker"]'
    )


def test_a_start_may_take_as_long_as_the_user_allows(folder):
    assert subject_of(folder).startup_s == 120
    assert subject_of(folder, startup_s=900.0).startup_s == 900
    with pytest.raises(BadScenario, match="llmchaos_startup_s must be seconds above 0 and below 1e6, got 0"):
        subject_of(folder, startup_s=0.0)
    with pytest.raises(BadScenario, match="llmchaos_startup_s has no effect with llmchaos_attach"):
        subject_of(folder, startup_s=9.0, attach=True)


def test_profiles_and_headers_are_taken_as_they_are(folder):
    headers = ("Authorization: Bearer $TOKEN", "X-Scope-OrgID: 7")

    subject = subject_of(folder, profiles=("cpu", "debug"), prometheus_headers=headers)

    assert subject.profiles == ("cpu", "debug")
    assert subject.prometheus_headers == (Header("Authorization", "Bearer $TOKEN"), Header("X-Scope-OrgID", "7"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attach", True),
        ("prometheus", "prom"),
        ("profiles", ("cpu",)),
        ("restart", "keep"),
        ("remediator", "fixer"),
        ("allow", ("volume:models",)),
        ("published_on", "docker"),
    ],
)
def test_a_key_that_needs_docker_is_refused_for_processes(folder, key, value):
    subject = subject_of(folder, **{"prometheus": "", key: value})

    with pytest.raises(BadScenario, match=f"llmchaos_{key} needs the compose runtime, and the runtime is local"):
        own_stack.require_local(subject)


def test_a_stack_without_such_keys_can_run_as_processes(folder):
    own_stack.require_local(subject_of(folder, prometheus=""))
