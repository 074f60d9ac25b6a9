"""Recording rules of the lab for the engines' metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.servers.catalogue import shipped_servers
from pytest_llmchaos.servers.rules import recording_rules

if TYPE_CHECKING:
    from pytest_llmchaos.servers.mapping import Server

# The scrape jobs of the lab's engines and of its gateway.
OF_ENGINES, OF_GATEWAY = 'job="model"', 'job="api"'
# It exposes vLLM's names, so vLLM's rules are its own.
SAME_AS_ANOTHER = ("sim",)
HEAD = """\
# Generated from pytest_llmchaos/servers by `llmchaos generate`. Change those files and generate again.
#
# One set of names for every engine: alerts, dashboards and the remediator read these records alone. The records keep
# the labels of the engine's series. `server` is the engine, `origin` is native or derived. What the gateway derives for
# an engine without metrics gets the job of the engines: of a metric that both have, `job="api"` is the gateway's own.
"""


def engines() -> tuple[Server, ...]:
    """Return the engines that may stand behind the lab's gateway."""
    found = shipped_servers().values()
    return tuple(one for one in found if one.kind == "engine" and one.name not in SAME_AS_ANOTHER)


def rules() -> str:
    """Return the text of the rule file."""
    own = [one for one in engines() if not one.service_label]
    by_gateway = [one for one in engines() if one.service_label]
    derived = recording_rules(by_gateway, OF_GATEWAY, more="job: model")
    return recording_rules(own, OF_ENGINES, HEAD) + derived.removeprefix("groups:\n")
