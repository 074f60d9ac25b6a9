"""The lab with agents in the local runtime: services, ledger and repairs."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.request

import pytest
from mcp.client import Client
from support.grafana_queries import Asked
from support.runtimes import RUNTIMES, require_runtime
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.generate.boards.agents import AGENTS
from pytest_llmchaos.host import identity
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.subject.lab import lab_subject

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request, tmp_path):
    require_runtime(request.param)
    made = RUNTIMES[request.param](
        lab_subject("sim", agents=True),
        project=f"llmchaos-test-{os.getpid()}-agents",
        run="agents",
        owner=identity.owner_label(),
        directory=tmp_path,
    )
    try:
        made.prepare()
    except NotReady as lacking:
        pytest.skip(str(lacking))
    made.up()
    yield made
    made.down()


def fetch(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10) as response:
        return json.loads(response.read())


async def refund(desk, order, key):
    async with Client(f"{desk}/mcp") as client:
        return (await client.call_tool("refund", {"order": order}, meta={"idempotency-key": key})).structured_content


def empty(panels, prometheus, from_unix_s):
    """Titles of panels without data, by the queries that Grafana sends."""
    asked = Asked(prometheus.url, from_unix_s - 5, time.time())
    return [title for title, panel in panels.items() if not asked.values(panel, {})]


def restart(runtime, service):
    """Kill a service, and wait until the remediator has started it."""
    died_s = time.time()

    def is_back():
        return any((e.action, e.service) == ("start", service) for e in runtime.events(died_s, time.time()))

    runtime.kill(service)
    until(is_back, f"{service} is started", 60)
    runtime.wait_healthy([service], 120)


def test_a_task_has_its_effects_once_and_both_services_are_scraped_shown_repaired_and_keep_their_state(runtime):
    agent, desk = runtime.url("agent"), runtime.url("desk")
    prometheus = Prometheus(runtime.url("prometheus"))
    wanted = set(runtime.subject.scrape_jobs)

    def scraped():
        return wanted <= {one.job for one in prometheus.targets() if one.up and one.last_scrape_unix_s}

    until(scraped, "every job is scraped", 60, seen=lambda: [(one.job, one.up) for one in prometheus.targets()])
    begun_s = time.time()
    fetch(f"{agent}/tasks", {"id": "t-1", "input": "plan: find_order 17; refund 17; mail 17"})
    done = fetch(f"{agent}/tasks/t-1?wait_s=20")
    first = asyncio.run(refund(desk, 18, "k"))
    # Only callers of a load have panels without data then.
    shown = {panel.title: panel for panel in AGENTS.panels if "callers" not in panel.title}
    until(
        lambda: not empty(shown, prometheus, begun_s),
        "panels have data",
        20,
        seen=lambda: empty(shown, prometheus, begun_s),
    )

    for service in ("desk", "agent"):
        restart(runtime, service)

    assert (done["status"], done["error"]) == ("completed", None)
    # What was recorded and accepted before the deaths is still there.
    assert fetch(f"{agent}/tasks/t-1") == done
    assert asyncio.run(refund(desk, 18, "k")) == first == {"order": 18, "status": "done", "effect": 3}
    assert [(row["tool"], row["order"], row["effect"]) for row in fetch(f"{desk}/ledger")["calls"]] == [
        ("find_order", 17, None),
        ("refund", 17, 1),
        ("mail", 17, 2),
        ("refund", 18, 3),
        ("refund", 18, None),
    ]
