"""Canonical names and checks of a start."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import yaml
from support.own_stack_keys import make_folder, subject_of
from support.prometheus_server import program
from support.server_pages import bare, full_page, made_up, native, page_with

from pytest_llmchaos.errors import NotReady, PrometheusUnreachable
from pytest_llmchaos.prometheus import scraped_pages
from pytest_llmchaos.prometheus.api import RefusedError
from pytest_llmchaos.runtime import judge_files
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.exposition import parse_page
from pytest_llmchaos.servers.preflight import ScrapedServer
from pytest_llmchaos.servers.rules import recording_rules
from pytest_llmchaos.session import model_servers
from pytest_llmchaos.slo.arithmetic import Slo


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def groups_of(subject):
    return yaml.safe_load(judge_files.rule_file(subject))["groups"]


def test_named_services_are_recorded_once_and_others_only_if_they_are_recognised(folder):
    subject = subject_of(folder, metrics=("web", "a.b", "worker"), servers=("web: vllm", "a.b: vllm"))

    groups = {one["name"]: one["rules"] for one in groups_of(subject)}

    engines = {
        one.name
        for one in servers().values()
        if one.kind == "engine" and any(e.status != "absent" for e in one.entries)
    }
    assert set(groups) == {"canonical-vllm", *(f"recognised-{one}" for one in engines), "llmchaos"}
    (named,) = (one for one in groups["canonical-vllm"] if one["record"] == "llmchaos:requests_running")
    (found,) = (one for one in groups["recognised-vllm"] if one["record"] == "llmchaos:requests_running")
    assert bare(named["expr"]) == 'vllm:num_requests_running{job=~"web|a[.]b"}'
    assert bare(found["expr"]) == (
        '(vllm:num_requests_running{job=~"worker"}) and on (job) '
        'last_over_time(llmchaos_server_recognised{server="vllm"}[30s])'
    )
    assert named["labels"] == found["labels"] == {"server": "vllm", "origin": "native"}


def test_a_stack_whose_servers_are_all_named_has_no_rules_of_others(folder):
    subject = subject_of(folder, metrics=("web",), servers=("web: vllm",))

    assert [one["name"] for one in groups_of(subject)] == ["canonical-vllm", "llmchaos"]
    assert groups_of(replace(subject, scrapes=(), servers=())) is None
    assert judge_files.unnamed(subject) == ()


def test_prometheus_accepts_the_rules_of_named_and_recognised_servers(folder):
    rules = folder / "rules.yml"
    pages = [one for one in servers().values() if one.kind != "provider"]
    subject = subject_of(folder, metrics=("web", "worker"), servers=("web: vllm",))
    rules.write_text(judge_files.rule_file(subject))
    every = folder / "every.yml"
    every.write_text(recording_rules(pages, 'job="web"'))

    for path in (rules, every):
        done = subprocess.run(
            [program("promtool"), "check", "rules", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


HISTOGRAM = "vllm:time_to_first_token_seconds"
PAGE = {
    'vllm:num_requests_running{job="JOB",service="JOB"}': "3x2",
    HISTOGRAM + '_bucket{job="JOB",service="JOB",le="0.1"}': "1x2",
    HISTOGRAM + '_bucket{job="JOB",service="JOB",le="+Inf"}': "2x2",
    'vllm:gpu_cache_usage_perc{job="JOB",service="JOB"}': "0.25x2",
}


def recorded(folder, subject, series):
    """The series that the rules record until 2 s, by promtool's own evaluation."""
    (folder / "rules.yml").write_text(judge_files.rule_file(subject))
    wanted = (
        "llmchaos:requests_running",
        "gen_ai_server_time_to_first_token_seconds_bucket",
        "llmchaos:kv_cache_usage_ratio",
    )
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1s",
        "tests": [
            {
                "interval": "1s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {"expr": f"sum by (job, server) ({one})", "eval_time": "2s", "exp_samples": []} for one in wanted
                ],
            }
        ],
    }
    (folder / "tests.yml").write_text(json.dumps(test))
    command = [program("promtool"), "test", "rules", "tests.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def page_of(*jobs):
    return {name.replace("JOB", job): values for job in jobs for name, values in PAGE.items()}


def test_labels_that_a_rule_adds_do_not_hide_or_merge_those_of_the_server(folder):
    labels = ("server", "origin", "ticks")
    given = [f'{label}="{value}"' for label in labels for value in "ab"]
    given += [f'exported_{label}="{value}"' for label in labels for value in "cd"]
    given += [f'server="prod",exported_server="{value}"' for value in "ab"]
    series = [{"series": f"owl:steps_total{{{one}}}", "values": "3x2"} for one in given]
    owl = made_up("owl", heartbeat=native("owl:steps_total{}", ticks="step"))
    (folder / "rules.yml").write_text(recording_rules([owl]))
    name = 'llmchaos:engine_steps_total{server="owl",origin="native",ticks="step"}'
    # Two series of its own name, and two of the name that is moved to it.
    counts = {"server": 6, "origin": 4, "ticks": 4}
    checks = [{"expr": f"count({name})", "eval_time": "2s", "exp_samples": [{"value": len(series)}]}]
    checks += [
        {"expr": f'count({name[:-1]},exported_{label}!=""}})', "eval_time": "2s", "exp_samples": [{"value": count}]}
        for label, count in counts.items()
    ]
    test = {"interval": "1s", "input_series": series, "promql_expr_test": checks}
    (folder / "tests.yml").write_text(
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "1s", "tests": [test]})
    )

    command = [program("promtool"), "test", "rules", "tests.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unnamed_service_is_recorded_once_it_is_recognised_as_that_server(folder):
    subject = subject_of(folder, metrics=("web", "worker"))
    pushed = 'llmchaos_server_recognised{job="web",service="llmchaos-pushgateway",server="vllm"}'

    before = recorded(folder, subject, page_of("web", "worker"))
    after = recorded(folder, subject, page_of("web", "worker") | {pushed: "1x2"})

    assert before.returncode == 0, before.stdout + before.stderr  # nothing was recorded
    assert after.returncode == 1
    told = after.stdout + after.stderr
    assert '{job="web", server="vllm"} 3E+00' in told
    assert '{job="web", server="vllm"} 2.5E-01' in told
    assert told.count('server="vllm"') == 3
    assert "worker" not in told


class Answers:
    """Data of a Prometheus by path, without its server. `has` are names with series."""

    url = "http://prom"

    def __init__(self, monkeypatch, *, has=(), rules=(), counts=()):
        self.has, self.rules, self.counts = {*has}, rules, counts
        monkeypatch.setattr(model_servers, "data_of", lambda server, path: server.data(path))

    def data(self, path):
        query = unquote(path.partition("query=")[2])
        if path == "/api/v1/rules":
            return {"groups": [{"rules": list(self.rules)}]}
        if query.startswith("count by"):
            return {"result": [{"metric": metric} for metric in self.counts]}
        return {"result": [1] if query[len("count(") : -1] in self.has else []}


KV = "vllm:gpu_cache_usage_perc"
NOW = "vllm:kv_cache_usage_perc"
ON_MODEL = ScrapedServer(service="model", page=page_with(NOW), server=servers()["vllm"], version="0.25.0")


def alert(query, name="KvFull", kind="alerting"):
    return {"name": name, "type": kind, "query": query}


def test_an_alert_that_reads_a_replaced_name_is_refused_with_the_new_one(monkeypatch):
    rules = [
        alert(f"{KV} > 0.9"),
        alert(f"max({KV})", "kv:max", "recording"),
        alert(f"{NOW} > 0.9", "Good"),
        alert("up{", "Odd"),
    ]
    theirs = Answers(monkeypatch, has=[NOW], rules=rules)

    with pytest.raises(NotReady) as refused:
        model_servers.require_live_rules(theirs, [ON_MODEL], pytest.fail)

    since = next(one.since for one in servers()["vllm"].of("kv_use") if NOW in one.expr)
    renamed = f"{KV}: vLLM has {NOW} in its place since {since} (vLLM 0.25.0 on model); correct its expression"
    assert str(refused.value).splitlines() == [
        f"alert KvFull of your Prometheus at http://prom can never fire: {renamed}",
        f"rule kv:max of your Prometheus at http://prom can never have a value: {renamed}",
    ]


@pytest.mark.parametrize(
    ("query", "has", "more"),
    [
        (f"{KV} > 0.9 or {NOW} > 0.9", [NOW], ()),
        (f"{KV} > 0.9", [NOW, KV], ()),
        (f"{KV} > 0.9", [NOW], [alert(NOW, KV, "recording")]),
        ("vllm:num_requests_running > 9", [NOW, "vllm:num_requests_running"], ()),
    ],
    ids=["for two versions", "another server has it", "a rule records it", "not replaced"],
)
def test_an_alert_that_can_fire_is_not_refused(monkeypatch, query, has, more):
    theirs = Answers(monkeypatch, has=has, rules=[alert(query), *more])

    model_servers.require_live_rules(theirs, [ON_MODEL], pytest.fail)


def test_an_alert_of_a_prometheus_that_does_not_scrape_the_server_is_a_note(monkeypatch):
    monkeypatch.setattr(model_servers, "THEIRS_S", 0.0)
    said = []

    model_servers.require_live_rules(Answers(monkeypatch, rules=[alert(KV)]), [ON_MODEL], said.append)

    assert said == [
        f"alert KvFull reads {KV}, which your Prometheus lacks, as it does {NOW}: it may not scrape the server"
    ]


def test_the_first_scrape_of_the_users_own_prometheus_is_awaited(monkeypatch):
    theirs = Answers(monkeypatch, rules=[alert(KV)])
    monkeypatch.setattr(model_servers.time, "sleep", lambda _: theirs.has.add(NOW))

    with pytest.raises(NotReady, match=r"alert KvFull .* can never fire"):
        model_servers.require_live_rules(theirs, [ON_MODEL], pytest.fail)


WHOLE = replace(ON_MODEL, page=full_page(servers()["vllm"]))


def test_an_alert_on_a_series_that_no_server_has_is_a_line(monkeypatch):
    lines = []
    rules = [
        alert("vllm:num_requests_wating > 3", "Typo"),
        alert("vllm:nonsense > 3", "Elsewhere"),
        alert("my:rule > 3", "Recorded"),
        alert(NOW, "my:rule", "recording"),
        alert("sglang:num_queue_reqs > 3", "Other"),
        alert("vllm_num_requests_waiting", "Colon"),
        alert("up{", "Odd"),
    ]

    model_servers.require_live_rules(Answers(monkeypatch, has=["vllm:nonsense"], rules=rules), [WHOLE], lines.append)

    typo, other, colon = lines
    assert typo == (
        "your Prometheus: alert Typo reads vllm:num_requests_wating, which is not there: The page lacks it. It has "
        "vllm:num_requests_waiting, which is similar. (vLLM 0.25.0 on model)"
    )
    assert other == (
        "your Prometheus: alert Other reads sglang:num_queue_reqs, which is not there: This is a name of SGLang, which has "
        "no page here: vLLM has vllm:num_requests_waiting. (vLLM 0.25.0 on model)"
    )
    assert colon.endswith("vLLM writes it with a colon. Use vllm:num_requests_waiting.")


RULES = f"groups: [{{name: a, rules: [{{alert: Full, expr: '{NOW} > 0.9'}}]}}]"
BOARD = json.dumps({"panels": [{"title": "KV", "targets": [{"expr": NOW}]}]})
KEDA = f"kind: ScaledObject\nmetadata: {{name: a}}\nspec: {{triggers: [{{type: prometheus, metadata: {{query: '{NOW}'}}}}]}}\n"


@pytest.mark.parametrize(
    ("text", "place"),
    [(RULES, "alert Full"), (BOARD, "panel 'KV'"), (KEDA, "ScaledObject a, trigger 1")],
    ids=["rules", "dashboard", "KEDA"],
)
def test_a_query_of_the_users_files_needs_its_series(tmp_path, text, place):
    file = tmp_path / "mine"
    file.write_text(text)

    model_servers.require_series([file], [WHOLE])

    file.write_text(text.replace(NOW, KV))
    with pytest.raises(NotReady) as refused:
        model_servers.require_series([file], [WHOLE])
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"mine: {place} reads {KV}, which is not there: ")
    assert f" vLLM has {NOW} in its place" in line


def test_a_query_of_a_dashboard_that_cannot_be_read_is_refused(tmp_path):
    file = tmp_path / "board.json"
    file.write_text(json.dumps({"panels": [{"title": one, "targets": [{"expr": one}]} for one in (NOW, "sum(")]}))

    with pytest.raises(NotReady, match=r"^board.json: panel 'sum\(': the query must be PromQL"):
        model_servers.require_series([file], [WHOLE])


def test_queries_that_nothing_can_be_compared_with_are_refused(tmp_path):
    model_servers.require_series([], [])

    with pytest.raises(NotReady, match=r"the series of a.yml, b.json \(llmchaos_queries\) cannot be checked"):
        model_servers.require_series([tmp_path / "a.yml", tmp_path / "b.json"], [])


E2E = "gen_ai_server_request_duration_seconds"


def e2e(matchers=""):
    return Slo(
        name="fast",
        objective=0.9,
        window_days=30,
        description="",
        good=f'{E2E}_bucket{{le="1"{matchers}}}',
        total=f"{E2E}_count",
    )


NATIVE, ENGINE, GATEWAY = {"job": "web"}, {"job": "model", "origin": "native"}, {"job": "router", "origin": "native"}
ROUTER = ScrapedServer(service="router", page=page_with(), server=servers()["vllm-router"])


@pytest.mark.parametrize(
    ("counts", "services"),
    [([NATIVE, ENGINE], "web has"), ([ENGINE, GATEWAY], "router has")],
    ids=["native", "recorded"],
)
def test_an_objective_that_counts_a_request_at_a_gateway_and_an_engine_is_refused(monkeypatch, counts, services):
    prometheus = Answers(monkeypatch, counts=counts)

    with pytest.raises(NotReady) as refused:
        model_servers.require_distinct(prometheus, [e2e()], [ON_MODEL, ROUTER])

    bucket, count = str(refused.value).splitlines()
    first = services.split()[0]
    assert count == (
        f"SLO fast reads {E2E}_count, which {services} and which is recorded for model, too, so that a request counts twice: "
        f'add a matcher to {E2E}_count, such as service="{first}"'
    )
    assert f"SLO fast reads {E2E}_bucket, which {services} and" in bucket


@pytest.mark.parametrize(
    "counts", [[NATIVE], [ENGINE], [ENGINE, {**ENGINE, "job": "model-2"}], [NATIVE, {"job": "web-2"}], []]
)
def test_an_objective_over_one_kind_of_service_is_clear(monkeypatch, counts):
    model_servers.require_distinct(Answers(monkeypatch, counts=counts), [e2e()], [ON_MODEL])


def test_objectives_over_other_names_need_no_query(monkeypatch):
    slo = Slo(name="one", objective=0.9, window_days=30, description="", good='x_total{a="b"}', total="x_total")

    model_servers.require_distinct(Answers(monkeypatch, counts=[NATIVE, ENGINE]), [slo], [ON_MODEL])


def test_queries_of_the_keys_require_canonical_and_replaced_names_alone():
    queries = {
        "llmchaos_busy_query": f"sum by (service) (llmchaos:requests_running) + web_open + {KV}",
        "llmchaos_rotation_query": "sum(llmchaos:requests_running or web_up)",
        "other": "sum(",
        "unset": None,
    }

    assert model_servers.names_in_queries(queries, [ON_MODEL]) == {
        "llmchaos:requests_running": "llmchaos_busy_query",
        KV: "llmchaos_busy_query",
    }


def test_a_prometheus_that_does_not_answer_is_named(monkeypatch):
    def refuse(*_):
        raise RefusedError(503, "answered 503")

    monkeypatch.setattr(model_servers, "data_of", refuse)
    prometheus = SimpleNamespace(url="http://prom")

    with pytest.raises(NotReady, match="Prometheus at http://prom could not answer /api/v1/rules: answered 503"):
        model_servers.require_live_rules(prometheus, [ON_MODEL], pytest.fail)


@pytest.fixture
def judge(monkeypatch):
    """Returns `find` on a stack with these pages, with its pushes and lines."""

    def of(pages, subject, status=200):
        pushed, said = [], []
        targets = [SimpleNamespace(job=one, last_scrape_unix_s=1e12) for one in pages]

        def push(method, url, *, timeout_s, content):
            pushed.append((method, url, content))
            return SimpleNamespace(is_success=status == 200, status_code=status)

        monkeypatch.setattr(model_servers, "page_of", lambda _, service: pages[service])
        monkeypatch.setattr(model_servers, "request", push)
        prometheus = SimpleNamespace(targets=lambda: targets)
        found = model_servers.find(prometheus, subject, "http://push", said.append)
        return {one.service: one for one in found}, pushed, said

    return of


VLLM, SGLANG, ROUTERS = (full_page(servers()[name]) for name in ("vllm", "sglang", "vllm-router"))


def test_an_engine_is_recorded_once_it_is_recognised_and_a_gateway_only_if_it_is_named(judge, folder):
    pages = {"model": VLLM, "web": ROUTERS, "desk": page_with("desk_open"), "other": SGLANG}
    subject = subject_of(folder, metrics=(*pages,), servers=("other: sglang",))

    found, pushed, said = judge(pages, subject)

    assert {name: (one.server.name, one.recorded) for name, one in found.items()} == {
        "other": ("sglang", True),
        "model": ("vllm", True),
        "web": ("vllm-router", False),
    }
    assert pushed == [("PUT", "http://push/metrics/job/model/server/vllm", "llmchaos_server_recognised 1\n")]
    assert [line.partition(" by its metrics (certain)")[2] for line in said] == [
        ", which have canonical names, too",
        ", a gateway: they have no canonical names unless llmchaos_servers names it",
    ]


def test_a_replica_that_exports_nothing_yet_is_as_the_one_that_answered(judge, folder):
    subject = subject_of(folder, metrics=("a", "b", "c"), replicas=("a", "b"))

    found, pushed, _ = judge({"a": SGLANG, "b": page_with(), "c": page_with()}, subject)

    assert {name: one.server.name for name, one in found.items()} == {"a": "sglang", "b": "sglang"}
    assert [url for _, url, _ in pushed] == [f"http://push/metrics/job/{one}/server/sglang" for one in "ab"]


def test_what_another_replica_exports_is_late_on_one_that_has_not_answered(judge, folder, tmp_path):
    """With `other`, a replica that has answered, and lacks it all the same."""
    subject = subject_of(folder, metrics=("a", "b"), replicas=("a", "b"), servers=("a: sglang", "b: sglang"))
    name = "sglang:generation_tokens_total"
    (tmp_path / "rules.yml").write_text(RULES.replace(NOW, name))
    new = parse_page("sglang:num_running_reqs 0\nsglang:num_queue_reqs 0\n")
    other = parse_page("sglang:num_running_reqs 0\nsglang:num_requests_total 3\n")

    for page, is_good in ((page_with(), True), (new, True), (other, False)):
        found, _, _ = judge({"a": SGLANG, "b": page}, subject)
        if is_good:
            model_servers.require_series([tmp_path / "rules.yml"], found.values())
        else:
            with pytest.raises(
                NotReady, match=rf"reads {name}, which is not there: The page lacks it \(missing\). \(SGLang on b"
            ):
                model_servers.require_series([tmp_path / "rules.yml"], found.values())


def test_a_replica_with_the_new_name_lacks_the_old_one_of_the_other(judge, folder, tmp_path):
    subject = subject_of(folder, metrics=("a", "b"), servers=("a: vllm", "b: vllm"))
    (tmp_path / "rules.yml").write_text(RULES.replace(NOW, KV))

    found, _, _ = judge({"a": page_with(KV), "b": page_with(NOW)}, subject)

    with pytest.raises(NotReady, match=f"vLLM has {NOW} in its place"):
        model_servers.require_series([tmp_path / "rules.yml"], found.values())


def test_a_server_of_another_package_is_named_with_it(judge, folder, monkeypatch):
    theirs = {"vllm": replace(servers()["vllm"], package="their-vllm 3.1")}
    monkeypatch.setattr(model_servers, "servers", lambda: servers() | theirs)

    for named in ((), ("model: vllm",)):
        _, _, said = judge({"model": VLLM}, subject_of(folder, metrics=("model",), servers=named))
        assert said[-1] == "model is judged by the file of vLLM from their-vllm 3.1"


def test_a_service_that_is_named_as_another_server_is_refused(judge, folder):
    subject = subject_of(folder, metrics=("model", "web"), servers=("model: sglang", "web: vllm"))

    with pytest.raises(NotReady) as refused:
        judge({"model": VLLM, "web": ROUTERS}, subject)

    first, second = str(refused.value).splitlines()
    assert first.startswith("llmchaos_servers names model as sglang, whose metrics begin with sglang: ")
    assert "it is of vLLM; correct the entry" in first
    assert second.startswith("llmchaos_servers names web as vllm, ")


def test_a_pushgateway_that_refuses_is_named(judge, folder):
    with pytest.raises(NotReady, match="the pushgateway at http://push answered 500: see its log"):
        judge({"model": VLLM}, subject_of(folder, metrics=("model",)), status=500)


def test_pages_are_read_after_a_scrape_from_now_on(monkeypatch, judge, folder):
    monkeypatch.setattr(model_servers, "SCRAPED_S", 60)
    looks = iter([[], [0.0], [1e12]])
    prometheus = SimpleNamespace(
        targets=lambda: [SimpleNamespace(job="model", last_scrape_unix_s=one) for one in next(looks)]
    )
    monkeypatch.setattr(model_servers.time, "sleep", lambda _: None)

    model_servers._await_scrapes(prometheus, {"model"})

    assert [*looks] == []


def test_a_page_has_the_scraped_series_and_the_declared_names(monkeypatch):
    result = [
        {"metric": {"__name__": name, "job": "model", **labels}, "value": [0, "2"]}
        for name, labels in (
            ("up", {}), ("scrape_duration_seconds", {}), ("vllm:num_requests_running", {"model_name": "m"}),
            ("llmchaos:requests_running", {"origin": "native", "server": "vllm"}),
            ("own:derived", {"origin": "derived", "server": "vllm"}),
            ("own:origin", {"origin": "native", "server": "web-1"}),
            ("own:region", {"origin": "eu", "server": "vllm"}),
        )
    ]  # fmt: skip
    result.append({"metric": {"__name__": "own:native", "job": "model"}, "histogram": [0, {"count": "7", "sum": "9"}]})
    asked = []

    def data(_, path):
        asked.append(unquote(path))
        return [{"metric": "vllm:num_requests_waiting", "type": "gauge"}] if "metadata" in path else {"result": result}

    monkeypatch.setattr(scraped_pages, "data_of", data)

    page = scraped_pages.page_of(SimpleNamespace(url="http://prom"), "model")

    assert [(one.name, one.value) for one in page.series] == [
        ("vllm:num_requests_running", 2.0),
        ("own:origin", 2.0),
        ("own:region", 2.0),
        ("own:native", 7.0),
    ]
    assert page.series[0].labels["model_name"] == "m"
    assert page.names == {"vllm:num_requests_waiting", *(one.name for one in page.series)}
    assert all('{job="model",service="model"}' in one for one in asked)


def test_a_page_that_prometheus_does_not_give_is_an_error(monkeypatch):
    def refuse(*_):
        raise ConnectionError("refused")

    monkeypatch.setattr(scraped_pages, "data_of", refuse)

    with pytest.raises(PrometheusUnreachable, match="http://prom could not answer about the metrics of model: refused"):
        scraped_pages.page_of(SimpleNamespace(url="http://prom"), "model")
