"""Causes of a metric that Prometheus lacks at the start."""

import contextlib
import dataclasses
import http.server
import json
import re
import socket
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
from support.server_pages import page_with

from pytest_llmchaos.errors import NotReady, PrometheusUnreachable
from pytest_llmchaos.prometheus import required_metrics
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.prometheus.required_metrics import coarse_bounds, require_metrics, require_rules, require_scrapes
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.preflight import ScrapedServer
from pytest_llmchaos.slo.arithmetic import Slo

SLO = Slo(name="one", objective=0.9, window_days=30, description="", good='app_total{code="200"}', total="app_total")
SCRAPED, NEVER = "2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(required_metrics, "METRICS_DEADLINE_S", 0.1)


def target(job="app", *, health="up", error="", scraped=SCRAPED):
    labels = {"job": job, "service": job}
    url = f"http://{job}:8080/metrics"
    return {"labels": labels, "scrapeUrl": url, "health": health, "lastError": error, "lastScrape": scraped}


@contextlib.contextmanager
def prometheus(*targets, series=(), names=(), prefix="", status=None, text="", location="", key=None, **queries):
    """A server that answers as Prometheus does, with these targets and series.

    With `status` it answers only that. With `key` it requires that header. Without
    targets it lacks the list of targets.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            path, asked = parts.path.removeprefix(f"{prefix}/api/v1/"), parse_qs(parts.query)
            answers = {
                "series": [{} for one in asked.get("match[]", ()) if one in series],
                "metadata": {},
                "rules": {"groups": []},
                "label/__name__/values": [*names],
                "query": {
                    "result": queries.get("coarse" if asked.get("query", [""])[0].startswith("count(") else "edges")
                },
                "targets": {"activeTargets": [*targets]} if targets != (None,) else None,
            }
            known = answers.get(path)
            code = status or (401 if key and self.headers["Authorization"] != key else 404 if known is None else 200)
            body = text if code != 200 else json.dumps({"status": "success", "data": known})
            self.send_response(code)
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def error_of(*targets, jobs=None, **about):
    with prometheus(*targets, **about) as url, pytest.raises(NotReady) as caught:
        require_metrics(Prometheus(url), [SLO], jobs=jobs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("targets", "cause"),
    [
        ((), "because it scrapes nothing: add the service to llmchaos_metrics"),
        (
            (target(health="down", error="connection refused"), target("node")),
            r"cannot scrape app at http://app:8080/metrics \(connection refused\): check port and path",
        ),
        (
            tuple(target(f"j{n}", health="down", error="401") for n in range(5)),
            r"j2 at http://j2:8080/metrics \(401\) and 2 more: check",
        ),
        (
            (target(health="unknown", scraped=NEVER),),
            r"did not scrape app at http://app:8080/metrics within 0\.1 s: see its log",
        ),
        ((None,), "check its name there, and that the service is scraped"),
    ],
    ids=["no target", "a target that fails", "many that fail", "not scraped yet", "no list of targets"],
)
def test_a_metric_that_is_missing_has_the_cause_that_the_targets_show(targets, cause):
    assert re.search(cause, error_of(*targets))


def test_a_metric_that_good_scrapes_lack_is_an_error_with_close_names_before_the_deadline(monkeypatch):
    monkeypatch.setattr(required_metrics, "METRICS_DEADLINE_S", 1e9)
    monkeypatch.setattr(required_metrics, "SETTLED_S", -1e9)

    assert "although it scrapes 1 targets without an error: check its name there (it has app_totals)" in error_of(
        target(), names=["app_totals"]
    )


def test_a_metric_is_awaited_while_the_last_scrape_is_older_than_the_first_answer(monkeypatch):
    """It is absent from the first answers, and exported a moment later."""
    looks = iter([[], ["app_total"]])
    monkeypatch.setattr(required_metrics, "METRICS_DEADLINE_S", 60)
    monkeypatch.setattr(required_metrics, "_is_known", lambda *_: next(looks, ["app_total"]))

    with prometheus(target()) as url:
        require_metrics(Prometheus(url), [SLO])


def test_only_endpoints_that_the_user_named_explain_a_metric_that_the_runs_own_prometheus_lacks():
    assert "because it scrapes nothing: add the service to llmchaos_metrics" in error_of(target("pushed"), jobs=[])
    pushed = target("pushed", health="down", error="pushed is down")
    assert "cannot scrape app at http://app:8080/metrics (refused):" in error_of(
        target(health="down", error="refused"), pushed, jobs=["app"]
    )


@pytest.mark.parametrize(
    ("about", "cause"),
    [
        ({"status": 401}, "answered 401, so it wants credentials: set llmchaos_prometheus_headers"),
        ({"status": 403}, "answered 403, so it wants credentials"),
        ({"status": 404}, "answered 404, so its API is below another path: add that path to llmchaos_prometheus"),
        ({"status": 302, "location": "/prometheus/"}, "redirects to the path /prometheus/: add the path"),
        ({"status": 308, "location": "https://x/"}, "redirects to an https:// address, which is not supported"),
        (
            {"status": 400, "text": "Client sent an HTTP request to an HTTPS server."},
            "expects TLS, which is not supported",
        ),
        ({"status": 503, "text": "Service\nUnavailable"}, "answered 503: Service Unavailable"),
    ],
    ids=lambda about: str(about.get("status", "")) if isinstance(about, dict) else "",
)
def test_an_http_status_is_quoted_and_never_read_as_a_missing_metric(about, cause):
    assert cause in error_of(**about)


def test_a_refusal_that_waiting_does_not_change_ends_the_wait_at_once(monkeypatch):
    monkeypatch.setattr(required_metrics, "METRICS_DEADLINE_S", 1e9)

    assert "answered 401" in error_of(status=401)


def test_a_server_that_does_not_answer_is_named_with_the_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    with pytest.raises(NotReady, match=rf"Prometheus at {url} does not answer: ConnectError: .*refused.*; check"):
        require_metrics(Prometheus(url), [SLO])


def test_a_prefix_and_credentials_lead_to_the_metrics(monkeypatch):
    with prometheus(target(), series=["app_total"], prefix="/prom", key="Bearer s3") as url:
        require_metrics(Prometheus(url, headers={"Authorization": "Bearer s3"}), [SLO])
        assert [one.job for one in Prometheus(url, headers={"Authorization": "Bearer s3"}).targets()] == ["app"]
        with pytest.raises(NotReady, match="answered 401"):
            require_metrics(Prometheus(url), [SLO])


@pytest.mark.parametrize("ask", [lambda server: server.value("up", 1.0), lambda server: server.targets()])
@pytest.mark.parametrize(("status", "cause"), [(401, "wants credentials"), (404, "API is below another path")])
def test_a_query_of_the_judge_quotes_the_status_too(ask, status, cause):
    with prometheus(status=status) as url, pytest.raises(PrometheusUnreachable, match=f"{status}, so it.*{cause}"):
        ask(Prometheus(url))


def test_rules_quote_the_status_too():
    with prometheus(status=401) as url, pytest.raises(PrometheusUnreachable, match=r"about its rules: it answered 401"):
        Prometheus(url).rules()


def test_the_users_own_prometheus_must_list_its_rules_before_the_first_trial(monkeypatch):
    headers = {"Authorization": "Bearer s3"}
    with prometheus(prefix="/prom", key="Bearer s3") as url:
        require_rules(Prometheus(url, headers=headers))
        with pytest.raises(NotReady, match="answered 401, so it wants credentials"):
            require_rules(Prometheus(url))
        with pytest.raises(NotReady, match="answered 404, so its API is below another path"):
            require_rules(Prometheus(url.removesuffix("/prom"), headers=headers))


@pytest.mark.parametrize(
    ("targets", "jobs", "message"),
    [
        ([target()], ["app"], ""),
        ([target(), target("other", health="down", error="refused")], ["app"], ""),
        (
            [target(health="down", error="refused")],
            ["app"],
            r"cannot scrape app at .* \(refused\): check port and path",
        ),
        ([target(health="unknown", scraped=NEVER)], ["app"], ""),
        ([None], ["app"], ""),
    ],
    ids=["good", "not of a key", "failed", "never scraped", "no list"],
)
def test_a_scrape_that_fails_is_an_error_whatever_else_is_wrong(monkeypatch, targets, jobs, message):
    monkeypatch.setattr(required_metrics, "FIRST_SCRAPE_S", 0.1)

    with prometheus(*targets) as url, pytest.raises(NotReady, match=message) if message else contextlib.nullcontext():
        require_scrapes(Prometheus(url), jobs)


def test_the_first_scrape_is_awaited(monkeypatch):
    looks = iter([(), _targets_of(target(scraped=NEVER)), _targets_of(target(error="refused"))])
    monkeypatch.setattr(required_metrics, "FIRST_SCRAPE_S", 60)
    monkeypatch.setattr(required_metrics, "_targets", lambda *_: next(looks))

    with pytest.raises(NotReady, match="refused"):
        require_scrapes(Prometheus("http://nowhere"), ["app"])


def _targets_of(*targets):
    with prometheus(*targets) as url:
        return Prometheus(url).targets()


def test_a_metric_that_arrives_between_two_looks_is_there(monkeypatch):
    series = []
    looks = required_metrics._targets

    def late(*about):
        found = looks(*about)
        series.append("app_total")
        return found

    monkeypatch.setattr(required_metrics, "_targets", late)
    with prometheus(target(scraped="2036-01-01T00:00:00Z"), series=series) as url:
        require_metrics(Prometheus(url), [SLO])


def test_a_counter_of_bad_events_that_is_missing_may_begin_late():
    """Its name may be right, as many services export it with the first error."""
    slo = Slo(name="one", objective=0.9, window_days=30, description="", bad="app_failed_total", total="app_total")
    with prometheus(target(), series=["app_total"]) as url, pytest.raises(NotReady) as error:
        require_metrics(Prometheus(url), [slo])

    assert "lacks the metric app_failed_total of the SLO file" in str(error.value)
    assert str(error.value).endswith(
        "; if app_failed_total begins with the first bad event, export it at 0 from the start"
    )


BOUNDED = Slo(
    name="ttft",
    objective=0.9,
    window_days=30,
    description="",
    good='x_bucket{le="0.5"}',
    total="x_count",
    threshold_s=0.5,
)
LACKS = [{"metric": {}, "value": [0, "1"]}]


def edges(*les, service="model"):
    return [{"metric": {"__name__": "x_bucket", "service": service, "le": le}, "value": [0, "3"]} for le in les]


def bounds_of(slo, **queries):
    with prometheus(**queries) as url:
        return coarse_bounds(Prometheus(url), [SLO, slo])


@pytest.mark.parametrize(
    ("found", "place"),
    [
        (edges("0.4", "0.8", "+Inf"), "between the edges 0.4 and 0.8 s"),
        (edges("0.4", "0.8", "+Inf") + edges("0.3", "0.5", "+Inf", service="other"), "between the edges 0.4 and 0.8 s"),
        (edges("1.9", "3.4", "+Inf"), "below the first edge, 1.9 s"),
        (edges("0.1", "+Inf"), "above the last edge, 0.1 s"),
    ],
)
def test_a_bound_that_is_no_edge_is_named_before_the_first_trial(found, place):
    (note,) = bounds_of(BOUNDED, coarse=LACKS, edges=found)

    assert note == (
        f"ttft: the bound 0.5 s lies {place} of x_bucket, so its share is an interval, and inconclusive if it holds the "
        "objective; rules of its burn alerts lack data"
    )
    (note,) = bounds_of(dataclasses.replace(BOUNDED, alerts=False), coarse=LACKS, edges=found)
    assert note.endswith("if it holds the objective")


def test_a_bound_that_the_file_does_not_declare_is_refused_with_its_neighbours():
    undeclared = dataclasses.replace(BOUNDED, threshold_s=None)

    with pytest.raises(NotReady) as refused:
        bounds_of(undeclared, coarse=LACKS, edges=edges("0.4", "0.8", "+Inf"))

    assert str(refused.value) == (
        'ttft: the bound 0.5 s lies between the edges 0.4 and 0.8 s of x_bucket, so le="0.5" selects no bucket of it: '
        'choose an edge as the bound, or write the annotation llmchaos/threshold-seconds: "0.5" to have the share judged '
        "as an interval"
    )


@pytest.mark.parametrize(
    "about",
    [
        {"coarse": [], "edges": edges("0.4", "+Inf")},
        {"coarse": LACKS, "edges": edges("0.50", "+Inf")},
        {"coarse": None, "edges": None},
        {"status": 500, "text": "down"},
    ],
    ids=["an edge", "an edge in another spelling", "no answer in the form of one", "no answer"],
)
def test_a_bound_that_is_an_edge_or_cannot_be_compared_is_not_named(about):
    assert bounds_of(BOUNDED, **about) == ()


VLLM = servers()["vllm"]
FORMER, NOW = "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"


def slo_over(total, bad=""):
    return Slo(
        name="one", objective=0.9, window_days=30, description="", bad=bad or 'app_total{code="500"}', total=total
    )


def scraped(*names):
    return [ScrapedServer(service="model", page=page_with(*names), server=VLLM)]


def test_a_metric_that_its_server_replaced_ends_the_wait_at_once_with_the_new_name(monkeypatch):
    monkeypatch.setattr(required_metrics, "METRICS_DEADLINE_S", 1e9)

    with prometheus(target(), series=["app_total"]) as url, pytest.raises(NotReady) as refused:
        require_metrics(Prometheus(url), [slo_over(FORMER)], servers=scraped(NOW))

    assert f"lacks the metric {FORMER} of the SLO file, although it scrapes" in str(refused.value)
    assert f": {FORMER}: vLLM has {NOW} in its place since " in str(refused.value)


def test_a_metric_that_begins_with_an_event_is_not_required():
    with prometheus(target(), series=["app_total"]) as url:
        (late,) = (one for one in servers()["sglang"].of("aborted") if one.late and not one.until)
        name = late.expr.partition("{")[0]
        found = [ScrapedServer(service="m", page=page_with("sglang:num_running_reqs"), server=servers()["sglang"])]
        require_metrics(Prometheus(url), [slo_over("app_total", bad=name)], servers=found)
        with pytest.raises(NotReady, match=f"lacks the metric {name}"):
            require_metrics(Prometheus(url), [slo_over("app_total", bad=name)])


def test_a_canonical_name_is_required_of_the_service_that_its_selector_names():
    name = "llmchaos:requests_done_total"
    slo = slo_over(f'{name}{{service="model",code="200"}}')
    of_model = f'{name}{{service="model"}}'

    with prometheus(target(), series=[of_model, "app_total"]) as url:
        require_metrics(Prometheus(url), [slo])
    with prometheus(target(), series=[name, "app_total"]) as url, pytest.raises(NotReady) as refused:
        require_metrics(Prometheus(url), [slo])
    assert f"lacks the metric {of_model} of the SLO file" in str(refused.value)
    assert "is recorded for a known model server alone, and no scraped service is one" in str(refused.value)


def test_a_metric_of_a_query_is_required_too_and_its_key_is_named():
    keys = {"llmchaos:requests_running": "llmchaos_busy_query"}

    with prometheus(target(), series=["app_total"]) as url, pytest.raises(NotReady) as refused:
        require_metrics(Prometheus(url), [slo_over("web_total")], also=keys)

    assert "lacks the metric llmchaos:requests_running of llmchaos_busy_query, web_total of the SLO file" in str(
        refused.value
    )


@pytest.mark.parametrize(("metric", "is_awaited"), [("llmchaos:requests_done_total", True), ("web_total", False)])
def test_rules_get_time_to_record_what_was_scraped(monkeypatch, metric, is_awaited):
    looks = iter([[metric], [metric], []])
    monkeypatch.setattr(required_metrics, "SETTLED_S", -1e9)
    monkeypatch.setattr(required_metrics, "RECORDED_S", 2e9)
    monkeypatch.setattr(required_metrics, "METRICS_DEADLINE_S", 60)
    monkeypatch.setattr(required_metrics, "_missing", lambda *_: next(looks))

    with prometheus(target()) as url, contextlib.nullcontext() if is_awaited else pytest.raises(NotReady):
        require_metrics(Prometheus(url), [slo_over(metric)])
