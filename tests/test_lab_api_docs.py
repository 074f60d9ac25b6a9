"""The page of the gateway's patterns agrees with its settings and outcomes."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from lab_api.outcomes import Outcome
from lab_api.priority import HEADER
from lab_api.settings import Patterns, Settings
from reference_pages.gateway import gateway_page

PAGE = (Path(__file__).parents[1] / "docs" / "gateway.md").read_text(encoding="utf-8")
DEFAULTS = dict(re.findall(r"^\| `(LAB_\w+)` \| (.*?) \|", gateway_page(), re.MULTILINE))


def test_the_reference_has_every_setting() -> None:
    assert DEFAULTS.keys() == Settings.variables()
    assert DEFAULTS["LAB_QUEUE_MAX"] == "64"
    assert DEFAULTS["LAB_MODEL"] == ""


@pytest.mark.parametrize("one", fields(Patterns), ids=lambda one: one.name)
def test_every_switch_is_in_the_table_with_its_default_and_has_a_section(one) -> None:
    (variable,) = one.metadata["variables"]
    (row,) = re.findall(rf"^\| \[.*?\]\(#([\w-]+)\) \| `{variable}` \| (on|off) \|", PAGE, re.MULTILINE)
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^### (.*)$", PAGE, re.MULTILINE)}

    assert row[1] == DEFAULTS[variable]
    assert row[0] in headings


def test_the_page_names_settings_that_exist_with_the_defaults_that_they_have() -> None:
    named = set(re.findall(r"`(LAB_[A-Z_]+)", PAGE))
    stated = dict(re.findall(r"`(LAB_[A-Z_]+)`\s+\((?:\w+ )??([\d.]+)\)", PAGE))

    assert named - DEFAULTS.keys() == set()
    assert len(stated) > 15
    assert {name: DEFAULTS[name] for name in stated} == stated


def test_the_page_names_the_outcomes_of_patterns() -> None:
    of_other_causes = {
        *(Outcome.OK, Outcome.INVALID_REQUEST, Outcome.UPSTREAM_4XX, Outcome.UPSTREAM_429, Outcome.UPSTREAM_5XX),
        *(Outcome.CONNECT_ERROR, Outcome.REQUEST_TIMEOUT, Outcome.INTERNAL_ERROR),
    }

    assert {one for one in Outcome if f"`{one.value}`" not in PAGE} == of_other_causes
    assert HEADER in PAGE
