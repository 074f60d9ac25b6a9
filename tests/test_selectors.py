"""Selectors of an SLO: what is refused of them is what Prometheus refuses, and nothing else."""

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
        ("inf", "no word of PromQL"),
        ("On", "no word of PromQL"),
        ('bool{a="b"}', "no word of PromQL"),
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
        ("by", None),
        ("on:x", None),
    ],
)
def test_is_refused_where_prometheus_refuses_it(tmp_path: Path, selector: str, expected: str | None) -> None:
    rule = {"record": "x", "expr": f"sum(rate({selector}[5m]))"}
    file = tmp_path / "one.yml"
    file.write_text(json.dumps({"groups": [{"name": "one", "rules": [rule]}]}))

    done = subprocess.run([program("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)

    said = expected_of(selector)
    assert (done.returncode == 0) == (said is None), done.stdout + done.stderr
    assert said is None if expected is None else said is not None and expected in said
