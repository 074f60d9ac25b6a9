"""The gateways, scenarios and switches of the scoreboard, and what a run finds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
BUDGET_S = 15 * 60  # without the installations
# A difference that counts as a change: more than 2 requests or 0.3 s, and a third.
LEAST_SHARE, LEAST_COUNT, LEAST_S = 1 / 3, 2, 0.3

HELD, REFUTED, NOTHING, NOT_RUN = "held", "refuted", "proves nothing", "not run"
CHANGED, UNCHANGED, DISAGREE = "changed", "no change", "one witness only"
UNSEEN = "cannot be seen"


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway with a folder of its name.

    `package` is its distribution. Without one, `version` is shown. `renewed` starts it
    anew for each scenario.
    """

    name: str
    title: str
    package: str = ""
    version: str = "not known"
    renewed: bool = True


GATEWAYS = (
    Gateway(name="smg", title="smg", package="smg"),
    Gateway(name="vllm-router", title="vllm-router", package="vllm-router"),
    Gateway(name="litellm", title="LiteLLM proxy", package="litellm", renewed=False),
    Gateway(name="lab", title="this project's lab", version="this commit"),
)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A file of scenarios/, and how its two witnesses are named on the page."""

    name: str
    statement: str
    clients: str
    upstream: str


# What the numbers of both witnesses are.
WORDS = {
    "ended_early": "answers that ended early without an error",
    "failed": "requests without a whole answer",
    "first_token_p95_s": "seconds to the first token, of which 95 % took no longer",
    "longest_s": "seconds of the longest request",
    "replicas after": "replicas in answers after the fault",
    "left": "clients who left",
    "broken": "answers open at SIGTERM that did not end",
    "hit": "requests or connections that the agent changed",
    "met": "requests that the agents saw",
    "aborted": "requests that the engines gave up",
    "got": "whole answers that clients got",
    "ended by model-1": "whole answers of the replica after its return",
    "ended by model-2": "whole answers of the other replica, from the fault to the end",
}

SCENARIOS = (
    Scenario(
        name="truncated",
        statement="A stream that a replica ends too early reaches its client with an error, not only without its last event",
        clients="ended_early",
        upstream="hit",
    ),
    Scenario(
        name="inband_error",
        statement="An error inside a stream reaches the client as one, and no text is doubled",
        clients="ended_early",
        upstream="hit",
    ),
    Scenario(
        name="storm",
        statement="While every replica answers 503, retries do not more than double the load",
        clients="failed",
        upstream="met",
    ),
    Scenario(
        name="late_first_token",
        statement="Clients of a replica whose first tokens are 4 s late get theirs within 2 s from the other one",
        clients="first_token_p95_s",
        upstream="hit",
    ),
    Scenario(
        name="stalled",
        statement="A stream that stops for good ends within 6 s, with an error or as a whole answer",
        clients="longest_s",
        upstream="hit",
    ),
    Scenario(
        name="killed",
        statement="A replica that dies costs clients the answers in progress, and few others",
        clients="failed",
        upstream="ended by model-2",
    ),
    Scenario(
        name="returns",
        statement="A replica that died gets requests again within 10 s of its return",
        clients="replicas after",
        upstream="ended by model-1",
    ),
    Scenario(
        name="silent",
        statement="Clients of a replica that stays silent, with its connections open, are served by the other one",
        clients="first_token_p95_s",
        upstream="hit",
    ),
    Scenario(
        name="cancelled",
        statement="A replica stops working for clients who left",
        clients="left",
        upstream="aborted",
    ),
    Scenario(
        name="drained",
        statement="A gateway that gets SIGTERM lets open streams end",
        clients="broken",
        upstream="aborted",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A documented switch, and the scenario whose numbers it should change.

    `settings` are environment variables of the compose file, and `base` those of the
    arm to compare with. `clients` and `upstream` name the two numbers.
    """

    gateway: str
    shown: str
    settings: Mapping[str, str]
    scenario: str
    expected: str
    clients: str
    upstream: str
    base: Mapping[str, str] = field(default_factory=dict)
    compared_with: str = "the default"


def _options(text: str) -> dict[str, str]:
    return {"GATEWAY_OPTIONS": text}


def _config(name: str) -> dict[str, str]:
    return {"GATEWAY_CONFIG": str(HERE / "litellm" / f"{name}.yaml")}


_NO_BREAKER = {"LAB_BREAKER": "off"}
_OPENS_AT_5 = "--disable-retries --cb-failure-threshold 5"
SWITCHES = (
    *(
        switch
        for name in ("smg", "vllm-router")
        for switch in (
            Switch(
                gateway=name,
                shown="--disable-retries",
                settings=_options("--disable-retries"),
                scenario="storm",
                expected="one request at the replicas for each of a client",
                clients="first_token_p95_s",
                upstream="met",
            ),
            Switch(
                gateway=name,
                shown="--cb-failure-threshold 5",
                settings=_options(_OPENS_AT_5),
                base=_options("--disable-retries"),
                compared_with="--disable-retries",
                scenario="errors_slowly",
                expected="the breaker opens at the 5th error, so that fewer reach clients",
                clients="failed",
                upstream="met",
            ),
            Switch(
                gateway=name,
                shown="--cb-window-duration-secs 1",
                settings=_options(f"{_OPENS_AT_5} --cb-window-duration-secs 1"),
                base=_options(_OPENS_AT_5),
                compared_with=_OPENS_AT_5,
                scenario="errors_slowly",
                expected="two errors a second are fewer than 5 in a window of 1 s, so the breaker stays closed",
                clients="failed",
                upstream="met",
            ),
            Switch(
                gateway=name,
                shown="--health-check-interval-secs 1",
                settings=_options("--health-check-interval-secs 1"),
                scenario="returns",
                expected="a replica that is back is seen within seconds",
                clients="replicas after",
                upstream="ended by model-1",
            ),
        )
    ),
    Switch(
        gateway="litellm",
        shown="num_retries: 0",
        settings=_config("no-retries"),
        scenario="storm",
        expected="one request at the replicas for each of a client",
        clients="first_token_p95_s",
        upstream="met",
    ),
    Switch(
        gateway="litellm",
        shown="enable_mid_stream_fallback_continuation: true",
        settings=_config("continuation"),
        base=_config("fallbacks"),
        compared_with="fallbacks alone",
        scenario="inband_error",
        expected="the second replica continues broken answers, and no text is doubled",
        clients="text part",
        upstream="ended by model-2",
    ),
    Switch(
        gateway="lab",
        shown="LAB_RETRY=off",
        settings=_NO_BREAKER | {"LAB_RETRY": "off"},
        base=_NO_BREAKER,
        compared_with="LAB_BREAKER=off",
        scenario="errors",
        expected="errors of one replica reach clients",
        clients="failed",
        upstream="ended by model-2",
    ),
    Switch(
        gateway="lab",
        shown="LAB_CANCEL=off",
        settings={"LAB_CANCEL": "off"},
        scenario="cancelled",
        expected="replicas finish what no client reads",
        clients="first_token_p95_s",
        upstream="aborted",
    ),
    Switch(
        gateway="lab",
        shown="LAB_MIGRATION=on",
        settings=_NO_BREAKER | {"LAB_MIGRATION": "on"},
        base=_NO_BREAKER,
        compared_with="LAB_BREAKER=off",
        scenario="inband_error",
        expected="another replica continues broken answers, and no text is doubled",
        clients="text part",
        upstream="ended by model-2",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scenario on one gateway. `reason` is why it was refuted or proves nothing."""

    verdict: str
    offered: int = 0
    clients: str = ""
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Board:
    """All results.

    Attributes:
        versions: of each gateway.
        results: by gateway and scenario.
        arms: of each switch in order, its base and its changed result.
        commit: of this project.
        day: of the run, in UTC.
    """

    versions: Mapping[str, str]
    results: Mapping[str, Mapping[str, Result]]
    arms: Sequence[tuple[Switch, Result, Result]]
    machine: str
    took_s: float
    commit: str
    day: str


def results_of(junit: str) -> dict[str, Result]:
    """Return the results of a JUnit file, by the names of its scenarios."""
    found = {}
    for case in ET.fromstring(junit).iter("testcase"):  # noqa: S314 - written by this program's own pytest
        given = {one.get("name", ""): one.get("value", "") for one in case.iter("property")}
        bad = case.find("error") if case.find("error") is not None else case.find("skipped")
        refuted = case.find("failure")
        verdict, node = (
            (NOTHING, bad) if bad is not None else (REFUTED, refuted) if refuted is not None else (HELD, None)
        )
        name = case.get("name", "").removeprefix("test_")
        if not name:  # pytest's line about a session that was ended
            continue
        found[name] = Result(
            verdict=verdict,
            offered=int(given.get("offered", 0)),
            clients=given.get("clients", ""),
            numbers=json.loads(given.get("numbers", "{}")),
            reason="" if node is None else _first_line(node.get("message", "")),
        )
    return found


def _first_line(text: str) -> str:
    line = " ".join(text.strip().partition("\n")[0].split())
    return line.removeprefix('failed on setup with "').removesuffix('"')[:160]


def differs(name: str, before: float | None, after: float | None) -> bool:
    """True if two numbers of a scenario differ by more than a run to run change.

    Seconds are those whose name ends with `_s`.
    """
    if before is None or after is None:
        return False
    least = LEAST_S if name.endswith("_s") else 0 if name == "replicas after" else LEAST_COUNT
    gap = abs(before - after)
    return gap > least and gap > LEAST_SHARE * max(abs(before), abs(after))


def seen_change(switch: Switch, before: Result, after: Result) -> str:
    """Return whether both witnesses saw a change. Nothing follows from a bad run."""
    for bad in (NOT_RUN, NOTHING):
        if bad in (before.verdict, after.verdict):
            return bad
    pairs = [(name, before.numbers.get(name), after.numbers.get(name)) for name in (switch.clients, switch.upstream)]
    if any(None in pair for pair in pairs):
        return UNSEEN
    seen = [differs(*pair) for pair in pairs]
    return CHANGED if all(seen) else DISAGREE if any(seen) else UNCHANGED
