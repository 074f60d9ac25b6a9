"""Names of each server, against a page of each version."""

from __future__ import annotations

import json
import re
import subprocess
from decimal import Decimal
from itertools import pairwise

import promql_parser
import pytest
import yaml
from support.expositions import Exposition, expositions, parse, parts_of, selectors
from support.prometheus_server import newer_program, program

from pytest_llmchaos.servers.canonical import BY_KEY, CANONICAL
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.mapping import Entry, is_in, version_key
from pytest_llmchaos.servers.rules import recording_rules

PAGES = expositions()
# Names that look like a canonical metric. A page whose server lacks the metric may have
# such a name if another metric reads it, or if the file names it in a trap.
LOOKS = {
    "running": r"running|inflight|in_flight|active_req|current_size|processing$",
    "waiting": r"waiting$|queue_size|queue_reqs|queued|pending_request|deferred$",
    "kv_use": r"cache_usage|token_usage|cache_util|cache_block",
    "ttft": r"first_token|first_response|ttft",
    "inter_token": r"inter_token|iter_token",
    "per_token": r"per_(output_)?token",
    "e2e": r"(e2e_)?request_(total_)?(latency|duration)",
    "queue_time": r"queue_(time|duration)|queue_latency",
    "done": r"success|requests_total|request_count$",
    "failed": r"fail|error",
    "aborted": r"abort|cancel|disconnect",
    "tokens_in": r"(prompt|input)_(sequence_)?(tokens|length|token_len)",
    "tokens_out": r"(generat\w+|output)_(sequence_)?(tokens|token_len)",
    "preempted": r"preempt|retract|paused|inflight_batcher",
    "prefix_hits": r"prefix_cache|cached_tokens|reused|hit_rate",
    "heartbeat": r"iteration|realtime|inference_count|exec_count|n_decode",
    "healthy": r"healthy|ready",
}
# What the pages count: 38 whole answers of 32 tokens to prompts of 128, 2 aborted and 1
# failed request. Gauges and counters, else sum and count of a histogram, in base units.
TRAFFIC = {
    "running": 3,
    "waiting": 2,
    "kv_use": 0.25,
    "ttft": (16, 38),
    "inter_token": (29.5, 1178),
    "per_token": (1.4, 38),
    "e2e": (54.5, 38),
    "queue_time": (4.06, 38),
    "done": 38,
    "failed": 1,
    "aborted": 2,
    "tokens_in": 4864,
    "tokens_out": 1216,
    "preempted": 1,
    "prefix_hits": 640,
    "heartbeat": 400,
    "healthy": 1,
}
# Where a server's trap shows: by the beginning of a page's name.
TRAPS = {
    ("vllm-0.8", "prefix_hits"): 40,  # blocks of 16 tokens
    ("sglang-", "heartbeat"): 4864 + 1178,  # tokens of the prompts and of the steps
    ("tensorrt-llm-", "heartbeat"): 38,  # answers
    ("tgi-", "per_token"): (1.54, 38),  # with the prefill
    ("dynamo-", "e2e"): (57.5, 41),  # with failed and aborted requests
    ("dynamo-0", "failed"): 3,  # with aborted requests
    ("dynamo-", "heartbeat"): 1216,  # tokens
}
MADE = {one for one in PAGES if one.startswith(("vllm-0", "sglang-", "tensorrt-llm-", "triton-", "tgi-", "dynamo-"))}
PROMTOOLS = {"2": program, "3": newer_program}


def in_force(page: Exposition, key: str) -> list[Entry]:
    return [one for one in page.server.of(key) if one.status != "absent" and is_in(page.version, one)]


def unread(page: Exposition, key: str) -> list[str]:
    """Selectors of a metric's entries in force that read nothing of the page.

    A late metric may be declared without any series.
    """
    return [
        one.prettify()
        for entry in in_force(page, key)
        for one in read_by(entry)
        if not page.select(one) and not (entry.late and one.name in page.kinds.keys() - page.names())
    ]


def leftovers(page: Exposition, key: str) -> list[str]:
    """Selectors of another version's entries that read something of the page."""
    read = {one.prettify() for other in BY_KEY for entry in in_force(page, other) for one in read_by(entry)}
    return [
        one.prettify()
        for entry in page.server.of(key)
        if not is_in(page.version, entry)
        for one in read_by(entry)
        if one.prettify() not in read and page.select(one)
    ]


def read_by(entry: Entry) -> list[promql_parser.VectorSelector]:
    return selectors(parts_of(entry).values())


def unexplained(page: Exposition, key: str) -> list[str]:
    """Names that look like a metric which the file calls absent."""
    if in_force(page, key):
        return []
    read = {one.name for other in BY_KEY for entry in in_force(page, other) for one in read_by(entry)}
    said = " ".join(entry.trap for entry in page.server.entries)
    return sorted(
        name
        for name in page.names() - read
        if re.search(LOOKS[key], base(page, name)) and base(page, name) not in said and name not in said
    )


def base(page: Exposition, name: str) -> str:
    """The metric of a series: that of a histogram lacks its part."""
    short = re.sub(r"_(bucket|sum|count)$", "", name)
    return short if page.kinds.get(short) in {"histogram", "summary"} else name


def amiss(page: Exposition, key: str) -> list[str]:
    return unread(page, key) + leftovers(page, key) + unexplained(page, key)


@pytest.mark.parametrize("stem", PAGES)
def test_a_page_has_the_names_of_its_version_and_none_of_another(stem: str) -> None:
    assert {key: found for key in BY_KEY if (found := amiss(PAGES[stem], key))} == {}


@pytest.mark.parametrize("name", servers())
def test_each_entry_of_a_server_is_in_force_for_one_of_its_pages(name: str) -> None:
    server = servers()[name]
    pages = [one for one in PAGES.values() if one.server.name == name]

    without = [one for one in server.entries if not any(is_in(page.version, one) for page in pages)]

    if not pages:  # then it is absent, or on the page of a gateway
        without = [one for one in server.entries if one.status != "absent" and "gateway" not in one.needs]
    assert [(one.canonical.key, one.expr) for one in without] == []


@pytest.mark.parametrize("name", servers())
def test_brackets_of_a_metric_leave_no_version_out_and_the_newest_is_first(name: str) -> None:
    for key in BY_KEY:
        found = servers()[name].of(key)
        assert not found[0].until, key
        for new, old in pairwise(found):
            assert not old.until or version_key(old.until) >= version_key(new.since), key


@pytest.mark.parametrize("stem", PAGES)
def test_no_series_of_a_page_may_go_or_get_another_name_unseen(stem: str) -> None:
    page = PAGES[stem]
    there = [
        (key, one, gone)
        for key in BY_KEY
        for entry in in_force(page, key)
        for one in read_by(entry)
        if (gone := page.select(one))
    ]

    assert there
    assert [(key, one.prettify()) for key, one, gone in there if not amiss(page.without(gone), key)] == []


BACK = [
    (stem, key, one)
    for stem, page in PAGES.items()
    for key in BY_KEY
    for entry in page.server.of(key)
    if not is_in(page.version, entry)
    for one in read_by(entry)
    if one.name not in page.names()
]


@pytest.mark.parametrize(("stem", "key", "old"), BACK, ids=lambda one: one.prettify() if hasattr(one, "name") else one)
def test_a_name_of_another_version_that_comes_back_is_seen(stem: str, key: str, old) -> None:
    labels = {one.name: one.value.partition("|")[0] for one in old.matchers.matchers}

    assert leftovers(PAGES[stem].with_series(old.name, labels), key)


def test_a_name_that_looks_like_an_absent_metric_is_seen() -> None:
    text = "# TYPE tgi_time_to_first_token_seconds gauge\ntgi_time_to_first_token_seconds 1\n"

    assert unexplained(parse("tgi-3.3.0", text), "ttft") == ["tgi_time_to_first_token_seconds"]


@pytest.mark.parametrize("stem", PAGES)
def test_types_of_a_page_are_those_of_the_canonical_metrics(stem: str) -> None:
    page = PAGES[stem]
    for key, metric in BY_KEY.items():
        for entry in in_force(page, key):
            for one in read_by(entry):
                kind = page.kinds.get(base(page, one.name), "")
                part = one.name.removeprefix(base(page, one.name))
                of_part = metric.kind == "histogram" or part in {"_sum", "_count"}
                allowed = {"histogram", "counter", "summary"} if of_part else {metric.kind}
                assert kind in allowed or (kind == "gauge" and "gauge" in entry.trap), (key, one.name, kind)


@pytest.mark.parametrize("stem", PAGES)
def test_histograms_of_a_page_are_whole(stem: str) -> None:
    page = PAGES[stem]
    for name in (name for name, kind in page.kinds.items() if kind == "histogram"):
        rows: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for (series, labels), value in page.samples.items():
            if series == f"{name}_bucket":
                others = tuple(one for one in labels if one[0] != "le")
                rows.setdefault(others, []).append((float(dict(labels)["le"]), value))
        for labels, buckets in rows.items():
            bounds, counts = zip(*buckets, strict=True)
            assert list(bounds) == sorted(set(bounds)), name
            assert list(counts) == sorted(counts), name
            assert bounds[-1] == float("inf"), name
            assert page.samples[f"{name}_count", labels] == counts[-1], name
            assert (f"{name}_sum", labels) in page.samples, name


def rules_of(*names: str, matchers: str = "") -> str:
    return recording_rules([servers()[name] for name in names], matchers)


def test_every_generated_rule_is_promql() -> None:
    for matchers in ("", 'job="model"'):
        for group in yaml.safe_load(rules_of(*servers(), matchers=matchers))["groups"]:
            for rule in group["rules"]:
                promql_parser.parse(rule["expr"])


@pytest.mark.parametrize("major", PROMTOOLS)
@pytest.mark.parametrize("matchers", ["", 'job="model",service!=""'])
def test_promtool_accepts_every_generated_rule(tmp_path, major: str, matchers: str) -> None:
    file = tmp_path / "canonical.rules.yml"
    file.write_text(rules_of(*servers(), matchers=matchers))

    done = run(major, "check", "rules", file)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


@pytest.mark.parametrize("major", PROMTOOLS)
@pytest.mark.parametrize("name", sorted({page.server.name for page in PAGES.values()}))
def test_recorded_values_are_in_base_units(tmp_path, major: str, name: str) -> None:
    pages = [one for one in PAGES.values() if one.server.name == name]
    (tmp_path / "rules.yml").write_text(rules_of(name, matchers='job="model"'))
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [history(one) for one in pages]}
    (tmp_path / "test.yml").write_text(json.dumps(test))

    done = run(major, "test", "rules", tmp_path / "test.yml")

    assert done.returncode == 0, done.stdout + done.stderr


def run(major: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Output of a major version's promtool. Skips the test without one."""
    tool = PROMTOOLS[major]("promtool")
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    if f"version {major}." not in said:
        pytest.skip(f"expected promtool {major} at {tool}, which is {said.splitlines()[0]}")
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)


def history(page: Exposition) -> dict[str, object]:
    """A test of promtool with a page as its series."""
    series = [
        {"series": f"{name}{{{written((*labels, ('job', 'model'), ('instance', 'a')))}}}", "values": f"{value!r}x1"}
        for (name, labels), value in page.samples.items()
    ]
    checks = [one for metric in CANONICAL for one in checks_of(page, metric.key)]
    return {"name": page.stem, "interval": "1m", "input_series": series, "promql_expr_test": checks}


def written(labels) -> str:
    return ",".join(f"{name}={json.dumps(value)}" for name, value in labels)


def checks_of(page: Exposition, key: str):
    metric, entries = BY_KEY[key], in_force(page, key)
    if not entries:
        yield from (check(f"count({name})") for name in metric.series)
        return
    values = expected(page, key)
    for part, value in values.items():
        name = metric.name + (part and f"_{part}")
        # As whole millionths: promtool of 2.42 compares floats bit by bit.
        yield check(f"round(sum({name}) * 1e6)", {"": round(value * 1e6)})
        labels = f'server="{page.server.name}", origin="{entries[0].status}"'
        labels += f', ticks="{entries[0].ticks}"' if entries[0].ticks else ""
        yield check(f"count({name}{{{labels}}}) == count({name}) == bool count({name})", {"": 1})
    if "sum" in values and "bucket" in parts_of(entries[0]):
        yield check(f"sum by (le) ({metric.name}_bucket)", buckets(page, entries[0]))


def check(expression: str, samples: dict[str, float] | None = None) -> dict[str, object]:
    found = [{"labels": f"{{{labels}}}", "value": value} for labels, value in (samples or {}).items()]
    return {"expr": expression, "eval_time": "1m", "exp_samples": found}


def expected(page: Exposition, key: str) -> dict[str, float]:
    """Values by part: those of the traffic, or the sum of the page's series."""
    if page.stem in MADE:
        trap = next((value for (stem, of), value in TRAPS.items() if of == key and page.stem.startswith(stem)), None)
        value = TRAFFIC[key] if trap is None else trap
        return dict(zip(("sum", "count"), value, strict=True)) if isinstance(value, tuple) else {"": value}
    entry = in_force(page, key)[0]
    if not any(map(page.select, read_by(entry))):
        return {}
    return {
        part: sum(page.select(found[0]).values()) * (1 if part == "count" else entry.factor)
        for part, text in parts_of(entry).items()
        if part != "bucket"
        and len(found := selectors([text])) == 1
        and re.fullmatch(r"\(?[\w:]+(\{.*\})?(\) \* [\d.e-]+)?", text)
    }


def buckets(page: Exposition, entry: Entry) -> dict[str, float]:
    found: dict[str, float] = {}
    for (_, labels), value in page.select(selectors([parts_of(entry)["bucket"]])[0]).items():
        bound = dict(labels)["le"]
        if entry.factor != 1 and bound != "+Inf":
            bound = str(float(Decimal(bound) * Decimal(str(entry.factor))))
        found[f'le="{bound}"'] = found.get(f'le="{bound}"', 0) + value
    return found


def test_bounds_in_milliseconds_become_seconds() -> None:
    page = PAGES["triton-2.60.0"]

    found = buckets(page, page.server.at("ttft"))

    assert found == {'le="0.1"': 20, 'le="0.5"': 30, 'le="2.0"': 38, 'le="5.0"': 38, 'le="+Inf"': 38}
