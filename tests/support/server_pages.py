"""Servers that a test makes up, and metrics pages that show what a file expects."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from pytest_llmchaos.servers.canonical import BY_KEY
from pytest_llmchaos.servers.contract import selectors_of
from pytest_llmchaos.servers.exposition import Page, Series
from pytest_llmchaos.servers.mapping import parse_server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmchaos.servers.contract import Selector
    from pytest_llmchaos.servers.mapping import Server

ABSENT = {"status": "absent", "trap": "not counted", "source": "manual"}


def native(expr: str, **more: object) -> dict[str, object]:
    """The table of a metric that the server counts."""
    return {"status": "native", "expr": expr, "source": "manual", **more}


def made_up(
    name: str = "parrot",
    head: str = "",
    version: str = "",
    **metrics: Mapping[str, object] | list[Mapping[str, object]],
) -> Server:
    """A server whose other metrics are absent. Its names begin with its own name.

    `head` is more text for the head of its file, `version` for its table of this name.
    """
    lines = [f'title = "{name.title()}"', 'source = "its manual"', 'checked = "2.0"']
    lines += [] if "kind =" in head else ['kind = "engine"']
    lines += [] if "prefixes =" in head else [f'prefixes = ["{name}:"]']
    lines += [head] + (["[version]", version] if version else [])
    for key in BY_KEY:
        given = metrics.get(key, ABSENT)
        for table in given if isinstance(given, list) else [given]:
            lines.append(f"[[metrics.{key}]]" if isinstance(given, list) else f"[metrics.{key}]")
            lines += [f"{field} = {json.dumps(value)}" for field, value in table.items()]
    return parse_server("\n".join(lines), name)


def series_of(selector: Selector) -> Series:
    """A series that the selector matches."""
    labels = {"le": "+Inf"} if selector.name.endswith("_bucket") else {}
    for label, how, value in selector.matchers:
        labels[label] = {"=": value, "=~": value.partition("|")[0]}.get(how, f"not-{value}")
    return Series(name=selector.name, labels=labels, value=1.0)


def page_with(*series: Series | str) -> Page:
    """A page of these series. A text is the name of one without labels."""
    return Page(
        types={},
        series=tuple(Series(name=one, labels={}, value=1.0) if isinstance(one, str) else one for one in series),
    )


def full_page(server: Server, version: str = "") -> Page:
    """A page with everything that a version of the server exports."""
    wanted = dict.fromkeys(one for key in BY_KEY for one in selectors_of(server.at(key, version)))
    return page_with(*map(series_of, wanted))


def bare(expr: str) -> str:
    """The PromQL of a rule without the calls that keep labels which it overwrites."""
    found = re.search(r'label_join\((.*), ("exported_\w+"), "", \2, "\w+"\)', expr)
    return bare(expr[: found.start()] + found[1] + expr[found.end() :]) if found else expr
