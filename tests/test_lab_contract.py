"""The lab's queries read names that any engine has."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import yaml
from support.server_pages import full_page

from pytest_llmchaos.servers.canonical import BY_SERIES
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.contract import check, selectors_in
from pytest_llmchaos.servers.losses import Target
from pytest_llmchaos.servers.wanted import judge
from pytest_llmchaos.servers.wanted_files import Wants, wants_of, wants_of_dashboard, wants_of_rules
from pytest_llmchaos.subject.lab import dashboards_dir, lab_subject, stack_dir

# The only engine with faults of its own, which no other engine needs to have.
OF_SIMULATION = ("llmchaos_engine_", "llmchaos_simulated")


@functools.cache
def wants() -> Wants:
    """The queries of the lab's rules, remediation, dashboards and subject."""
    found = Wants()
    rules = [one for one in sorted((stack_dir() / "prometheus" / "rules").glob("*.yml")) if one.name != "servers.yml"]
    for path in rules:
        found += wants_of_rules(path.read_text(), path.name)
    for path in sorted(dashboards_dir().rglob("*.json")):
        found += wants_of_dashboard(path.read_text(), path.name)
    signals = yaml.safe_load((stack_dir() / "remediation.yaml").read_text())["signals"]
    found += wants_of(((name, one["query"]) for name, one in signals.items() if "query" in one), "remediation.yaml")
    subject = lab_subject("sim")
    own = {name: getattr(subject, name) for name in ("busy_query", "rotation_query", "requests_query", "waiting_query")}
    return found + wants_of(((name, query) for name, query in own.items() if query), "subject")


def lacks_of(name: str) -> dict[str, str]:
    """Names that an engine's page does not give, with the place of a query."""
    server = servers()[name]
    page = full_page(server)
    target = Target(where="model", server=server, page=page, cells=check(server, page, warm=True))
    found = judge(wants(), [target], servers().values()).lacks
    return {one.series: f"{one.file}: {one.place}" for one in found if not one.series.startswith(OF_SIMULATION)}


def test_the_lab_has_queries_of_each_kind():
    files = {one.file for one in wants().queries}

    assert {"lab.yml", "slo.yml", "remediation.yaml", "subject"} < files
    assert {Path(one).suffix for one in files} == {".yml", ".yaml", ".json", ""}
    names = {one.name for query in wants().queries for one in selectors_in(query.tree)}
    assert len(names & set(BY_SERIES)) >= 5


def test_canonical_names_of_the_lab_are_spelt_right():
    names = {one.name for query in wants().queries for one in selectors_in(query.tree)}

    theirs = {one for one in names if one.startswith(("llmchaos:", "gen_ai_"))} - {*BY_SERIES, *wants().recorded}
    assert theirs <= {"llmchaos:cost_per_1000_good_answers"}  # by the rules of the user's prices


def test_vllm_has_all_that_the_lab_reads():
    assert lacks_of("vllm") == {}


@pytest.mark.parametrize("name", [one.name for one in servers().values() if one.kind == "engine"])
def test_the_lab_reads_no_name_of_one_engine_alone(name):
    """A name that an engine lacks is canonical, and absent by its file."""
    server = servers()[name]
    absent = {one.metric for one in check(server, full_page(server), warm=True) if one.state == "absent"}
    native = {one: place for one, place in lacks_of(name).items() if one not in BY_SERIES}
    lost = {
        one: place for one, place in lacks_of(name).items() if BY_SERIES.get(one) not in absent and one not in native
    }

    assert native == {}
    assert {one for one in lost if not one.endswith("_bucket")} == set()  # means have no buckets
