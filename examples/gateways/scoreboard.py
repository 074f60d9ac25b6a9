"""Run the scenarios on every gateway, and write a page.

`make scoreboard` runs it. Each gateway is installed from its lock file into a virtual
environment under build/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "scoreboard"
PAGE = ROOT / "docs" / "scoreboard.md"
BUDGET_S = 15 * 60  # without the installations
LONGEST_RUN_S = 6 * 60  # of one gateway with one set of settings
# A difference that counts as a change: more than 2 requests or 0.3 s, and a third.
LEAST_SHARE, LEAST_COUNT, LEAST_S = 1 / 3, 2, 0.3

HELD, REFUTED, NOTHING, NOT_RUN = "held", "refuted", "proves nothing", "not run"
CHANGED, UNCHANGED, DISAGREE = "changed", "no change", "one witness only"
UNSEEN = "cannot be seen"


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway with a folder of its name.

    `package` is its distribution, "" for this project's. `renewed` starts it anew for
    each scenario.
    """

    name: str
    title: str
    package: str = ""
    renewed: bool = True


GATEWAYS = (
    Gateway(name="smg", title="smg", package="smg"),
    Gateway(name="vllm-router", title="vllm-router", package="vllm-router"),
    Gateway(name="litellm", title="LiteLLM proxy", package="litellm", renewed=False),
    Gateway(name="lab", title="this project's lab"),
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
    "passed_as_whole": "answers that ended early without an error",
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
        statement="A stream that a replica ends too early does not reach a client as a whole answer",
        clients="passed_as_whole",
        upstream="hit",
    ),
    Scenario(
        name="inband_error",
        statement="An error inside a stream reaches the client as one, and no text is doubled",
        clients="passed_as_whole",
        upstream="hit",
    ),
    Scenario(
        name="cut",
        statement="A connection that breaks in mid-stream is no end of an answer, and no text is doubled",
        clients="passed_as_whole",
        upstream="hit",
    ),
    Scenario(
        name="errors",
        statement="Clients of a replica that answers 503 are served by the other one",
        clients="failed",
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

    @property
    def arms(self) -> tuple[tuple[str, Mapping[str, str]], tuple[str, Mapping[str, str]]]:
        """Scenario and settings of both arms."""
        return (self.scenario, self.base), (self.scenario, self.settings)


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
                clients="longest_s",
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
                expected="two errors a second are fewer than 5 in a window, so the breaker stays closed",
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
        clients="longest_s",
        upstream="met",
    ),
    Switch(
        gateway="litellm",
        shown="stream_timeout: 2",
        settings=_config("stream-timeout"),
        scenario="late_first_token",
        expected="a first token that is 4 s late is not waited for",
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
        clients="text whole",
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
        clients="text whole",
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


def render(board: Board) -> str:
    """Return the page."""
    gateways = [one for one in GATEWAYS if one.name in board.results]
    lines = [
        "# Gateways compared",
        "",
        "<!-- `make scoreboard` writes this page. -->",
        "",
        "Each gateway stands in front of the same two simulated engines, as processes of the [local",
        "runtime](local.md#your-own-stack). In each scenario it meets one load, one fault and one statement, which held or was",
        "refuted. The run proves nothing, for example, if the clients' samples and a second witness disagree. That witness is",
        "the [fault agent](faults.md#break-the-wire)'s counters, or the engines' own.",
        "",
        *(f"- **{one.title}**, {board.versions[one.name]}: {_command(one)}" for one in gateways),
        "",
        "Everything else is the gateway's default. [examples/gateways](../examples/gateways/README.md) has the files.",
        "",
        f"Measured on {board.day}, commit `{board.commit}`, {board.machine}, in {board.took_s / 60:.0f} minutes. One run is one",
        "sample: repeat a row before you rely on it.",
        "",
        "## Scenarios",
        "",
        "After the verdict: what clients saw, then what the second witness counted.",
        "",
        f"| scenario | {' | '.join(one.title for one in gateways)} |",
        f"|---|{'---|' * len(gateways)}",
        *(_row(scenario, board, gateways) for scenario in SCENARIOS),
        "",
        "| scenario | statement | clients | second witness |",
        "|---|---|---|---|",
        *(f"| `{one.name}` | {one.statement} | {WORDS[one.clients]} | {WORDS[one.upstream]} |" for one in SCENARIOS),
        "",
        *_open_ends(board, gateways),
        "## Switches",
        "",
        "Set it: did behaviour change? Each row compares two runs of one scenario by two numbers, one of each witness. A",
        "change is a difference of more than a third, and of more than two requests or 0.3 s. Both witnesses have to",
        f"see it. What is not as expected is in bold. No run starts after {BUDGET_S / 60:.0f} minutes: what is left is not run.",
        "",
        *_switches(board),
        "",
        "`errors_slowly` gets two errors a second from one replica.",
        "",
        "LiteLLM continues an answer with the text so far as the last message, of role `assistant` and with `prefix`. The",
        "engines here need `continue_final_message`, as vLLM does, and begin the answer again without it. LiteLLM also counts",
        "the text so far with a tokenizer of its own, for which a token of these engines is five, so the rest is too short.",
        "",
        "## Known reports",
        "",
        "What users of gateways have reported, and whether this run saw it.",
        "",
        f"| report | {' | '.join(one.title for one in gateways)} |",
        f"|---|{'---|' * len(gateways)}",
        *(
            f"| {text} | {' | '.join(seen_in(board, one.name) for one in gateways)} |"
            for text, seen_in in REPORTS.items()
        ),
        "",
        "## Repeat it",
        "",
        "```sh",
        "make scoreboard             # all of it, and this page",
        "make scoreboard ONLY=smg    # one gateway, to the terminal",
        "cd examples/gateways/smg    # after that, one scenario, as it is and with a switch",
        "PATH=$PATH:../../../build/scoreboard/smg/bin pytest -k truncated",
        "GATEWAY_OPTIONS='--disable-retries' PATH=$PATH:../../../build/scoreboard/smg/bin pytest -k storm",
        "```",
        "",
        "The settings of vllm-router are in `GATEWAY_OPTIONS` too. LiteLLM's are files: `GATEWAY_CONFIG=no-retries.yaml`, with",
        "the whole path of one in its folder. The lab's are its variables, such as `LAB_RETRY=off`.",
        "",
    ]
    return "\n".join(lines)


def _command(gateway: Gateway) -> str:
    text = (HERE / gateway.name / "compose.yaml").read_text(encoding="utf-8")
    given: dict[str, Any] = yaml.safe_load(text)["services"]["gateway"]
    command: str | list[str] = given["command"]
    words = command.split() if isinstance(command, str) else command
    shown = " ".join(word for word in words if not word.startswith("${GATEWAY"))
    with_ports = re.sub(r"[$][{][A-Z_0-9]+:-([0-9]+)[}]", r"\1", shown)
    return f"`{with_ports}`"


def _refuted(name: str) -> Callable[[Board, str], str]:
    """Return whether a scenario was refuted."""

    def seen_in(board: Board, gateway: str) -> str:
        verdict = board.results[gateway].get(name, Result(verdict=NOT_RUN)).verdict
        return {REFUTED: "**seen**", HELD: "not seen"}.get(verdict, verdict)

    return seen_in


def _without_effect(option: str) -> Callable[[Board, str], str]:
    """Return whether a switch changed nothing."""

    def seen_in(board: Board, gateway: str) -> str:
        found = [seen_change(*arm) for arm in board.arms if arm[0].gateway == gateway and option in arm[0].shown]
        return "no such switch" if not found else {UNCHANGED: "**seen**", CHANGED: "not seen"}.get(found[0], found[0])

    return seen_in


def _is_doubled(board: Board, gateway: str) -> str:
    """Return whether any answer had text twice, and with which setting."""
    names = ("inband_error", "cut")
    runs = [("", board.results[gateway][name]) for name in names if name in board.results[gateway]]
    runs += [(one.shown, after) for one, _, after in board.arms if one.gateway == gateway and one.scenario in names]
    good = [result for _, result in runs if result.numbers]
    doubled = [f" with `{shown}`" if shown else "" for shown, result in runs if _doubled(result)]
    left = "".join(f", `{shown}` {NOT_RUN}" for shown, result in runs if shown and result.verdict == NOT_RUN)
    return f"**seen**{doubled[0]}" if doubled else f"not seen{left}" if good else NOT_RUN if not runs else NOTHING


REPORTS: Mapping[str, Callable[[Board, str], str]] = {
    "a breaker window without effect": _without_effect("--cb-window-duration-secs"),
    "a replica that is not tried again within 10 s of its return": _refuted("returns"),
    "a truncated stream that is passed on as a complete one": _refuted("truncated"),
    "text that is doubled after an error in mid-stream": _is_doubled,
}


def _row(scenario: Scenario, board: Board, gateways: Sequence[Gateway]) -> str:
    cells = [_cell(scenario, board.results[one.name].get(scenario.name)) for one in gateways]
    return f"| `{scenario.name}` | {' | '.join(cells)} |"


def _cell(scenario: Scenario, result: Result | None) -> str:
    if result is None:
        return NOT_RUN
    if not result.numbers:
        return result.verdict
    verdict = f"**{result.verdict}**" if result.verdict == REFUTED else result.verdict
    among = result.numbers.get("open") if scenario.clients == "broken" else result.offered
    of = "" if scenario.clients.endswith("_s") or scenario.clients == "replicas after" else f" of {among:g}"
    clients, upstream = (_number(name, result) for name in (scenario.clients, scenario.upstream))
    return f"{verdict}: {', '.join([*_doubled(result), clients + of, upstream])}"


def _number(name: str, result: Result) -> str:
    unit = " s" if name.endswith("_s") else ""
    return f"{_words(name)} {_shown(name, result)}{unit}"


def _words(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")


def _doubled(result: Result) -> list[str]:
    return [
        f"{count:g} answers with text {word}"
        for name, word in (("text doubled", "doubled"), ("text foreign", "of no engine"))
        if (count := result.numbers.get(name))
    ] + ([f"{count:g} answers too long"] if (count := result.numbers.get("doubled")) else [])


def _open_ends(board: Board, gateways: Sequence[Gateway]) -> list[str]:
    lines = [
        f"- `{scenario.name}`, {one.title}: {_escaped(result.reason)}"
        for scenario in SCENARIOS
        for one in gateways
        if (result := board.results[one.name].get(scenario.name)) is not None and result.verdict == NOTHING
    ]
    return ["What proves nothing, and why:", "", *lines, ""] if lines else []


def _switches(board: Board) -> list[str]:
    if not board.arms:
        return ["This run had no time for them."]
    return [
        "| gateway | switch | scenario, compared with | expected | clients | second witness | seen |",
        "|---|---|---|---|---|---|---|",
        *(_switch_row(*arm) for arm in board.arms),
    ]


def _switch_row(switch: Switch, before: Result, after: Result) -> str:
    pairs = [
        f"{_words(name)}: {_shown(name, before)} → {_shown(name, after)}{' s' if name.endswith('_s') else ''}"
        for name in (switch.clients, switch.upstream)
    ]
    pairs[0] = ", ".join([pairs[0], *_doubled(after)])
    title = next(one.title for one in GATEWAYS if one.name == switch.gateway)
    compared_with = f"`{switch.compared_with}`" if re.search("--|=", switch.compared_with) else switch.compared_with
    seen = seen_change(switch, before, after)
    cells = (
        title,
        f"`{switch.shown}`",
        f"`{switch.scenario}`, {compared_with}",
        switch.expected,
        *pairs,
        seen if seen in (CHANGED, NOT_RUN, NOTHING) else f"**{seen}**",
    )
    return f"| {' | '.join(map(_escaped, cells))} |"


def _shown(name: str, result: Result) -> str:
    if not result.numbers:
        return "-"
    value = result.numbers.get(name)
    return UNSEEN if value is None else f"{value:g}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def install(gateway: Gateway, into: Path) -> str:
    """Create the gateway's environment unless it is there, and return its version."""
    if not gateway.package:
        return "this commit"
    folder, lock = into / gateway.name, HERE / f"{gateway.name}.lock"
    python, stamp = folder / "bin" / "python", folder / "lock"
    if not stamp.is_file() or stamp.read_bytes() != lock.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--requirement", str(lock)], check=True)
        stamp.write_bytes(lock.read_bytes())
    shown = f"import importlib.metadata as m; print(m.version({gateway.package!r}))"
    return subprocess.run([str(python), "-c", shown], check=True, capture_output=True, text=True).stdout.strip()


def run(gateway: Gateway, names: Sequence[str], settings: Mapping[str, str], installed: Path) -> dict[str, Result]:
    """Run scenarios on a gateway with these settings. A lost run is no result."""
    junit = BUILD / "junit.xml"
    junit.unlink(missing_ok=True)
    files = [f"../scenarios/test_{name}.py" for name in names]
    path = os.pathsep.join(
        (str(Path(sys.executable).parent), os.environ["PATH"], str(installed / gateway.name / "bin"))
    )
    words = ["-q", "-c", "pyproject.toml", "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "junit_family=legacy"]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                *words,
                f"--junitxml={junit}",
                f"--chaos-report={BUILD / 'reports'}",
                *files,
            ],
            cwd=HERE / gateway.name,
            env={**os.environ, "PATH": path, "GATEWAY_RENEWED": "yes" if gateway.renewed else "no", **settings},
            check=False,
            timeout=LONGEST_RUN_S,
        )
    return results_of(junit.read_text(encoding="utf-8")) if junit.is_file() else {}


Known = dict[tuple[str, str], Result]  # by scenario and settings


def measure(gateways: Sequence[Gateway], budget_s: float, installed: Path) -> Board:
    """Run everything. What the budget leaves no time for is not run."""
    versions = {one.name: install(one, installed) for one in gateways}
    begin_s = time.monotonic()
    deadline_s = begin_s + budget_s
    known: dict[str, Known] = {one.name: {} for one in gateways}
    for one in gateways:  # all gateways before the switches of one
        perform(one, [(scenario.name, {}) for scenario in SCENARIOS], known[one.name], deadline_s, installed)
    chosen = [switch for switch in SWITCHES if switch.gateway in known]
    for one in gateways:
        wanted = [arm for switch in chosen if switch.gateway == one.name for arm in switch.arms]
        perform(one, wanted, known[one.name], deadline_s, installed)
    unknown = Result(verdict=NOT_RUN)
    return Board(
        versions=versions,
        results={
            name: {scenario: result for (scenario, settings), result in found.items() if settings == "{}"}
            for name, found in known.items()
        },
        arms=[
            (one, known[one.gateway].get(_key(*base), unknown), known[one.gateway].get(_key(*changed), unknown))
            for one in chosen
            for base, changed in (one.arms,)
        ],
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        took_s=time.monotonic() - begin_s,
        commit=_commit(),
        day=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def _key(scenario: str, settings: Mapping[str, str]) -> tuple[str, str]:
    return scenario, json.dumps(settings, sort_keys=True)


def perform(
    gateway: Gateway, wanted: Sequence[tuple[str, Mapping[str, str]]], known: Known, deadline_s: float, installed: Path
) -> None:
    """Add the results of these scenarios with these settings.

    Scenarios with the same settings share one start. What proves nothing is repeated
    once.
    """
    for _ in range(2):
        starts: dict[str, list[str]] = {}
        for scenario, settings in wanted:
            found = known.get(_key(scenario, settings))
            names = starts.setdefault(json.dumps(settings, sort_keys=True), [])
            if (found is None or found.verdict == NOTHING) and scenario not in names:
                names.append(scenario)
        for text, names in starts.items():
            if names and time.monotonic() < deadline_s:
                results = run(gateway, names, json.loads(text), installed)
                for name in names:
                    known[name, text] = results.get(name, Result(verdict=NOTHING, reason="no result"))


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[one.name for one in GATEWAYS], help="a gateway; repeatable")
    parser.add_argument("--installed", type=Path, default=BUILD, help="folder of the gateways' environments")
    given = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    gateways = [one for one in GATEWAYS if not given.only or one.name in given.only]
    board = measure(gateways, BUDGET_S, given.installed.resolve())
    (BUILD / "board.json").write_text(json.dumps(asdict(board), indent=1))
    page = render(board)
    if given.only:
        sys.stdout.write(page)
    else:
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
