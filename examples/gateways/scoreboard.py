"""Run the scenarios on every gateway, and write a page.

`make scoreboard` runs it. Each gateway is installed from its lock file into a virtual
environment under build/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "scoreboard"
PAGE = BUILD / "scoreboard.md"
BUDGET_S = 15 * 60  # without the installations
# A difference that counts as a change: more than 2 requests or 0.5 s, and a third.
LEAST_SHARE, LEAST_COUNT, LEAST_S = 1 / 3, 2, 0.5

HELD, REFUTED, NOTHING = "held", "refuted", "proves nothing"
CHANGED, UNCHANGED, DISAGREE = "changed", "no change", "one witness only"


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
        name="reset",
        statement="Clients of a replica that resets every connection are served by the other one",
        clients="failed",
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
        statement="A replica that dies costs clients the answers in progress, and no others",
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
                expected="1.5 errors a second are fewer than 5 in a window, so the breaker stays closed",
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
            Switch(
                gateway=name,
                shown="the same, away for 14 s instead of 5 s",
                settings=_options("--health-check-interval-secs 1"),
                base=_options("--health-check-interval-secs 1"),
                compared_with="away for 5 s",
                scenario="returns_late",
                expected="no change: it is seen as soon",
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
        shown="fallbacks: [{smollm2: [second]}]",
        settings=_config("fallbacks"),
        scenario="inband_error",
        expected="broken answers are continued, and no text is doubled",
        clients="failed",
        upstream="met",
    ),
    Switch(
        gateway="lab",
        shown="LAB_RETRY=off",
        settings={"LAB_RETRY": "off"},
        scenario="errors",
        expected="errors of one replica reach clients",
        clients="failed",
        upstream="hit",
    ),
    Switch(
        gateway="lab",
        shown="LAB_STRICT=off",
        settings={"LAB_STRICT": "off"},
        scenario="truncated",
        expected="a stream that ends early ends without an error, and its replica stays in use",
        clients="passed_as_whole",
        upstream="met",
    ),
    Switch(
        gateway="lab",
        shown="LAB_CANCEL=off",
        settings={"LAB_CANCEL": "off"},
        scenario="cancelled",
        expected="replicas finish what no client reads",
        clients="left",
        upstream="aborted",
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
    """

    versions: Mapping[str, str]
    results: Mapping[str, Mapping[str, Result]]
    arms: Sequence[tuple[Switch, Result, Result]]
    machine: str
    took_s: float


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


def differs(before: float | None, after: float | None) -> bool:
    """True if two numbers of a scenario differ by more than a run to run change."""
    if before is None or after is None:
        return False
    is_time = any(value % 1 for value in (before, after))
    least: float = LEAST_S if is_time else LEAST_COUNT
    if min(before, after) <= 0 or max(before, after) <= 2:  # such as replicas in use: every one counts
        least = min(least, 0.5)
    gap = abs(before - after)
    return gap > least and gap > LEAST_SHARE * max(abs(before), abs(after))


def seen_change(switch: Switch, before: Result, after: Result) -> str:
    """Return whether both witnesses saw a change. Nothing follows from a bad run."""
    if NOTHING in (before.verdict, after.verdict):
        return NOTHING
    seen = [
        differs(before.numbers.get(name), after.numbers.get(name))
        for name in (switch.clients, switch.upstream)
        if name in before.numbers and name in after.numbers
    ]
    return CHANGED if all(seen) and seen else DISAGREE if any(seen) else UNCHANGED


def render(board: Board) -> str:
    """Return the page."""
    gateways = [one for one in GATEWAYS if one.name in board.results]
    lines = [
        "<!-- Generated by examples/gateways/scoreboard.py. Run `make scoreboard`. -->",
        "",
        "# Gateways compared",
        "",
        "Each gateway stands in front of the same two simulated engines, as processes of the local runtime, with its default",
        "settings and round-robin routing. One load, one fault, one statement: it held, it was refuted, or the run proves",
        "nothing. A run proves nothing, for example, if the clients' samples and a second witness disagree. That witness is",
        "the [fault agent](../../docs/faults.md#break-the-wire)'s counters, or the engines' own.",
        "",
        "| gateway | version |",
        "|---|---|",
        *(f"| {one.title} | {board.versions[one.name]} |" for one in gateways),
        "",
        f"Measured on {board.machine}, in {board.took_s / 60:.0f} minutes.",
        "",
        "## Scenarios",
        "",
        "In brackets: what clients saw, and what the second witness counted.",
        "",
        f"| scenario | {' | '.join(one.title for one in gateways)} |",
        f"|---|{'---|' * len(gateways)}",
        *(_row(scenario, board, gateways) for scenario in SCENARIOS),
        "",
        *_statements(board, gateways),
        "",
        "## Switches",
        "",
        "Set it: did behaviour change? Each row compares two runs of one scenario by two numbers, one of each witness. A",
        "change is a difference of more than a third. Rows without a change are the ones to look at.",
        "",
        *_switches(board),
        "",
        "## Repeat it",
        "",
        "`make scoreboard` runs all of it and writes this page. One gateway, or one scenario of one gateway:",
        "",
        "```sh",
        "make scoreboard ONLY=smg",
        "cd examples/gateways/smg",
        "PATH=$PATH:../../../build/scoreboard/smg/bin pytest -k truncated",
        "GATEWAY_OPTIONS='--disable-retries' PATH=$PATH:../../../build/scoreboard/smg/bin pytest -k storm",
        "```",
        "",
        "[examples/gateways](../../examples/gateways/README.md) has the settings of each gateway and the scenarios. One run is one",
        "sample: repeat a row before you rely on it.",
        "",
    ]
    return "\n".join(lines)


def _row(scenario: Scenario, board: Board, gateways: Sequence[Gateway]) -> str:
    cells = [_cell(scenario, board.results[one.name].get(scenario.name)) for one in gateways]
    return f"| `{scenario.name}` | {' | '.join(cells)} |"


def _cell(scenario: Scenario, result: Result | None) -> str:
    if result is None:
        return "not run"
    if not result.numbers:
        return result.verdict
    numbers = [
        f"{_shown(result.numbers[name])} {name.replace('_', ' ')}"
        for name in (scenario.clients, scenario.upstream)
        if result.numbers.get(name) is not None
    ]
    if result.numbers.get("doubled"):
        numbers.insert(0, f"{result.numbers['doubled']} doubled")
    of = f" of {result.offered}" if result.offered else ""
    return f"{result.verdict} ({', '.join(numbers)}{of})"


def _statements(board: Board, gateways: Sequence[Gateway]) -> list[str]:
    lines = ["| scenario | statement | why not |", "|---|---|---|"]
    for scenario in SCENARIOS:
        reasons = [
            f"{one.title}: {result.reason}"
            for one in gateways
            if (result := board.results[one.name].get(scenario.name)) is not None and result.verdict == NOTHING
        ]
        lines.append(f"| `{scenario.name}` | {scenario.statement} | {_escaped('; '.join(reasons))} |")
    return lines


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
        f"{name.replace('_', ' ')}: {_shown(before.numbers.get(name))} → {_shown(after.numbers.get(name))}"
        for name in (switch.clients, switch.upstream)
    ]
    if after.numbers.get("doubled"):
        pairs[0] += f", {after.numbers['doubled']} doubled"
    title = next(one.title for one in GATEWAYS if one.name == switch.gateway)
    seen = seen_change(switch, before, after)
    cells = (
        title,
        f"`{switch.shown}`",
        f"`{switch.scenario}`, {switch.compared_with}",
        switch.expected,
        *pairs,
        f"**{seen}**" if seen in (UNCHANGED, DISAGREE) else seen,
    )
    return f"| {' | '.join(map(_escaped, cells))} |"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def install(gateway: Gateway) -> str:
    """Create the gateway's environment and return its version."""
    if not gateway.package:
        return "this commit"
    folder, lock = BUILD / gateway.name, HERE / f"{gateway.name}.lock"
    python, stamp = folder / "bin" / "python", folder / "lock"
    if not stamp.is_file() or stamp.read_bytes() != lock.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--requirement", str(lock)], check=True)
        stamp.write_bytes(lock.read_bytes())
    shown = f"import importlib.metadata as m; print(m.version({gateway.package!r}))"
    return subprocess.run([str(python), "-c", shown], check=True, capture_output=True, text=True).stdout.strip()


def run(gateway: Gateway, names: Sequence[str], settings: Mapping[str, str]) -> dict[str, Result]:
    """Run scenarios on a gateway with these settings. A lost run is no result."""
    junit = BUILD / "junit.xml"
    junit.unlink(missing_ok=True)
    files = [f"../scenarios/test_{name}.py" for name in names]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], str(BUILD / gateway.name / "bin")))
    words = ["-q", "-c", "pyproject.toml", "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "junit_family=legacy"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *words, f"--junitxml={junit}", f"--chaos-report={BUILD / 'reports'}", *files],
        cwd=HERE / gateway.name,
        env={**os.environ, "PATH": path, "GATEWAY_RENEWED": "yes" if gateway.renewed else "no", **settings},
        check=False,
    )
    return results_of(junit.read_text(encoding="utf-8")) if junit.is_file() else {}


def measure(gateways: Sequence[Gateway], budget_s: float) -> Board:
    """Run everything. What the budget leaves no time for is not run."""
    versions = {one.name: install(one) for one in gateways}
    begin_s = time.monotonic()
    deadline_s = begin_s + budget_s
    results: dict[str, dict[str, Result]] = {}
    for one in gateways:
        results[one.name] = run(one, [scenario.name for scenario in SCENARIOS], {})
        again = [name for name, result in results[one.name].items() if result.verdict == NOTHING]
        if again and time.monotonic() < deadline_s:
            results[one.name] |= run(one, again, {})
    return Board(
        versions=versions,
        results=results,
        arms=[*_arms(gateways, results, deadline_s)],
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        took_s=time.monotonic() - begin_s,
    )


def _arms(
    gateways: Sequence[Gateway], results: Mapping[str, Mapping[str, Result]], deadline_s: float
) -> list[tuple[Switch, Result, Result]]:
    known: dict[tuple[str, str, str], Result] = {
        (name, scenario, "{}"): result for name, found in results.items() for scenario, result in found.items()
    }
    by_name = {one.name: one for one in gateways}

    def arm(gateway: str, scenario: str, settings: Mapping[str, str]) -> Result:
        key = gateway, scenario, json.dumps(settings, sort_keys=True)
        if key not in known and time.monotonic() < deadline_s:
            known[key] = run(by_name[gateway], [scenario], settings).get(
                scenario, Result(verdict=NOTHING, reason="no result")
            )
        return known.get(key, Result(verdict=NOTHING, reason="no time was left"))

    found = []
    for switch in SWITCHES:
        if switch.gateway in by_name:
            against = "returns" if switch.scenario == "returns_late" else switch.scenario
            before = arm(switch.gateway, against, switch.base)
            found.append((switch, before, arm(switch.gateway, switch.scenario, switch.settings)))
    return found


def main() -> int:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[one.name for one in GATEWAYS], help="a gateway; repeatable")
    given = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    gateways = [one for one in GATEWAYS if not given.only or one.name in given.only]
    board = measure(gateways, BUDGET_S)
    (BUILD / "board.json").write_text(json.dumps(asdict(board), indent=1))
    page = render(board)
    if given.only:
        sys.stdout.write(page)
    else:
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
