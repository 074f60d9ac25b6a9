"""Selectors of SLOs: refused exactly if Prometheus refuses them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.prometheus_server import program

from pytest_llmchaos.slo.selectors import expected_of


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (r'a_total{b=~"("}', "regular expressions"),
        (r'a_total{b!~"[b-a]"}', "regular expressions"),
        (r'a_total{b=~"a**"}', "regular expressions"),
        (r'a_total{b=~"(?=a)b"}', "regular expressions"),
        (r'a_total{b=~"(?<!a)b"}', "regular expressions"),
        (r'a_total{b=~"(a)\\1"}', "regular expressions"),
        (r'a_total{b=~"a++"}', "regular expressions"),
        (r'a_total{b=~"a{1001}"}', "regular expressions"),
        (r'a_total{b=~"\\u0041"}', "regular expressions"),
        (r'a_total{b="\q"}', "escapes"),
        (r'a_total{b="\d"}', "escapes"),
        (r"""a_total{b="it\'s"}""", "escapes"),
        (r'a_total{b="\x4"}', "escapes"),
        (r'a_total{b="\ud800"}', "escapes"),
        (r'a_total{b="\777"}', "escapes"),
        ('a_total{__name__="b_total"}', "without __name__"),
        ('a_total{c="d",__name__!="b_total"}', "without __name__"),
        (r'a_total{b=~"*"}', "regular expressions"),
        (r'a_total{b=~"a("}', "regular expressions"),
        (r'a_total{b=~"a{2,1}"}', "regular expressions"),
        (r'a_total{b=~"a{2,1001}"}', "regular expressions"),
        (r'a_total{b=~"a{99999999999}"}', "regular expressions"),
        (rf'a_total{{b=~"{"(" * 20000}a{")" * 20000}"}}', "regular expressions"),
        (r'a_total{b=~"\050"}', "regular expressions"),
        (r'a_total{b=~"\x5b"}', "regular expressions"),
        (r'a_total{b=~"\u005b"}', "regular expressions"),
        (r'a_total{b=~"\U0000005b"}', "regular expressions"),
        (r'a_total{b="\!"}', "escapes"),
        (r'a_total{b="\400"}', "escapes"),
        (r'a_total{b="\udfff"}', "escapes"),
        (r'a_total{b="\U0000d800"}', "escapes"),
        (r'a_total{b="\U00110000"}', "escapes"),
        (r'a_total{b="a\\\q"}', "escapes"),
        ("inf", "not a word of PromQL"),
        ("On", "not a word of PromQL"),
        ('bool{a="b"}', "not a word of PromQL"),
        (r'a_total{b=~"\\pL+|\\p{Greek}|[\\pL\\d]"}', None),
        (r'a_total{b=~"a\\z"}', None),
        (r'a_total{b=~"a(?i)b(?i:c)(?s-m:d)"}', None),
        (r'a_total{b=~"\\(?=a"}', None),
        (r'a_total{b=~"[(?=\\]*+]"}', None),
        (r'a_total{b=~"\\Qa(\\E"}', None),
        (r'a_total{b=~"[[:alpha:]]+\\x{41}"}', None),
        (r'a_total{b=~"(?P<n>a){2,1000}"}', None),
        (r'a_total{b="\a\t\\\"\x41\u00e9\101"}', None),
        (r"""a_total{b='it"s', c='it\'s'}""", None),
        (r'a_total{b=~"a{,99999999999}|[[:alpha:]{99999999999}]|a{01001}|a{2,}|a{1000}"}', None),
        (r'a_total{b="\000\377\x00\ud7ff\ue000\uffff\U0001F600\U0010ffff"}', None),
        (r'a_total{b="\x28",c="(",d!="*"}', None),
        ('a_total{A="b",_="c"}', None),
        ("by", None),
        ("on:x", None),
    ],
)
def test_a_selector_is_refused_where_prometheus_refuses_it(tmp_path: Path, selector: str, expected: str | None) -> None:
    rule = {"record": "x", "expr": f"sum(rate({selector}[5m]))"}
    file = tmp_path / "one.yml"
    file.write_text(json.dumps({"groups": [{"name": "one", "rules": [rule]}]}))

    done = subprocess.run([program("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)

    said = expected_of(selector)
    assert (done.returncode == 0) == (said is None), done.stdout + done.stderr
    assert said is None if expected is None else said is not None and expected in said


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ('bool{a="b"}', "a metric whose name is not a word of PromQL, as bool is"),
        ('a_total{c="d",__name__="b"}', "without __name__, for it names the metric already (a_total)"),
        (r'a_total{c="\q"}', r'with texts whose escapes are valid in PromQL, unlike "\q" (write a backslash twice)'),
        ('a_total{c=~"("}', 'with regular expressions that Prometheus accepts (RE2), unlike "("'),
        ("sum(a_total)", 'metric_total{label="value"} without functions (the arithmetic is added here)'),
    ],
)
def test_a_refused_selector_names_its_error(selector: str, said: str) -> None:
    assert expected_of(selector) == said
