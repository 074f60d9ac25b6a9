"""Series that rule files, dashboards, KEDA objects and objectives want."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from support.server_pages import full_page, made_up, native, page_with

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.contract import check, selectors_in
from pytest_llmchaos.servers.exposition import Page, Series, parse_page
from pytest_llmchaos.servers.losses import Target
from pytest_llmchaos.servers.wanted import judge
from pytest_llmchaos.servers.wanted_files import (
    Wants,
    substituted,
    wants_of,
    wants_of_dashboard,
    wants_of_rules,
    wants_of_scaled_objects,
)

HISTOGRAM = {"status": "native", "source": "m"}
PARROT = made_up(
    running=native("parrot:running{}"),
    kv_use=[native("parrot:kv{}", since="0.10"), native("parrot:gpu{}", until="0.12")],
    ttft=native("parrot:ttft_seconds{}"),
    e2e=[
        {**HISTOGRAM, "expr": "parrot:e2e_seconds{}", "since": "2"},
        {**HISTOGRAM, "sum": "parrot:e_ms_sum{}", "count": "parrot:e_ms_count{}", "factor": 0.001, "until": "2"},
    ],
    done=native("parrot:done_total{}", late=True),
    healthy=native("parrot:healthy{}", needs="--health"),
)
ROOK = made_up(
    "rook",
    running=native("rook:busy{}"),
    ttft=native("rook:first_seconds{}"),
    preempted=native("rook:out_total{}"),
    failed=native("rook:bad_total{}"),
)
KNOWN = [PARROT, ROOK]


def target(one=PARROT, page=None, where="http://a"):
    page = full_page(one) if page is None else page
    return Target(where=where, server=one, page=page, cells=check(one, page))


def judged(*exprs, targets=None, recorded=()):
    wants = wants_of([("here", one) for one in exprs], "f.yml")
    wants = dataclasses.replace(wants, recorded=frozenset(recorded))
    return judge(wants, [target()] if targets is None else targets, KNOWN)


def lack(*exprs, targets=None):
    (found,) = judged(*exprs, targets=targets).lacks
    return found


def test_what_is_there_is_found():
    found = judged(
        "sum(rate(parrot:ttft_seconds_bucket[5m])) by (le)",
        "llmchaos:requests_running",
        "gen_ai_server_time_to_first_token_seconds_bucket",
        "own:rule / up",
        recorded=["own:rule"],
    )

    assert found.lacks == ()
    assert found.found == {
        "parrot:ttft_seconds_bucket",
        "llmchaos:requests_running",
        "gen_ai_server_time_to_first_token_seconds_bucket",
        "own:rule",
    }
    assert found.skipped == {"up"}


def test_a_renamed_series_has_its_new_and_its_canonical_name():
    found = lack("avg(parrot:gpu) > 0.9")

    assert (found.file, found.place, found.series) == ("f.yml", "here", "parrot:gpu")
    assert found.fault.where == "http://a"
    assert found.fault.new == ("parrot:kv",)
    assert found.fault.canonical == "llmchaos:kv_cache_usage_ratio"
    assert found.fault.advice == "Parrot has parrot:kv in its place since 0.10."


def test_a_part_of_a_renamed_histogram_has_the_same_part():
    found = lack("parrot:e_ms_sum")

    assert found.fault.new == ("parrot:e2e_seconds_sum",)
    assert found.fault.canonical == "gen_ai_server_request_duration_seconds_sum"


def test_a_name_that_is_too_new_for_the_page_has_the_old_one():
    old = page_with("parrot:running", "parrot:gpu", "parrot:kv_other")
    pinned = dataclasses.replace(target(page=old), cells=check(PARROT, old, "0.12"))

    found = lack("parrot:kv", targets=[pinned])

    assert found.fault.new == ("parrot:gpu",)
    assert found.fault.advice == "This version of Parrot exports parrot:gpu."
    before = lack("parrot:kv", targets=[target(page=old)])
    assert before.fault.new == ("parrot:gpu",)


def test_a_part_of_a_histogram_that_is_too_new_has_the_old_part():
    old = page_with("parrot:running", "parrot:e_ms_sum", "parrot:e_ms_count")
    pinned = dataclasses.replace(target(page=old), cells=check(PARROT, old, "2"))

    assert lack("parrot:e2e_seconds_sum", targets=[pinned]).fault.new == ("parrot:e_ms_sum",)
    assert lack("parrot:e2e_seconds_bucket", targets=[pinned]).fault.new == ("parrot:e_ms_sum", "parrot:e_ms_count")


def test_what_comes_with_the_first_request_or_has_no_sample_yet_is_late():
    page = Page(types={"parrot:more": "counter", "other_total": "counter"}, series=page_with("parrot:running").series)

    found = judged("parrot:done_total + parrot:more_total + other_total", targets=[target(page=page)])

    assert found.lacks == ()
    assert found.late == {"parrot:done_total", "parrot:more_total", "other_total"}


def test_what_comes_with_an_event_of_a_newer_version_is_late():
    old = {"status": "absent", "until": "2", "trap": "not counted", "source": "m"}
    jay = made_up("jay", running=native("jay:running{}"), failed=[native("jay:bad_total{}", since="2", late=True), old])
    names = {"jay:bad_total", "llmchaos:requests_failed_total"}
    page = page_with("jay:running")

    for version, late in (("", names), ("1", set()), ("2", names)):
        here = Target(where="j", server=jay, page=page, cells=check(jay, page, version))
        found = judge(wants_of([("here", one) for one in names], "f"), [here], [jay])
        assert found.late | found.found == late, version
        assert {one.series for one in found.lacks} == names - late, version


def test_a_metric_that_is_counted_in_another_unit_is_known_and_not_recorded():
    blocks = {"status": "absent", "instead": "parrot:blocks{}", "until": "2", "trap": "in blocks", "source": "m"}
    one = made_up(running=native("parrot:running{}"), prefix_hits=[native("parrot:hits{}", since="2"), blocks])
    old, new = page_with("parrot:running", "parrot:blocks"), page_with("parrot:running", "parrot:hits")

    assert judged("parrot:blocks", targets=[target(one, old)]).found == {"parrot:blocks"}
    assert lack("parrot:blocks", targets=[target(one, new)]).fault.new == ("parrot:hits",)
    assert lack("llmchaos:prefix_cache_hit_tokens_total", targets=[target(one, old)]).fault.advice == (
        "Parrot lacks it (absent). in blocks Without a version, such a page may be that of an older version."
    )


def test_what_an_option_adds_has_the_option():
    found = lack("parrot:healthy == 0", targets=[target(page=page_with("parrot:running"))])

    assert found.fault.advice == "The page lacks it (needs option). The server exports it with --health."
    assert found.fault.new == ()


def test_a_missing_metric_of_another_version_is_not_called_renamed():
    page = page_with("parrot:running")
    pinned = dataclasses.replace(target(page=page), cells=check(PARROT, page, "1"))

    found = lack("parrot:gpu", targets=[pinned])

    assert found.fault.new == ()
    assert found.fault.advice == "The page lacks this name of another version, and the metric (missing)."


def test_a_name_that_no_file_has_gets_a_similar_one():
    assert lack("parrot:runing").fault.advice == "The page lacks it. It has parrot:running, which is similar."
    assert lack("parrot:zzz").fault.advice == "The page lacks it."


def test_a_name_of_another_server_has_its_equivalent_here():
    assert lack("rook:busy").fault.new == ("parrot:running",)
    first = lack("rook:first_seconds_bucket")
    assert first.fault.new == ("parrot:ttft_seconds_bucket",)
    assert first.fault.advice == (
        "This is a name of Rook, which has no page here: Parrot has parrot:ttft_seconds_bucket."
    )
    none = lack("rook:bad_total")
    assert none.fault.new == ()
    assert none.fault.advice == (
        "This is a name of Rook, which has no page here, and Parrot has no equivalent. not counted"
    )
    assert lack("rook:other").fault.advice == "This is a name of Rook, which has no page here."
    assert lack("rook:busy", targets=[]).fault.advice == "This is a name of Rook, which has no page here."
    broken = target(page=page_with("parrot:kv"))
    assert lack("rook:busy", targets=[broken]).fault.advice.endswith("and Parrot has no equivalent.")


def test_a_misspelt_name_of_no_server_is_not_there():
    canonical = lack("llmchaos:requests_runing")
    assert canonical.fault.canonical == "llmchaos:requests_running"
    assert canonical.fault.advice == "No canonical metric has this name. llmchaos:requests_running is similar."
    colon = lack("parrot_kv")
    assert colon.fault.new == ("parrot:kv",)
    assert colon.fault.advice == "Parrot writes it with a colon."
    assert judged("parrot_other", "llmchaos:zzz").skipped == {"parrot_other", "llmchaos:zzz"}


def test_a_name_of_another_server_that_the_page_passes_on_is_found():
    page = page_with(*full_page(PARROT).series, "rook:busy")

    assert judged("rook:busy", targets=[target(page=page)]).found == {"rook:busy"}


def test_a_prefix_of_two_servers_means_the_one_whose_file_has_the_name():
    wide = made_up("crow", 'prefixes = ["rook:", "crow:"]', failed=native("rook:caw{}"))
    wants = wants_of([("here", "rook:caw")], "f")

    (found,) = judge(wants, [target()], [wide, ROOK, PARROT]).lacks

    assert "a name of Crow" in found.fault.advice


def test_an_old_name_without_a_prefix_is_known():
    one = made_up(kv_use=[native("parrot:kv{}", since="2"), native("kv_use{}", until="2")])

    assert lack("kv_use", targets=[target(one)]).fault.new == ("parrot:kv",)


def test_a_server_with_the_names_of_another_one_has_its_renames_too():
    double = made_up("double", 'prefixes = ["parrot:"]', kv_use=native("parrot:kv{}"))

    (found,) = judge(wants_of([("here", "parrot:gpu")], "f"), [target(double)], [double, PARROT]).lacks

    assert found.fault.new == ("parrot:kv",)


def test_each_page_of_a_server_must_have_its_names():
    new, old = target(where="http://new"), target(page=page_with("parrot:running", "parrot:gpu"), where="http://old")

    found = judged("parrot:kv", "parrot:running", targets=[new, old, target(ROOK, where="http://rook")])

    assert [(one.series, one.fault.where) for one in found.lacks] == [("parrot:kv", "http://old")]
    assert found.found == {"parrot:running"}


def test_one_side_of_an_or_is_enough_for_two_versions():
    found = judged("avg(parrot:kv or parrot:gpu) > 0.9")

    assert found.lacks == ()


@pytest.mark.parametrize(
    ("expr", "advice"),
    [
        ("llmchaos:requests_failed_total", "Parrot lacks it (absent). not counted"),
        ("llmchaos:engine_healthy", "Parrot lacks it (needs option). The server exports it with --health."),
    ],
)
def test_a_canonical_name_that_no_server_has_is_not_there(expr, advice):
    page = page_with(*(one for one in full_page(PARROT).series if one.name != "parrot:healthy"))

    assert lack(expr, targets=[target(page=page)]).fault.advice == advice


def test_buckets_of_a_mean_are_not_there():
    page = page_with("parrot:gpu", "parrot:e_ms_sum", "parrot:e_ms_count")
    name = "gen_ai_server_request_duration_seconds"

    assert judged(f"{name}_sum / {name}_count", targets=[target(page=page)]).lacks == ()
    assert lack(f"{name}_bucket", targets=[target(page=page)]).fault.advice == (
        "Parrot gives a sum and a count only, so it has no buckets."
    )


def test_a_canonical_name_is_there_if_one_of_the_servers_has_it():
    assert judged("llmchaos:requests_failed_total", targets=[target(), target(ROOK)]).lacks == ()
    unknown = Target(where="x", server=None, page=page_with("a"))
    assert judged("llmchaos:requests_failed_total", "a", targets=[unknown]).skipped == {
        "llmchaos:requests_failed_total"
    }
    assert judged("a", targets=[unknown]).found == {"a"}
    assert lack("rook:busy", targets=[unknown]).fault.new == ()


def test_names_in_matchers_and_patterns_are_read():
    assert lack('{__name__="parrot:gpu",job="x"}').series == "parrot:gpu"
    assert [one.series for one in judged('{__name__=~"parrot:gpu|parrot:running|rook:busy"}').lacks] == [
        "parrot:gpu",
        "rook:busy",
    ]
    assert judged('{__name__=~"parrot:.*"}').found == {"parrot:.*"}
    assert lack('{__name__=~"parrot:z.*"}').fault.advice == "No name of the pages matches this pattern."
    assert judged(
        '{__name__=~"node_.*"}', '{__name__=~"\\\\pL.*"}', '{job="x"}', '{job="x",__name__!="a"}'
    ).skipped == {
        "node_.*",
        r"\pL.*",
    }
    assert judged('{__name__=~"llmchaos:requests_.*"}').found == {"llmchaos:requests_.*"}


def test_canonical_names_that_the_files_do_not_record_need_rules():
    two = ["llmchaos:requests_running", "llmchaos:kv_cache_usage_ratio"]

    assert judged(*two, recorded=two).remark == ""
    assert judged(*two, recorded=two[:1]).remark == (
        "llmchaos:kv_cache_usage_ratio needs a recording rule (--write-rules)"
    )
    assert judged(*two).remark == f"{two[1]}, {two[0]} need recording rules (--write-rules)"
    ttft = [f"gen_ai_server_time_to_first_token_seconds_{part}" for part in ("bucket", "sum", "count")]
    assert judged(*two, *ttft).remark.endswith("_sum and 2 more need recording rules (--write-rules)")
    assert judged("llmchaos:requests_failed_total").remark == ""


# --- labels

VLLM = Path(__file__).parent / "expositions" / "vllm-0.8.5.txt"
CROW = made_up(
    "crow",
    done=native('crow:end_total{why=~"stop|length"}'),
    failed=native('crow:end_total{why!="left",kind="bad"}', since="2"),
    aborted=native('crow:end_total{why="left"}', until="2"),
    waiting=native("crow:queue{}"),
)
ENDS = [
    Series(name="crow:end_total", labels={"why": why, "kind": kind, "job": "exported"}, value=1.0)
    for why, kind in (("stop", "good"), ("gone", "bad"), ("gone", ""))
]


def of_vllm(*exprs):
    page = parse_page(VLLM.read_text())
    vllm = servers()["vllm"]
    here = Target(where="http://v", server=vllm, page=page, cells=check(vllm, page))
    return judge(wants_of([("here", one) for one in exprs], "f"), [here], servers().values())


def test_labels_that_no_series_of_a_page_has_are_not_there():
    name = "vllm:request_success_total"

    found = of_vllm(f'rate({name}{{finished_reason="error"}}[5m]) > 0').lacks

    assert [(one.series, one.fault.where) for one in found] == [(f'{name}{{finished_reason="error"}}', "http://v")]
    assert found[0].fault.advice == "No series has such labels: finished_reason is abort, length, stop here."
    for good in ('finished_reason="stop"', 'finished_reasonn="x"', 'job="x",pod="y"', 'finished_reason=~"error|stop"'):
        assert of_vllm(f"{name}{{{good}}}").lacks == ()
    for bad in ('finished_reason!~"stop|length|abort|repetition"', 'finished_reason="stop",model_name="x"'):
        assert len(of_vllm(f"{name}{{{bad}}}").lacks) == 1


def of_crow(*exprs, page=None, one=CROW, version=""):
    page = page_with(*ENDS, "crow:queue", "crow:more") if page is None else page
    here = Target(where="http://c", server=one, page=page, cells=check(one, page, version))
    return judge(wants_of([("here", expr) for expr in exprs], "f"), [here], [one, PARROT])


@pytest.mark.parametrize(
    "matchers",
    ['why="length"', 'why=~"len.*|length"', 'why!~"stop|gone"', 'why="length",job="y"', 'why=~"length"'],
)
def test_labels_that_the_servers_file_has_are_late(matchers):
    found = of_crow(f"crow:end_total{{{matchers}}}", version="2")

    assert found.lacks == ()
    assert found.late == {f"crow:end_total{{{matchers}}}"}
    assert found.found == frozenset()


def test_labels_of_another_version_are_not_late():
    assert of_crow('crow:end_total{kind="worse"}', version="2").lacks[0].fault.advice == (
        "No series has such labels: kind is bad, empty, good here."
    )
    page = page_with(*ENDS[:1])
    assert of_crow('crow:end_total{why="left"}', page=page, version="1").late
    assert of_crow('crow:end_total{why="other"}', page=page, version="2").late  # why!="left"
    assert of_crow('crow:end_total{why="other"}', page=page, version="1").lacks
    assert of_crow('crow:end_total{why="x"}', page=page_with(*ENDS[:1]), version="1").lacks[0].fault.advice == (
        "No series has such labels: why is stop here."
    )


def test_two_labels_that_no_series_has_together_are_not_there():
    found = of_crow('crow:end_total{why="stop",kind="bad"}').lacks

    assert [one.fault.advice for one in found] == ["No series has all its labels."]


def test_labels_of_a_late_metric_are_late():
    late = made_up("crow", done=native("crow:end_total{}", late=True), waiting=native("crow:queue{}"))
    page = page_with(*ENDS, Series(name="crow:more", labels={"a": "b"}, value=1.0))

    assert of_crow('crow:end_total{why="x"}', page=page, one=late).late == {'crow:end_total{why="x"}'}
    # The file lacks this name.
    assert of_crow('crow:more{a="c"}', page=page, one=late).late == {'crow:more{a="c"}'}
    assert of_crow('crow:more{a="c"}', page=page).lacks[0].fault.advice == "No series has such labels: a is b here."


def test_values_of_a_dashboards_variables_are_not_judged():
    exprs = [f'crow:end_total{{why{how}"$why"}}' for how in ("=", "!=", "=~", "!~")]
    board = {"title": "A", "targets": [{"expr": one} for one in exprs]}
    here = Target(where="c", server=CROW, page=page_with(*ENDS), cells=check(CROW, page_with(*ENDS)))

    found = judge(wants_of_dashboard(json.dumps(board), "b"), [here], [CROW])

    assert (found.lacks, found.found) == ((), {"crow:end_total"})


def test_one_page_with_the_labels_is_enough():
    pages = [page_with(Series(name="crow:queue", labels={"model": one}, value=1.0)) for one in "ab"]
    here = [Target(where="c", server=CROW, page=page, cells=check(CROW, page)) for page in pages]
    wants = wants_of([("a", 'crow:queue{model="b"}'), ("c", 'crow:queue{model="c"}')], "f")

    (found,) = judge(wants, here, [CROW]).lacks

    assert (found.place, found.fault.advice) == ("c", "No series has such labels: model is a, b here.")


def test_few_of_many_values_are_named():
    page = page_with(*(Series(name="crow:queue", labels={"n": str(one)}, value=1.0) for one in range(11)))

    (found,) = of_crow('crow:queue{n="x"}', page=page).lacks

    assert found.fault.advice == "No series has such labels: n is 0, 1, 10, 2, 3, 4, 5, 6, 3 more here."


def test_labels_of_other_systems_are_not_judged():
    page = page_with(*ENDS, Series(name="http_total", labels={"status": "2xx"}, value=1.0))

    assert of_crow('http_total{status="5xx"}', page=page).lacks == ()
    assert of_crow('{__name__="crow:e.*"}', page=page).found == {"crow:e.*"}


def test_labels_of_recorded_names_are_not_judged():
    wants = dataclasses.replace(wants_of([("a", 'crow:queue{a="b"}')], "f"), recorded=frozenset({"crow:queue"}))
    page = page_with(Series(name="crow:queue", labels={"a": "c"}, value=1.0))

    assert judge(wants, [target(CROW, page)], [CROW]).lacks == ()


def test_one_side_of_an_or_is_enough_for_labels_and_bounds():
    series = [Series(name="crow:t_bucket", labels={"le": le}, value=1.0) for le in ("0.5", "+Inf")]
    page = page_with(*ENDS, *series)

    assert of_crow('crow:t_bucket{le="0.4"} or crow:t_bucket{le="0.50"}', page=page).lacks == ()
    assert of_crow('crow:end_total{kind="x"} or crow:end_total{kind="bad"}', page=page).lacks == ()
    assert len(of_crow('crow:t_bucket{le="0.4"} or crow:t_bucket{le="0.45"}', page=page).lacks) == 2


@pytest.mark.parametrize(
    ("matchers", "advice"),
    [
        ('server="parrot"', ""),
        ('server=~"rook|parrot",origin="native",job="x"', ""),
        ('server="$server"', ""),
        ('server="rook"', "No server of the pages has such labels: server is parrot here."),
        ('origin="derived"', "No server of the pages has such labels: origin is native here."),
    ],
)
def test_a_canonical_name_is_that_of_the_servers_that_its_labels_name(matchers, advice):
    expr = f"llmchaos:kv_cache_usage_ratio{{{matchers}}}"
    wants = wants_of_dashboard(json.dumps({"title": "A", "targets": [{"expr": expr}]}), "b")

    found = judge(wants, [target(), target(ROOK)], KNOWN).lacks

    assert [one.fault.advice for one in found] == [advice] * bool(advice)


def test_a_name_without_a_prefix_is_a_servers_if_its_page_is_there():
    old = made_up(
        "jay",
        'prefixes = ["jay_", "e2e_seconds"]',
        e2e=native('e2e_seconds{engine="none"}', until="2"),
        running=native("jay_running{}"),
    )
    known = [*KNOWN, old]
    exprs = ['e2e_seconds_count{app="gateway"}', 'e2e_seconds_count{engine="x"}', 'e2e_seconds_created{a="b"}']
    wants = wants_of([("here", one) for one in exprs], "f")

    assert judge(wants, [target()], known).skipped == {"e2e_seconds_count", "e2e_seconds_created"}
    new = page_with("jay_running")
    here = Target(where="j", server=old, page=new, cells=check(old, new, "2"))
    found = judge(wants, [here], known)
    assert [one.series for one in found.lacks] == ["e2e_seconds_count"]
    assert found.skipped == {"e2e_seconds_count", "e2e_seconds_created"}
    elsewhere = Target(
        where="x", server=None, page=page_with(Series(name="e2e_seconds_count", labels={"app": "a"}, value=1))
    )
    assert judge(wants, [elsewhere], known).lacks == ()


def test_a_fault_is_listed_once_a_place():
    assert len(judged("parrot:gpu + parrot:gpu", "parrot:gpu").lacks) == 1


# --- files

RULES = """
groups:
  - name: a
    rules:
      - {record: own:kv, expr: avg(parrot:kv)}
      - {alert: Full, expr: own:kv > 0.9}
  - name: empty
"""


def names(wants):
    return [(one.place, [found.name for found in selectors_in(one.tree)]) for one in wants.queries]


def test_rules_are_read_with_the_names_that_they_record():
    found = wants_of_rules(RULES, "r.yml")

    assert names(found) == [("record own:kv", ["parrot:kv"]), ("alert Full", ["own:kv"])]
    assert found.recorded == {"own:kv"}
    assert {one.file for one in found.queries} == {"r.yml"}


def test_rules_of_kubernetes_are_read_in_documents_and_lists():
    spec = yaml.safe_load(RULES)
    one = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "spec": spec}
    text = yaml.safe_dump_all([{"kind": "ConfigMap"}, None, one, {"kind": "List", "items": [one]}])

    assert len(wants_of_rules(text, "r.yml").queries) == 4


def test_a_number_is_an_expression():
    (want,) = wants_of_rules("groups: [{rules: [{record: a, expr: 1}]}]", "r").queries

    assert list(selectors_in(want.tree)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "r.yml must be YAML (render templates of Helm first): "),
        *(
            (
                one * 50_000,
                "r.yml must be YAML (render templates of Helm first): it must have at most 100 levels inside one",
            )
            for one in ("[", "{a: ", "- ")
        ),
        ("name: 2024-99-99", "r.yml must be YAML (render templates of Helm first): month must be in 1..12"),
        (
            f"groups: [{{rules: [{{alert: A, expr: '{'(' * 3_000}'}}]}}]",
            "r.yml: alert A: the query must be PromQL (it must have at most 200 brackets",
        ),
        ("a: 1", "r.yml must be rules of Prometheus (groups, or objects of kind PrometheusRule), and has no query"),
        ("groups: [{rules: [{alert: A, expr: 'sum('}]}]", "r.yml: alert A: the query must be PromQL ("),
        ("groups: [{rules: [{alert: A}]}]", "r.yml: alert A: the query must be PromQL ("),
    ],
)
def test_a_wrong_rule_file_is_one_error(text, message):
    with pytest.raises(BadScenario) as caught:
        wants_of_rules(text, "r.yml")

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


SCALED = """
kind: Deployment
---
kind: ScaledObject
metadata: {name: model}
spec:
  triggers:
    - {type: cpu, metadata: {value: "50"}}
    - {type: prometheus, metadata: {query: 'sum(parrot:waiting{namespace="x"})', threshold: "5"}}
---
kind: ScaledJob
metadata: {name: batch}
spec: {triggers: [{type: prometheus, metadata: {query: parrot:kv}}]}
"""


def test_triggers_of_prometheus_are_read():
    assert names(wants_of_scaled_objects(SCALED, "k.yml")) == [
        ("ScaledObject model, trigger 2", ["parrot:waiting"]),
        ("ScaledJob batch, trigger 1", ["parrot:kv"]),
    ]


def test_objects_without_such_a_trigger_are_an_error():
    with pytest.raises(BadScenario, match=r"k.yml must be a ScaledObject or ScaledJob .* and has no query"):
        wants_of_scaled_objects("kind: Deployment", "k.yml")


BOARD = {
    "title": "Model",
    "templating": {
        "list": [
            {"name": "job", "type": "query", "query": {"query": 'label_values(parrot:up{a="$b"}, job)'}},
            {"name": "model", "type": "query", "query": "label_values(model)", "current": {"value": ["$__all"]}},
            {"name": "top", "query": "query_result(topk(3, parrot:top))", "current": {"value": "3"}},
            {"name": "all", "query": "metrics(parrot:.*)"},
            {
                "name": "metric",
                "type": "custom",
                "query": "parrot:a,parrot:b",
                "current": {"value": ["parrot:b", "parrot:a"]},
            },
            {"name": "span", "type": "interval", "current": {"value": "$__auto_interval_span"}},
        ]
    },
    "annotations": {
        "list": [{"name": "Restarts", "datasource": {"type": "prometheus"}, "expr": "changes(parrot:start[1m])"}]
    },
    "panels": [
        {
            "type": "row",
            "title": "Row",
            "panels": [
                {
                    "title": "TTFT",
                    "targets": [
                        {"expr": 'sum by (le, $by) (rate(parrot:ttft_seconds_bucket{job=~"$job"}[$__rate_interval]))'},
                        {"expr": "topk($top, rate(parrot:c[${span}]))"},
                        {"expr": "${metric:raw}{x='[[model]]'} / $__range_s + $__interval_ms"},
                        {"expr": "  "},
                    ],
                }
            ],
        },
        {"title": "Logs", "datasource": {"type": "loki"}, "targets": [{"expr": '{app="x"} |= `y`'}]},
        {
            "title": "Mixed",
            "datasource": {"type": "datasource", "uid": "-- Mixed --"},
            "targets": [
                {"datasource": {"type": "loki"}, "expr": '{app="x"} |= `y`'},
                {"datasource": "Prometheus", "expr": "parrot:mixed"},
            ],
        },
    ],
}


def test_every_query_of_a_dashboard_is_read():
    assert names(wants_of_dashboard(json.dumps(BOARD), "b.json")) == [
        ("variable job", ["parrot:up"]),
        ("variable top", ["parrot:top"]),
        ("variable all", [""]),
        ("annotation 'Restarts'", ["parrot:start"]),
        ("panel 'TTFT'", ["parrot:ttft_seconds_bucket"]),
        ("panel 'TTFT'", ["parrot:c"]),
        ("panel 'TTFT'", ["parrot:b"]),
        ("panel 'Mixed'", ["parrot:mixed"]),
    ]


def test_dashboards_of_the_api_and_of_the_new_schema_are_read():
    wrapped = {"dashboard": BOARD, "meta": {}}
    new = {
        "kind": "Dashboard",
        "spec": {
            "title": "New",
            "elements": {
                "panel-1": {
                    "kind": "Panel",
                    "spec": {
                        "title": "KV",
                        "data": {
                            "spec": {
                                "queries": [{"spec": {"query": {"kind": "prometheus", "spec": {"expr": "parrot:kv"}}}}]
                            }
                        },
                    },
                }
            },
        },
    }

    assert len(wants_of_dashboard(json.dumps(wrapped), "b").queries) == 8
    assert names(wants_of_dashboard(json.dumps(new), "b")) == [("panel 'KV'", ["parrot:kv"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "b.json must be a Grafana dashboard in JSON: "),
        ("[]", "b.json must be a Grafana dashboard with queries of Prometheus, and has no query"),
        ('{"title": "A", "targets": [{"expr": "sum("}]}', "b.json: panel 'A': the query must be PromQL ("),
    ],
)
def test_a_wrong_dashboard_is_one_error(text, message):
    with pytest.raises(BadScenario) as caught:
        wants_of_dashboard(text, "b.json")

    assert str(caught.value).startswith(message)


def test_variables_keep_their_values_outside_of_quotes_and_match_anything_inside():
    text = substituted("$m{a=~\"$x\",b='[[y]]'} > ${n:csv} + $__range_ms", {"m": "up"}, "1")

    assert text == "up{a=~\".*\",b='.*'} > 1 + 300"


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("rate(vllm:[[m]][5m])", 'rate({__name__=~"vllm:.+"}[5m])'),
        ('vllm:${m}_bucket{a="$b"}', '{__name__=~"vllm:.+_bucket",a=".*"}'),
        ("sum by (le, ${by}_x) (vllm:$m)", 'sum by (le, 1_x) ({__name__=~"vllm:.+"})'),
        ('x{${l}_a="b"}[${n}m]', 'x{1_a="b"}[1m]'),
        ('x{a="q",${l}_b="2"}', 'x{a="q",1_b="2"}'),
        ("vllm:$up / 5$unit", "vllm:good / 51"),
        ("${f}_over_time(x[5m])", "1_over_time(x[5m])"),
    ],
)
def test_a_variable_in_a_metrics_name_makes_a_pattern(text, pattern):
    assert substituted(text, {"up": "good"}, "1") == pattern


def test_no_name_is_made_up_for_a_variable():
    queries = ["rate(parrot:[[m]][5m])", "parrot:ttft_$m", "parrot:z$m"]
    board = {"title": "A", "targets": [{"expr": one} for one in queries]}

    found = judge(wants_of_dashboard(json.dumps(board), "b"), [target()], KNOWN)

    assert found.found == {"parrot:.+", "parrot:ttft_.+"}
    assert [(one.series, one.fault.advice) for one in found.lacks] == [
        ("parrot:z.+", "No name of the pages matches this pattern.")
    ]


LOGS = 'sum(count_over_time({app="x"} |= "y" [5m]))'
BROKEN = "sum(up"
FOREIGN = "its data source is not Prometheus"
UNREAD = "the query must be PromQL ("


@pytest.mark.parametrize(
    ("source", "query", "reason"),
    [
        ("Loki", BROKEN, FOREIGN),
        ("${DS_ELASTICSEARCH}", BROKEN, FOREIGN),
        ({"type": "loki"}, BROKEN, FOREIGN),
        ("main", LOGS, FOREIGN),
        (None, LOGS, FOREIGN),
        ("main", BROKEN, UNREAD),
        ("Azure Prometheus", BROKEN, UNREAD),
        (None, 'sum(up{a="b|c"}', UNREAD),
        (None, "sum(${x:pipe|y}", UNREAD),
    ],
)
def test_a_query_of_another_data_source_is_listed_and_one_that_is_no_promql_is_not_good(source, query, reason):
    panels = [
        {"title": "Logs", "datasource": source, "targets": [{"expr": query}]},
        {"title": "KV", "datasource": "Prometheus", "targets": [{"expr": "parrot:kv"}]},
    ]

    found = wants_of_dashboard(json.dumps({"panels": panels}), "b.json") + Wants()

    assert names(found) == [("panel 'KV'", ["parrot:kv"])]
    (line,) = found.unread + found.foreign
    assert line.startswith(f"b.json: panel 'Logs': {reason}")
    judged = judge(found, [target()], KNOWN)
    assert judged.skipped == {*found.foreign}
    assert (judged.unread, judged.is_good) == ((line,) * (reason == UNREAD), reason == FOREIGN)


def test_a_dashboard_that_is_too_deep_is_one_error():
    with pytest.raises(BadScenario, match=r"b.json must be a Grafana dashboard in JSON: "):
        wants_of_dashboard("[" * 100_000, "b.json")


def test_wants_add_up():
    both = wants_of_rules(RULES, "a") + Wants() + wants_of([("x", "b")], "c")

    assert len(both.queries) == 3
    assert both.recorded == {"own:kv"}


# --- the servers of this package


@pytest.mark.parametrize("one", [one for one in servers().values() if one.prefixes], ids=lambda one: one.name)
def test_old_names_of_every_server_lead_to_their_new_ones(one):
    """Every name of an older entry is known, and so is the newer name in its place."""
    page = full_page(one)
    whole = Target(where="p", server=one, page=page, cells=check(one, page))
    old = [entry for entry in one.entries if entry.until and entry.status != "absent" and entry.expr.endswith("{}")]
    for entry in old:
        text = entry.expr.removesuffix("{}") + ("_count" if entry.canonical.kind == "histogram" else "")
        found = judge(wants_of([("x", text)], "f"), [whole], servers().values())
        assert text in page.names or found.lacks[0].fault.new or "absent" in found.lacks[0].fault.advice
