"""Metrics pages: their parser, the server that they are of, and the contract."""

import contextlib
import dataclasses
import functools
import math
import time

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from support.server_pages import full_page, made_up, native, page_with, series_of

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.servers.canonical import BY_KEY
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.contract import BROKEN, bracket, check, lacking, parse, selectors_in, selectors_of
from pytest_llmchaos.servers.exposition import Page, Series, parse_page
from pytest_llmchaos.servers.recognition import recognise, with_reported

ENGINES = [one for one in servers().values() if one.prefixes]


def states(of, page, version="", **about):
    return {cell.metric.key: cell.state for cell in check(of, page, version, **about)}


def broken(of, page, version="", *, warm=False):
    return {key: state for key, state in states(of, page, version, warm=warm).items() if state in BROKEN}


def without(page, name):
    return dataclasses.replace(page, series=tuple(one for one in page.series if one.name != name))


def renamed(page, name):
    series = tuple(dataclasses.replace(one, name=f"{name}_v2") if one.name == name else one for one in page.series)
    return dataclasses.replace(page, series=series)


# --- the parser


def registry():
    found = CollectorRegistry()
    Counter("vllm_done", "Answers", ["reason"], registry=found).labels('a "b"\\\n{,}').inc(2)
    Gauge("vllm_running", "In the batch", registry=found).set(-0.5)
    histogram = Histogram("vllm_ttft_seconds", "First", ["model"], buckets=(0.1, 2.5), registry=found)
    histogram.labels("m").observe(1, {"trace_id": "abc"})
    Summary("vllm_size", "Size", registry=found).observe(3)
    Counter("vllm_later", "Before its first label", ["reason"], registry=found)
    return found


@pytest.mark.parametrize("write", [generate_latest, generate_openmetrics])
def test_both_formats_are_read_with_the_names_that_a_scrape_stores(write):
    page = parse_page(write(registry()).decode())

    (done,) = page.by_name["vllm_done_total"]
    assert done == Series(name="vllm_done_total", labels={"reason": 'a "b"\\\n{,}'}, value=2)
    assert page.by_name["vllm_running"][0].value == -0.5
    assert page.bounds("vllm_ttft_seconds") == (0.1, 2.5, math.inf)
    assert page.bounds("vllm_running") == ()
    assert {"vllm_size_sum", "vllm_size_count", "vllm_ttft_seconds_count"} <= page.names
    assert "vllm_later_total" in page.names


def test_a_counter_without_total_keeps_its_name():
    page = parse_page("# HELP tgi_count Requests\n# TYPE tgi_count counter\ntgi_count 3\n")

    assert page.names == {"tgi_count"}
    assert page.types == {"tgi_count": "counter"}


def test_names_may_be_quoted_and_times_exemplars_and_comments_are_left_out():
    page = parse_page(
        '\ufeff# a comment\r\n#\n{"a.b", c="d",} +Inf 1700000000000\n a_total{} 2 # {trace_id="x"} 0.5\n\n'
        '# HELP e Text\n# TYPE "f.g" gauge\nb {"x.y"="z"} NaN\n# EOF\n'
    )

    assert [(one.name, dict(one.labels)) for one in page.series] == [
        ("a.b", {"c": "d"}),
        ("a_total", {}),
        ("b", {"x.y": "z"}),
    ]
    assert page.series[0].value == math.inf
    assert page.types == {"e": "", "f.g": "gauge"}
    assert page.names == {"a.b", "a_total", "b", "e", "f.g"}


@pytest.mark.parametrize(
    "line",
    [
        "vllm:running",
        "vllm:running one",
        "vllm:running 1_0",
        "1a 2",
        'a{b="c" 1',
        "a{b=c} 1",
        'a{b="c"d="e"} 1',
        "{} 1",
        'a_bucket{le="x"} 1',
        "a1",
        "404 page not found",
    ],
)
def test_a_broken_line_is_one_error_with_its_number(line):
    with pytest.raises(BadScenario) as caught:
        parse_page(f"good 1\n{line}\ngood 2\n", "m.txt")

    assert str(caught.value) == (
        f'm.txt: line 2 must be a sample such as name{{label="value"}} 1, got {line!r}; '
        "Prometheus refuses a page with such a line"
    )


@pytest.mark.parametrize(
    "line",
    [
        "a" + " " * 60_000 + "x",
        "a" + " " * 30_000 + "1" + " " * 30_000 + "x",
        "a{" + " " * 60_000 + "x",
        'a{b="c"' + " " * 60_000 + "x",
        'a{b="c",' + " " * 60_000 + "x",
        "a{" + 'b="c",' * 10_000 + "x",
        "#" + " " * 60_000 + "x",
        "a" * 60_000 + " ",
    ],
    ids=lambda line: line[:6],
)
def test_the_time_of_a_line_grows_with_its_length_only(line):
    began_s = time.process_time()
    with contextlib.suppress(BadScenario):
        parse_page(line)

    assert time.process_time() - began_s < 0.5


def test_a_line_that_is_too_long_is_one_error():
    assert parse_page("a" + " " * 65_534 + "1").names == {"a"}
    with pytest.raises(BadScenario) as caught:
        parse_page("b 1\na" + " " * 65_535 + "1", "m.txt")
    assert str(caught.value).startswith("m.txt: line 2 must have at most 65536 characters, got 65537: 'a   ")


def test_names_have_no_control_characters():
    page = parse_page('{"a\x1b[2J\x9b\u202eb"} 1\n{"c\\nd"} 1\n# TYPE "e\\nf" gauge\ng{h="\x07i"} 1\n')

    assert page.names == {"a[2Jb", "cd", "ef", "g"}
    assert page.series[2].labels == {"h": "i"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [("<!doctype html><p>", "HTML"), ('{"detail": "Not Found"}', "JSON"), (" [1]", "JSON"), ("{}", "JSON")],
)
def test_another_format_is_named(text, kind):
    with pytest.raises(BadScenario, match=f"the page must be a metrics page in Prometheus' format, got {kind}"):
        parse_page(text)


# --- expressions


def names(text):
    return [one.name for one in selectors_in(parse(text))]


def test_every_selector_of_an_expression_is_found():
    text = 'sum by (job) (rate(a{job="x"}[5m])) / -b > bool quantile(0.5, max_over_time((c + 1)[5m:1m])) or {__name__="d",e!~"f"}'

    assert names(text) == ["a", "b", "c", "d"]
    assert str(next(selectors_in(parse('{__name__=~"a|b",e!~"f"}')))) == '{__name__=~"a|b",e!~"f"}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a" * 10_001, "at most 10,000 characters, got 10,001"),
        ("(" * 201 + "a" + ")" * 201, "at most 200 brackets inside one another, got 201"),
        (" or ".join(["a"] * 202), "at most 200 operators such as `or`, got 201"),
        ("-" * 201 + "a", "at most 200 operators such as `or`, got 201"),
    ],
)
def test_a_query_that_would_crash_the_parser_is_refused(text, problem):
    with pytest.raises(BadScenario, match=problem):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "sum(" * 100 + "(" * 100 + " or ".join(["a"] * 201) + ")" * 200,
        f'a{{b="{"(-" * 2_000}",c=~"{"x|" * 1_000}y"}}',
    ],
    ids=["deep", "texts"],
)
def test_a_query_within_the_limits_is_read(text):
    assert {one.name for one in selectors_in(parse(text))} == {"a"}
    assert {one.name for one in lacking(parse(text), lambda _: False)} == {"a"}


def test_wrong_promql_is_one_error():
    with pytest.raises(BadScenario, match=r"'sum\(' must be PromQL: "):
        parse("sum(")


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("old or new", []),
        ("new or old", []),
        ("old or older", ["old", "older"]),
        ("new + old", ["old"]),
        ("old or vector(0)", ["old"]),
        ("rate(new[5m]) unless old", []),
        ("old unless new", ["old"]),
        ("new unless on(job) (old or gone)", []),
        ("vector(0) or vector(1)", []),
    ],
)
def test_one_side_of_an_or_is_enough(text, lacks):
    assert [one.name for one in lacking(parse(text), lambda one: one.name == "new")] == lacks


@pytest.mark.parametrize(
    ("expr", "is_there"),
    [
        ('a{b="c"}', True),
        ('a{b="d"}', False),
        ('a{b!="d"}', True),
        ('a{b!="c"}', False),
        ('a{b=~"c|d"}', True),
        ('a{b=~"d"}', False),
        ('a{b!~"d"}', True),
        ('a{b!~"c"}', False),
        (r'a{b=~"\\pL"}', True),
        ('a{other=""}', True),
        ('{__name__=~"a.*",b="c"}', True),
        ('{__name__=~"z.*"}', False),
        ("gone{}", False),
    ],
)
def test_a_metric_of_a_file_is_there_if_its_labels_are(expr, is_there):
    page = Page(types={}, series=(Series(name="a", labels={"b": "c"}, value=1),))
    one = made_up(running=native(expr))

    assert states(one, page)["running"] == ("found" if is_there else "missing")


def test_a_metric_without_a_sample_is_late_and_counts_for_the_server():
    page = parse_page(
        "# TYPE parrot:e summary\n# TYPE parrot:kv gauge\n# TYPE parrot:running gauge\nparrot:running 1\n"
    )

    found = recognise(page, [BRACKETS])

    assert (found.server, found.reasons[0]) == (BRACKETS, "The page has 3 of 3 metrics that Parrot should have.")
    assert states(BRACKETS, page)["e2e"] == states(BRACKETS, page)["kv_use"] == "late"
    assert states(BRACKETS, page)["running"] == "found"


# --- the contract

BRACKETS = made_up(
    running=native("parrot:running{}", since="0.2"),
    kv_use=[native("parrot:kv{}", since="0.10"), native("parrot:gpu{}", until="0.12")],
    waiting=native("parrot:waiting{}", late=True),
    done=native("parrot:done_total{}", late=True),
    failed=native("parrot:failed_total{}", late=True),
    inter_token=native("parrot:gap_seconds{}", late=True),
    healthy=native("parrot:healthy{}", needs="--health"),
    e2e={"status": "native", "sum": "parrot:e_sum{}", "count": "parrot:e_count{}", "source": "m", "factor": 0.001},
)
E2E = ("parrot:e_sum", "parrot:e_count")


def test_a_page_with_everything_has_every_cell():
    found = check(BRACKETS, full_page(BRACKETS))

    assert [cell.metric.key for cell in found] == list(BY_KEY)
    assert {cell.state for cell in found if cell.entry.status != "absent"} == {"found"}
    assert {cell.note for cell in found if cell.state == "absent"} == {"not counted"}
    by_key = {cell.metric.key: cell for cell in found}
    assert by_key["e2e"].wanted == E2E
    assert by_key["inter_token"].wanted == (
        "parrot:gap_seconds_bucket",
        "parrot:gap_seconds_sum",
        "parrot:gap_seconds_count",
    )


def test_the_name_of_another_version_is_renamed():
    page = page_with("parrot:running", "parrot:gpu", *E2E)

    (cell,) = (one for one in check(BRACKETS, page, "0.12") if one.metric.key == "kv_use")

    assert (cell.state, cell.wanted, cell.seen) == ("renamed", ("parrot:kv",), ("parrot:gpu",))
    assert cell.note == "The page has the name of another version: parrot:gpu."
    assert states(BRACKETS, page)["kv_use"] == "found"  # of a version that the page allows


def test_a_name_of_a_later_version_is_absent_in_this_one():
    page = page_with("parrot:gpu", *E2E)

    assert states(BRACKETS, page)["running"] == "absent"
    (cell,) = (one for one in check(BRACKETS, page, "0.1") if one.metric.key == "running")
    assert cell.note == "The server has it since 0.2."
    gone = made_up(running=native("parrot:running{}", since="1", until="2"))
    (cell,) = (one for one in check(gone, page, "3") if one.metric.key == "running")
    assert (cell.state, cell.note) == ("absent", "The server has it since 1 and until 2.")


def test_what_appears_with_the_first_request_is_late_and_missing_after_an_answer():
    new, answered = page_with("parrot:running", "parrot:kv", *E2E), page_with("parrot:kv", "parrot:done_total")
    idle = page_with(series_of(next(selectors_in(parse("parrot:running")))))

    assert states(BRACKETS, idle)["waiting"] == "late"
    assert {key: state for key, state in states(BRACKETS, answered).items() if state != "absent"} == {
        "running": "missing",
        "waiting": "missing",
        "kv_use": "found",
        "inter_token": "late",
        "e2e": "missing",
        "done": "found",
        "failed": "late",
        "healthy": "needs option",
    }
    assert states(BRACKETS, new, warm=True)["inter_token"] == "missing"
    assert states(BRACKETS, new, warm=True)["failed"] == "late"
    notes = {cell.metric.key: cell.note for cell in check(BRACKETS, answered)}
    assert notes["failed"] == "The server exports it from the first event of its kind on."
    assert notes["healthy"] == "The server exports it with --health."


TOKENS, IDLE, BUSY = "parrot:tokens_total 9", "parrot:running 0", "parrot:running 1"


@pytest.mark.parametrize(
    ("lines", "waiting"),
    [
        (['parrot:answers_total{code="200"} 1'], "missing"),
        (['parrot:answers_total{code="401"} 1'], "late"),
        (['parrot:answers_total{code="200"} NaN'], "late"),
        ([IDLE, "parrot:first_seconds_sum 1", "parrot:first_seconds_count 1"], "late"),
        ([IDLE, TOKENS], "missing"),
        ([IDLE, TOKENS, 'parrot:answers_total{code="500"} 0'], "missing"),
        ([IDLE, TOKENS, 'parrot:answers_total{code="500"} 1'], "late"),
        ([BUSY, TOKENS], "late"),
        ([TOKENS], "late"),
    ],
)
def test_only_a_whole_answer_is_an_answer(lines, waiting):
    parrot = made_up(
        running=native("parrot:running{}"),
        waiting=native("parrot:waiting{}", late=True),
        ttft=native("parrot:first_seconds{}", late=True),
        per_token=native("parrot:mean_seconds{}", late=True),
        done=native('parrot:answers_total{code="200"}', late=True),
        failed=native('parrot:answers_total{code="500"}', late=True),
        tokens_out=native("parrot:tokens_total{}", late=True),
    )
    page = parse_page("\n".join(lines))

    assert states(parrot, page)["waiting"] == waiting
    assert states(parrot, page)["per_token"] == "late"
    assert states(parrot, page, answered=True)["waiting"] == "missing"


@pytest.mark.parametrize(
    ("server", "text"),
    [
        ("smg", 'smg_http_responses_total{status_code="200",error_code="",path="/health"} 5\nsmg_worker_health 1'),
        ("litellm", 'litellm_proxy_total_requests_metric_total{status_code="401"} 1\nlitellm_in_flight_requests 0'),
        ("dynamo", 'dynamo_frontend_requests_total{status="error"} 1\ndynamo_frontend_inflight_requests 0'),
        (
            "dynamo",
            'dynamo_frontend_requests_total{status="error",error_type="not_found"} 1\ndynamo_frontend_request_duration_seconds_sum 1',
        ),
        ("dynamo", "dynamo_frontend_output_tokens_total 5\ndynamo_frontend_inflight_requests 1"),
        ("tgi", "tgi_request_queue_duration_count 1\ntgi_batch_current_size 0"),
        ("sglang", "sglang:num_requests_total 1\nsglang:num_aborted_requests_total 1\nsglang:num_running_reqs 0"),
    ],
)
def test_a_server_without_a_whole_answer_misses_nothing(server, text):
    assert "missing" not in states(servers()[server], parse_page(text + "\n")).values()


def test_an_event_of_a_newer_version_may_come_if_no_name_shows_the_version():
    newer = made_up(
        running=native("parrot:running{}"),
        failed=[
            native("parrot:failed_total{}", since="2", late=True),
            {"status": "absent", "until": "2", "trap": "no", "source": "m"},
        ],
        done=[
            native("parrot:done_total{}", since="2", late=True),
            {"status": "absent", "until": "2", "trap": "no", "source": "m"},
        ],
    )
    page = page_with("parrot:running")

    for version, may_come in (("", {"failed"}), ("1", set()), ("2", {"failed", "done"})):
        found = check(newer, page, version)
        assert {cell.metric.key for cell in found if cell.may_come} == may_come, version


def test_a_counter_at_0_is_no_answer():
    zero = Page(types={}, series=(Series(name="parrot:done_total", labels={}, value=0),))

    assert states(BRACKETS, zero)["waiting"] == "late"
    assert {cell.note for cell in check(BRACKETS, zero) if cell.state == "late"} == {
        "The server exports it from the first request on.",
        "The server exports it from the first event of its kind on.",
    }


def test_an_option_that_another_metric_shows_is_given():
    one = made_up(
        running=native("parrot:running{}", needs="--metrics"), waiting=native("parrot:waiting{}", needs="--metrics")
    )

    assert states(one, page_with("parrot:running"))["waiting"] == "missing"
    assert states(one, page_with("other"))["waiting"] == "needs option"


def test_a_missing_metric_has_a_similar_name():
    (cell,) = (one for one in check(BRACKETS, page_with("parrot:e_sum", "parrot:e_counts")) if one.metric.key == "e2e")

    assert (cell.state, cell.note) == ("missing", "The page has parrot:e_counts, which is similar.")


def test_the_versions_that_the_names_allow():
    both, old, new = page_with("parrot:kv", "parrot:gpu"), page_with("parrot:gpu"), page_with("parrot:kv")

    assert [str(bracket(BRACKETS, one)) for one in (both, old, new)] == [
        "at least 0.10 and before 0.12",
        "before 0.12",
        "at least 0.10",
    ]
    assert [bracket(BRACKETS, one).version for one in (both, old, new)] == ["0.10", "0.0.1", "0.10"]
    assert bracket(BRACKETS, both).reasons == ("parrot:kv is there since 0.10", "parrot:gpu is there until 0.12")
    assert str(bracket(BRACKETS, page_with("x"))) == ""


CLASH = made_up(
    running=[native("parrot:run{}", since="2"), native("parrot:old_run{}", until="2")],
    waiting=[native("parrot:wait{}", since="2"), native("parrot:old_wait{}", until="2")],
    done=native("parrot:done_total{}"),
)


def test_names_of_different_versions_are_judged_by_the_newest():
    page = page_with("parrot:run", "parrot:old_wait", "parrot:done_total")

    assert str(bracket(CLASH, page)) == "unknown"
    assert broken(CLASH, page) == {"waiting": "renamed"}
    found = recognise(page, [CLASH])
    assert (found.certainty, found.versions) == ("likely", "unknown")
    assert found.reasons[-1] == "These are names of different versions."


AGES = made_up(
    **{key: native(f"parrot:{key}{{}}", since="1") for key in ("running", "waiting", "kv_use")},
    done=native("parrot:done{}", since="2"),
    failed=native("parrot:failed{}", since="2"),
    aborted=native("parrot:aborted{}", since="3"),
)


def test_a_page_without_a_version_must_have_what_its_names_prove():
    first = page_with("parrot:running", "parrot:waiting")
    second = page_with("parrot:running", "parrot:waiting", "parrot:kv_use", "parrot:done")

    assert broken(AGES, first) == {"kv_use": "missing"}
    assert broken(AGES, second) == {"failed": "missing"}
    assert broken(AGES, first, "3") == dict.fromkeys(("kv_use", "done", "failed", "aborted"), "missing")
    notes = {cell.metric.key: cell.note for cell in check(AGES, first)}
    assert notes["done"] == (
        "The server has it since 2. Without a version, such a page may be that of an older version."
    )
    assert notes["healthy"] == "not counted"
    assert {cell.note for cell in check(AGES, first, "1") if cell.metric.key == "done"} == {
        "The server has it since 2."
    }


def test_a_page_that_may_be_of_an_older_version_is_likely_at_most_until_the_version_is_known():
    page = page_with("parrot:running", "parrot:waiting", "parrot:kv_use")

    found = recognise(page, [AGES])

    assert found.certainty == "likely"
    assert with_reported(found, "") is found
    assert (with_reported(found, "1.5").version, with_reported(found, "1.5").certainty) == ("1.5", "certain")
    assert recognise(page, [AGES], "1.5").certainty == "certain"
    assert recognise(page_with("parrot:running", "parrot:done"), [AGES]).certainty == "unclear"


def test_a_reported_version_that_the_names_contradict_does_not_count():
    page = page_with("parrot:kv", "parrot:running", *E2E)
    found = recognise(page, [BRACKETS])
    why = "It reports version 0.1.dev1+gabc, and its names are of versions at least 0.10: the names count."

    odd = with_reported(found, "0.1.dev1+gabc")

    assert (odd.version, odd.certainty, odd.versions) == ("", "likely", "at least 0.10")
    assert odd.reasons == (*found.reasons, why)
    assert states(BRACKETS, page, odd.version)["kv_use"] == "found"
    assert states(BRACKETS, page, "0.1")["kv_use"] == "renamed"
    assert with_reported(found, "0.10").version == "0.10"
    assert with_reported(found, "b0-unknown").version == "b0-unknown"
    assert recognise(page, [BRACKETS], "0.1").version == "0.1"  # the user gives it
    few = recognise(page_with("parrot:kv"), [BRACKETS])
    assert with_reported(few, "0.1").certainty == "unclear"


@pytest.mark.parametrize(("version", "allowed"), [("0.11", True), ("0.12", False), ("b0-unknown", False), ("1", False)])
def test_a_version_after_that_of_the_names_does_not_count(version, allowed):
    page = page_with("parrot:gpu")

    assert bracket(BRACKETS, page).allows(version) is allowed


def test_names_of_different_versions_allow_any():
    assert bracket(CLASH, page_with("parrot:run", "parrot:old_wait")).allows("0.1")


def test_a_version_in_a_label_is_no_command_for_the_terminal():
    one = made_up(running=native("parrot:running{}"), version='metric = "parrot:info"\nlabel = "version"')
    info = Series(name="parrot:info", labels={"version": "1.2\x1b[2J\n-rc+g_é" + "9" * 99}, value=1)

    assert recognise(page_with("parrot:running", info), [one]).version == "1.22J-rc+g_" + "9" * 49


# Names that a new version might have, of metrics that may be missing without a fault.
NEW_NAMES = [
    ("tgi", "tgi_request_failure", "tgi_request_failures"),
    ("sglang", "sglang:request_time_per_output_token_seconds", "sglang:request_time_per_output_token_v2_seconds"),
    ("dynamo", "dynamo_frontend_model_ready", "dynamo_frontend_model_is_ready"),
    ("llamacpp", "llamacpp:prompt_tokens_cached_total", "llamacpp:prompt_tokens_from_cache_total"),
]


@pytest.mark.parametrize("reported", [False, True], ids=["by its names", "reported"])
@pytest.mark.parametrize(("server", "old", "new"), NEW_NAMES, ids=[one[0] for one in NEW_NAMES])
def test_a_new_name_of_a_metric_that_may_be_late_is_seen(server, old, new, reported):
    one = servers()[server]
    page = full_page(one)
    hit = {
        cell.metric.key
        for cell in check(one, page, one.checked)
        if any(selector.name.removesuffix("_bucket") == old for selector in selectors_of(cell.entry))
    } - ({"tokens_in"} if server == "llamacpp" else set())  # an older version's counts less, and is there
    series = tuple(dataclasses.replace(each, name=each.name.replace(old, new)) for each in page.series)

    found = {cell.metric.key: cell for cell in check(one, Page(types={}, series=series), one.checked * reported)}

    assert hit
    assert {found[key].state for key in hit} == {"missing"}
    assert all(new in found[key].note for key in hit)


@pytest.mark.parametrize(
    "name",
    [
        "parrot:failed_other",
        "parrot:failed_seconds_total",
        "parrot:failed_created",
        "parrot:a_b_c_failed_total",
        "parrot:fall_total",
        "parrot:failed",
        "parrot:done_total",
    ],
)
def test_the_name_of_another_metric_is_not_a_new_name(name):
    assert states(BRACKETS, page_with("parrot:gone_total", name))["failed"] == "late"


@pytest.mark.parametrize("name", ["parrot:faileds_total", "parrot:all_failed_total", "parrot:failed_v3_total"])
def test_a_longer_name_is_a_new_name(name):
    assert states(BRACKETS, page_with(name))["failed"] == "missing"


# --- every server that is known

# Names that distinguish a server from one with the same metrics.
MARKS = {"sim": ["llmchaos_simulated"]}


@pytest.mark.parametrize("one", ENGINES, ids=lambda one: one.name)
def test_a_page_with_all_names_of_a_server_is_recognised_and_whole(one):
    page = page_with(*full_page(one).series, *MARKS.get(one.name, ()))

    found = recognise(page, servers().values())

    assert found.server.name == one.name
    assert found.certainty != "unclear"
    assert broken(one, page) == {}


MUTANTS = [
    (one, name)
    for one in ENGINES
    for name in sorted({selector.name for key in BY_KEY for selector in selectors_of(one.at(key))})
]


@functools.cache
def whole(name):
    page = full_page(servers()[name])
    return page, states(servers()[name], page, servers()[name].checked)


@pytest.mark.parametrize("mutate", [without, renamed])
@pytest.mark.parametrize(("one", "name"), MUTANTS, ids=lambda value: getattr(value, "name", value))
def test_a_series_that_is_lost_or_renamed_is_reported(one, name, mutate):
    page, before = whole(one.name)
    entries = {key: one.at(key) for key in BY_KEY}
    hit = {key for key, entry in entries.items() if name in {selector.name for selector in selectors_of(entry)}}

    after = states(one, mutate(page, name), one.checked)

    assert {key for key in after if after[key] != before[key]} == hit
    expected = {key for key in hit if not entries[key].late and not entries[key].needs}
    assert expected <= {key for key in hit if after[key] in BROKEN}


# --- recognition


def test_an_unknown_page_has_the_expected_names():
    found = recognise(page_with("b", "a", "d", "c"), [BRACKETS, made_up("rook")])

    assert (found.server, found.version, found.versions, found.certainty) == (None, "", "", "unclear")
    assert found.reasons == (
        (
            "No metric of a known server is on the page: expected names that begin with one of parrot:, rook:, "
            "got 4 names such as a, b, c."
        ),
    )
    assert recognise(page_with(), [BRACKETS]).reasons == (
        "The page is empty. Some servers export nothing before their first request.",
    )


def test_a_name_with_the_prefix_that_the_file_lacks_is_not_enough():
    assert recognise(page_with("parrot:other"), [BRACKETS]).server is None


def test_names_without_a_prefix_are_enough_if_no_other_is_there():
    keys = ("running", "waiting", "kv_use")
    one = made_up(**{key: [native(f"parrot:{key}{{}}", since="2"), native(f"{key}{{}}", until="2")] for key in keys})

    found = recognise(page_with("other", *keys), [one, made_up("rook", running=native("rook:running{}"))])

    assert (found.server, found.certainty, found.versions) == (one, "certain", "before 2")


def test_few_metrics_are_unclear():
    assert recognise(page_with("parrot:kv"), [BRACKETS]).certainty == "unclear"
    assert (
        recognise(page_with("parrot:kv"), [BRACKETS]).reasons[0]
        == "The page has 1 of 3 metrics that Parrot should have."
    )


def test_a_metric_of_the_version_makes_it_certain():
    one = made_up(running=native("parrot:running{}"), version='metric = "parrot:build_info"\nlabel = "version"')
    info = Series(name="parrot:build_info", labels={"version": "1.2.3"}, value=1)

    found = recognise(page_with("parrot:running", info), [one])

    assert (found.version, found.versions, found.certainty) == ("1.2.3", "1.2.3", "certain")
    assert "It has parrot:build_info." in found.reasons
    assert recognise(page_with("parrot:running", "parrot:build_info"), [one]).version == ""
    assert recognise(page_with("parrot:running"), [one]).certainty == "likely"
    assert recognise(page_with("parrot:running"), [one], "9").version == "9"


FULL = {key: native(f"parrot:{key}{{}}") for key in ("running", "waiting", "kv_use", "done", "failed")}
ROUTER = made_up(
    "router",
    'kind = "gateway"\nprefixes = ["router:", "parrot:"]',
    running=native("parrot:running{}"),
    waiting=native("router:waiting{}"),
    done=native("router:done{}"),
)


def test_a_gateway_with_names_of_its_own_passes_on_those_of_engines():
    engine = made_up(**FULL)
    both = page_with(*[f"parrot:{key}" for key in FULL], "router:waiting", "router:done")

    found = recognise(both, [engine, ROUTER])

    assert found.server is ROUTER
    assert found.certainty == "certain"
    assert "Router has names of its own, and passes on those of Parrot." in found.reasons
    assert recognise(full_page(engine), [engine, ROUTER]).server is engine
    assert recognise(full_page(ROUTER), [engine, ROUTER]).server is ROUTER
    assert recognise(full_page(ROUTER), [ROUTER]).server is ROUTER


def test_a_gateway_is_recognised_behind_more_names_of_an_engine():
    engine, keys = made_up(**FULL), ("running", "waiting", "done")
    gate = made_up("gate", 'kind = "gateway"', **{key: native(f"gate:{key}{{}}") for key in keys})

    found = recognise(page_with(*full_page(engine).series, *full_page(gate).series), [engine, gate])

    assert (found.server, found.certainty) == (gate, "certain")


def test_a_worker_with_a_few_names_of_its_gateway_is_the_engine():
    engine = made_up(**FULL)
    gate = made_up(
        "gate",
        'kind = "gateway"',
        kv_use=native("gate:kv{}"),
        **{key: native(f"gate:{key}{{}}", late=True) for key in ("running", "waiting", "done")},
    )

    found = recognise(page_with(*full_page(engine).series, "gate:kv", "gate:own"), [engine, gate])

    assert (found.server, found.certainty) == (engine, "certain")


def test_a_worker_of_dynamo_is_the_engine():
    names = ("gpu_cache_usage_percent", "total_blocks", "model_load_time_seconds")
    page = page_with(*full_page(servers()["vllm"]).series, *(f"dynamo_component_{one}" for one in names))

    assert recognise(page, servers().values()).server.name == "vllm"


def test_a_gateway_alone_passes_on_nothing():
    alone = page_with("router:waiting", "router:done", "router:more")

    found = recognise(alone, [ROUTER])

    assert (found.server, found.certainty) == (ROUTER, "likely")


def test_two_servers_with_the_same_names_are_unclear():
    one, other = made_up(**FULL), made_up("budgie", 'prefixes = ["parrot:"]', **FULL)

    found = recognise(full_page(one), [one, other])

    assert found.certainty == "unclear"
    assert "It may be Budgie as well, with 5 of 5 metrics." in found.reasons


def test_a_server_that_exports_the_names_of_another_is_known_by_its_own():
    one, other = made_up(**FULL), made_up("budgie", 'prefixes = ["parrot:", "budgie_"]', **FULL)
    page = page_with(*full_page(one).series, "budgie_info")

    found = recognise(page, [one, other])

    assert (found.server, found.certainty) == (other, "certain")
    assert "Of the two servers with these names, Budgie alone has names that begin with budgie_." in found.reasons
    plain = recognise(full_page(one), [other, one])
    assert (plain.server, plain.certainty) == (one, "certain")


def test_a_server_that_explains_less_of_the_page_is_no_rival():
    one = made_up(**FULL)
    other = made_up(
        "budgie", 'prefixes = ["parrot:"]', **{key: FULL[key] for key in ("running", "waiting", "kv_use", "done")}
    )

    assert recognise(full_page(one), [other, one]).certainty == "certain"
    assert recognise(full_page(one), [other, one]).server is one
