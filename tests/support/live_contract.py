"""The contract of a live server, in both directions."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from support.live_servers import fetch

from pytest_llmchaos.servers.catalogue import server, servers
from pytest_llmchaos.servers.contract import check
from pytest_llmchaos.servers.exposition import parse_page
from pytest_llmchaos.servers.recognition import recognise

if TYPE_CHECKING:
    from support.live_servers import Live

    from pytest_llmchaos.servers.contract import State
    from pytest_llmchaos.servers.mapping import Server

# Parts of names that a metric of this meaning would have.
HINTS = {
    "running": r"running|processing|in_?flight|active_req|requests_active",
    "waiting": r"waiting|deferred|queue|pending_requests",
    "kv_use": r"kv_cache|cache_usage|token_usage",
    "ttft": r"ttft|first_(token|chunk)",
    "inter_token": r"inter_token|token_gap|between_tokens",
    "per_token": r"per_output_token|tpot|per_token",
    "e2e": r"(request|e2e|generat\w+)_(\w+_)?(duration|latency)",
    "queue_time": r"(queue|wait\w*)_(time|duration|seconds)",
    "done": r"success|requests(_\w+)?_total",
    "failed": r"fail|error",
    "aborted": r"abort|cancel|disconnect",
    "tokens_in": r"(prompt|input)_tokens(_\w+)?_total",
    "tokens_out": r"(output|generation|completion)_tokens(_\w+)?_total|tokens_predicted_total",
    "preempted": r"preempt|retract",
    "prefix_hits": r"cache_hit|cached_tokens|cache_read",
    "heartbeat": r"iteration|n_decode|steps?_total",
    "healthy": r"health",
}


def states(name: str, live: Live) -> dict[str, State]:
    """State of each canonical metric that the server's file does not call absent.

    The server has answered requests, so that nothing waits for the first.
    """
    found = check(server(name), parse_page(live.page()), version(name, live), warm=True)
    return {cell.metric.key: cell.state for cell in found if cell.state != "absent"}


def version(name: str, live: Live) -> str:
    """The version that a page of the server reports, empty without such a page."""
    at = server(name).version
    if not at.path:
        return ""
    status, text = fetch(live.url + at.path)
    assert status == 200, text
    value = json.loads(text)
    for key in at.key.split("."):
        value = value[key]
    assert isinstance(value, str)
    return value


def recognised(live: Live) -> tuple[str, str]:
    """The server's name and how certain it is."""
    found = recognise(parse_page(live.page()), servers().values())
    return (found.server.name if found.server else ""), found.certainty


def falsely_absent(one: Server, text: str) -> dict[str, set[str]]:
    """Metrics called absent, with names on the page that sound like them.

    A name that the reason mentions is explained.
    """
    names = {series.name for series in parse_page(text).series if series.name.startswith(one.prefixes)}
    found = {}
    for key, hint in HINTS.items():
        entry = one.at(key)
        sounds = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in names if re.search(hint, name)}
        known = {name for name in sounds if name in entry.trap}
        if entry.status == "absent" and sounds - known:
            found[key] = sounds - known
    return found
