"""Canonical metrics, the files that map a server's names to them, and their rules."""

import re
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import promql_parser
import pytest
import yaml
from support.server_pages import bare

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.servers import catalogue
from pytest_llmchaos.servers.canonical import BY_KEY, CANONICAL
from pytest_llmchaos.servers.mapping import is_in, parse_server, version_key
from pytest_llmchaos.servers.rules import expression, recording_rules

HEAD = 'title = "Parrot"\nkind = "engine"\nsource = "its manual"\nchecked = "2.0"\n'
ABSENT = {"status": "absent", "trap": "not counted", "source": "manual"}


def value(one):
    return str(one).lower() if isinstance(one, bool) else repr(one)


def text(head=HEAD, **metrics):
    """A file in which all other metrics are absent."""
    lines = [head]
    for key in BY_KEY:
        given = metrics.get(key, ABSENT)
        for table in given if isinstance(given, list) else [given]:
            lines.append(f"[[metrics.{key}]]" if isinstance(given, list) else f"[metrics.{key}]")
            lines += [f"{name} = {value(one)}" for name, one in table.items()]
    return "\n".join(lines)


def parrot(**metrics):
    return parse_server(text(**metrics), "parrot")


def native(expr, **more):
    return {"status": "native", "expr": expr, "source": "manual", **more}


def records(server, matchers=""):
    groups = yaml.safe_load(recording_rules([server], matchers))["groups"]
    return {rule["record"]: {**rule, "expr": bare(rule["expr"])} for group in groups for rule in group["rules"]}


def test_each_canonical_metric_has_its_own_name_in_prometheus_spelling_with_its_unit():
    names = [one.name for one in CANONICAL]

    assert len(set(names)) == len(names) == 17
    for one in CANONICAL:
        assert re.fullmatch(r"[a-z_:]+", one.name)
        assert one.name.endswith("_total") == (one.kind == "counter")
        assert one.name.endswith("_seconds") == (one.unit == "seconds")
        assert one.name.startswith("llmchaos:") != bool(one.otel)
        assert not one.otel or one.name == one.otel.replace(".", "_") + "_seconds"


def test_a_histogram_has_three_series():
    assert BY_KEY["ttft"].series == tuple(
        f"gen_ai_server_time_to_first_token_seconds_{part}" for part in ("bucket", "sum", "count")
    )
    assert BY_KEY["running"].series == ("llmchaos:requests_running",)


def test_a_version_has_the_entry_of_its_bracket():
    new = native("parrot:used_ratio{}", since="2.0")
    old = native("parrot:used{}", until="2.1")
    server = parrot(kv_use=[new, old])

    assert server.at("kv_use").expr == "parrot:used_ratio{}"
    assert server.at("kv_use", "1.9").expr == "parrot:used{}"
    assert server.at("kv_use", "2.0.3").expr == "parrot:used_ratio{}"
    assert [is_in("2.0", one) for one in server.of("kv_use")] == [True, True]
    assert [is_in("2.1", one) for one in server.of("kv_use")] == [True, False]
    assert [is_in("", one) for one in server.of("kv_use")] == [True, False]


def test_a_version_without_an_entry_has_the_newest():
    server = parrot(
        kv_use=[native("parrot:used_ratio{}", since="2.0"), native("parrot:used{}", since="1.5", until="2.0")]
    )

    assert server.at("kv_use", "1.0").expr == "parrot:used_ratio{}"


@pytest.mark.parametrize(
    ("version", "key"), [("0.11.2", (0, 11, 2)), ("v1.0rc5", (1,)), ("2.53.0+cu12", (2, 53)), ("main", (0,))]
)
def test_versions_are_compared_by_their_numbers(version, key):
    assert version_key(version) == key


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("title = ", "the file of server parrot must be TOML"),
        (HEAD, "must map each canonical metric, also those it lacks .*: it lacks aborted, done"),
        ("metrics = 3\n" + HEAD, "it lacks aborted"),
        (text() + "\n[metrics.speed]\nstatus = 'absent'", ": speed is not one of them"),
        (text(head=HEAD.replace("title", "titel")), "unknown key 'titel'"),
        (text(head=HEAD.replace('title = "Parrot"\n', "")), "server parrot: title must be given, and it is missing"),
        (text(head=HEAD.replace("engine", "motor")), "kind must be one of engine, gateway, provider, got 'motor'"),
        (text(head=HEAD + "prefixes = 'a'\n"), "prefixes must be a list of strings"),
        (text(head=HEAD + "version = 2\n"), "parrot: version: value must be a table"),
        (text(running=native("")), r"metrics.running: expr must be PromQL, or sum and count of a histogram"),
        (text(running=native(" a{}")), "expr must be a string without spaces around it"),
        (text(running=native("a{}", factor=0.0)), "factor must be a number above 0"),
        (text(running=native("a{}", late="yes")), "late must be true or false"),
        (text(running=native("a{}", since="new")), "since must be a version such as 0.11.2, got 'new'"),
        (text(running=native("a{}", since="2.0", until="1.5")), "until must be a version after 2.0, got '1.5'"),
        (text(running=native("a")), r"expr must be a\{\}, with braces after each metric, got 'a'"),
        (text(running=native('sum by (job) (a{x="b c"} offset 5m) and on(job) b:c')), r"must be b:c\{\}, with braces"),
        (text(running=native("a{} +")), "expr must be PromQL .*, got 'a"),
        (text(running=native('a{x="{"}')), "expr must be without braces in its strings"),
        (text(ttft=native("rate(first_seconds{}[1m])")), "expr must be a selector such as .* for a histogram"),
        (
            text(ttft=native("first_h{}", factor=3600.0)),
            "factor must be one of 1.0, 0.001, 1e-06 for buckets, got 3600",
        ),
        (text(running=native("a{}", factor=float("inf"))), "factor must be a number above 0"),
        (text(head=HEAD + "prefixes = ['']\n"), "prefixes must be beginnings of names"),
        (text(head=HEAD + "service_label = 'a\"b'\n"), "service_label must be a label's name"),
        (text(running={**native("a{}"), "source": ""}), "source must be where the fact is from"),
        (text(running=ABSENT | {"expr": "a{}"}), "expr must be empty for an absent metric"),
        (text(running=ABSENT | {"trap": ""}), "trap must be the reason why it is absent"),
        (text(running=native("a{}", instead="b{}")), "instead must be empty unless the metric is absent, got 'b"),
        (text(running=native("a{}", streams=True)), "streams must be false unless the metric is late, got True"),
        (text(running=ABSENT | {"instead": "b"}), r"instead must be b\{\}, with braces after each metric"),
        (
            text(running=[]).replace("[metrics.waiting]", "[metrics]\nrunning = []\n[metrics.waiting]"),
            "must be a table",
        ),
        (text(heartbeat=native("a_total{}")), "ticks must be one of step, batch, request for a heartbeat"),
        (text(running=native("a{}", ticks="step")), "ticks must be one of .* and for nothing else, got 'step'"),
        (text(heartbeat=native("a_total{}", ticks="tock")), "ticks must be one of step, batch, request, got 'tock'"),
    ],
)
def test_a_wrong_file_is_one_clear_error(given, message):
    with pytest.raises(BadScenario, match=message):
        parse_server(given, "parrot")


def test_a_server_has_a_name_of_small_letters():
    with pytest.raises(BadScenario, match="server My Server: name must be lower-case letters, digits and -"):
        parse_server(text(), "My Server")


def test_a_rule_copies_a_metric_with_its_labels_and_names_its_server():
    found = records(parrot(running=native("parrot:busy{}"), heartbeat=native("parrot:ticks_total{}", ticks="batch")))

    assert found == {
        "llmchaos:requests_running": {
            "record": "llmchaos:requests_running",
            "expr": "parrot:busy",
            "labels": {"server": "parrot", "origin": "native"},
        },
        "llmchaos:engine_steps_total": {
            "record": "llmchaos:engine_steps_total",
            "expr": "parrot:ticks_total",
            "labels": {"server": "parrot", "origin": "native", "ticks": "batch"},
        },
    }


def test_matchers_are_added_to_every_selector():
    entry = native('parrot:ok_total{code=~"2.."} + parrot:late_total{}', status="derived")
    found = records(parrot(done=entry), 'job="model"')

    assert found["llmchaos:requests_done_total"]["expr"] == (
        'parrot:ok_total{job="model",code=~"2.."} + parrot:late_total{job="model"}'
    )


def test_names_of_several_versions_are_one_rule():
    found = records(parrot(kv_use=[native("new{}", since="2.0"), native("old{}", until="2.0"), native("old{}")]))

    assert found["llmchaos:kv_cache_usage_ratio"]["expr"] == "new or old"


def test_a_native_and_a_derived_metric_are_two_rules():
    both = [native("new_total{}", since="2.0"), native("a{} - b{}", until="2.0", status="derived")]
    groups = yaml.safe_load(recording_rules([parrot(done=both)]))["groups"]

    assert [(bare(rule["expr"]), rule["labels"]["origin"]) for rule in groups[0]["rules"]] == [
        ("new_total", "native"),
        ("a - b", "derived"),
    ]


def test_a_histogram_keeps_its_buckets():
    found = records(parrot(ttft=native('parrot:first_seconds{stream="yes"}')))

    assert [rule["expr"] for rule in found.values()] == [
        f'parrot:first_seconds_{part}{{stream="yes"}}' for part in ("bucket", "sum", "count")
    ]


def test_milliseconds_become_seconds_in_sums_and_bounds():
    found = records(parrot(ttft=native("first_ms{}", factor=0.001)))
    bucket, total, count = (rule["expr"] for rule in found.values())

    assert total == "(first_ms_sum) * 0.001"
    assert count == "first_ms_count"
    assert bucket.startswith("label_replace(")
    assert "first_ms_bucket" in bucket
    promql_parser.parse(bucket)


def replaced(node, bound):
    """The label `le` after the calls of label_replace, as Prometheus makes it."""
    if not isinstance(node, promql_parser.Call):
        return bound
    inner, _, replacement, _, pattern = node.args
    bound = replaced(inner, bound)
    found = re.fullmatch(pattern.val, bound)
    return re.sub(r"\$(\d)", lambda group: found[int(group[1])] or "", replacement.val) if found else bound


@pytest.mark.parametrize(
    ("factor", "bound", "seconds"),
    [
        *((0.001, str(bound), bound / 1000) for bound in (0, 1, 5, 25, 100, 999, 1000, 2500, 12345, 600000)),
        *(
            (0.001, bound, float(bound) / 1000)
            for bound in ("5.0", "100.0", "2.5", "0.5", "0.05", "12.25", "1500.5", "+Inf")
        ),
        *((1e-6, str(bound), bound / 1e6) for bound in (1, 50, 123456, 999999, 1000000, 2500000)),
    ],
)
def test_a_bound_is_the_same_time_in_seconds(factor, bound, seconds):
    bucket = records(parrot(ttft=native("first{}", factor=factor)))[f"{BY_KEY['ttft'].name}_bucket"]["expr"]

    found = replaced(promql_parser.parse(bucket), bound)

    assert float(found) == seconds
    assert found == "+Inf" or not found.endswith(("00", "."))
    assert found == "+Inf" or found == format(seconds, "f").rstrip("0") + "0" * seconds.is_integer()


def test_a_server_with_a_mean_alone_has_no_buckets():
    entry = {**native("", status="derived"), "sum": "spent_us{}", "count": "ended_total{}", "factor": 1e-6}
    del entry["expr"]
    found = records(parrot(e2e=entry))

    assert {name.rpartition("_")[2]: rule["expr"] for name, rule in found.items()} == {
        "sum": "(spent_us) * 1e-06",
        "count": "ended_total",
    }


def test_an_absent_metric_has_no_rule_and_no_expression():
    server = parrot()

    assert recording_rules([server]) == "groups: []\n"
    assert expression(server.at("running")) == ""


def test_every_server_here_is_read():
    assert {"vllm"} <= set(catalogue.servers())
    assert catalogue.server("vllm").title == "vLLM"


def test_an_unknown_server_is_an_error_that_lists_the_known_ones():
    with pytest.raises(BadScenario, match=r"there is no model server 'vlm'; those with a file are .*vllm"):
        catalogue.server("vlm")


def foreign_text():
    return text(running=native("parrot:busy{}"))


def wrong_text():
    return text().replace("engine", "motor")


def not_text():
    raise RuntimeError("no such file")


def end_of_all():
    raise SystemExit(0)


@pytest.fixture
def foreign(monkeypatch):
    def install(value, dist=None):
        point = EntryPoint(name="parrot", value=value, group=catalogue.GROUP)
        vars(point)["dist"] = dist
        monkeypatch.setattr(catalogue, "entry_points", lambda group: [point] if group == catalogue.GROUP else [])
        catalogue.servers.cache_clear()

    yield install
    catalogue.servers.cache_clear()


def test_another_package_adds_a_server(foreign):
    foreign(f"{__name__}:foreign_text")

    assert catalogue.server("parrot").at("running").expr == "parrot:busy{}"
    assert catalogue.server("parrot").package == f"{__name__}:foreign_text"
    assert catalogue.server("vllm").package == ""


def test_a_server_of_another_package_has_its_name_and_version(foreign):
    foreign(f"{__name__}:foreign_text", dist=SimpleNamespace(name="parrot-metrics", version="1.0"))

    assert catalogue.server("parrot").package == "parrot-metrics 1.0"


@pytest.mark.parametrize(("name", "why"), [("not_text", "RuntimeError: no such file"), ("end_of_all", "SystemExit: 0")])
def test_a_server_of_another_package_that_cannot_be_read_is_an_error(foreign, name, why):
    foreign(f"{__name__}:{name}")

    with pytest.raises(BadScenario, match=rf"server parrot of .*cannot be read \({why}\)"):
        catalogue.servers()


def test_a_build_without_a_release_number_has_the_newest_entries():
    newest = native("parrot:used_ratio{}", since="2.0")
    server = parrot(kv_use=[newest, native("parrot:used{}", until="2.0")])

    for version in ("b0-unknown", "0.0.0", "main"):
        assert server.at("kv_use", version).expr == "parrot:used_ratio{}"


def test_what_a_gateway_exports_for_several_servers_keeps_the_server_as_service():
    head = HEAD + 'service_label = "replica"\n'
    gauge = native("parrot_derived_running{}")
    server = parse_server(text(head, running=gauge, e2e=native("parrot_derived_seconds{}")), "parrot")

    found = records(server, 'job="api"')

    labelled = 'label_replace({}, "service", "$1", "replica", "(.+)")'.format
    assert found["llmchaos:requests_running"]["expr"] == labelled('parrot_derived_running{job="api"}')
    bucket = found["gen_ai_server_request_duration_seconds_bucket"]["expr"]
    assert bucket == labelled('parrot_derived_seconds_bucket{job="api"}')


def test_a_wrong_file_of_another_package_names_its_place(foreign):
    foreign(f"{__name__}:wrong_text")

    with pytest.raises(BadScenario, match=r"kind must be one of .* \(from .*:wrong_text: repair or uninstall"):
        catalogue.servers()
