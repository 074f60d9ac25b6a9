"""The page of the scoreboard."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from scoreboard_cases import (
    BUDGET_S,
    CHANGED,
    DISAGREE,
    GATEWAYS,
    HELD,
    HERE,
    NOT_RUN,
    NOTHING,
    REFUTED,
    SCENARIOS,
    UNCHANGED,
    UNSEEN,
    WORDS,
    Board,
    Gateway,
    Result,
    Scenario,
    Switch,
    seen_change,
)


def render(board: Board) -> str:
    """Return the page."""
    gateways = [one for one in GATEWAYS if one.name in board.results]
    lines = [
        "# Gateways compared",
        "",
        "<!-- `make scoreboard` writes this page. -->",
        "",
        "Each gateway stands in front of the same two simulated engines, as processes of the [local",
        "runtime](local.md#your-own-stack). In each scenario it meets one load, at most one fault and one statement, which held",
        "or was refuted. The run proves nothing, for example, if the clients' samples and a second witness disagree. That",
        "witness is the [fault agent](faults.md#break-the-wire)'s counters, or the engines' own.",
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
        "After the verdict: what clients saw, then what the second witness counted. A fault lasts 3 s (`stalled` 7.5 s, `silent`,",
        "`returns` and `errors_slowly` 5 s). Its end lets go what it held, so a time near that is the fault's length and no",
        "deadline of the gateway. Each bound is a choice of this project, in the scenario's file.",
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
        "Set it: did behaviour change? Each row compares two runs of one scenario by two numbers, one of each witness. The",
        "switch is added to what it is compared with. A change is a difference of more than a third, and of more than two",
        "requests or 0.3 s. Of replicas every difference counts. Both witnesses have to see it: what one of them alone saw",
        "shows nothing about the switch. What is not as expected is in bold.",
        f"No run starts after {BUDGET_S / 60:.0f} minutes: what is left is not run.",
        "",
        *_switches(board),
        "",
        "`errors` gets 503 for every request to one replica, and `errors_slowly` two of these a second.",
        "",
        "`enable_mid_stream_fallback_continuation` comes with `supports_assistant_prefill: true`, which it needs.",
        "LiteLLM continues an answer with the text so far as the last message, of role `assistant` and with `prefix`. The",
        "engines here need `continue_final_message`, as vLLM does, and begin the answer again without it. LiteLLM also counts",
        "the text so far with a tokenizer of its own, for which a token of these engines is five, so the rest is too short.",
        "",
        "## Behaviours that surprise",
        "",
        "Four of them, from the rows above, with default settings unless a cell names one.",
        "",
        f"| behaviour | {' | '.join(one.title for one in gateways)} |",
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
        "pytest is that of this project's environment. The settings of vllm-router are in `GATEWAY_OPTIONS` too. LiteLLM's are",
        "files: in its folder, `GATEWAY_CONFIG=$PWD/no-retries.yaml`. The lab's are the variables that its `compose.yaml` names,",
        "such as `LAB_RETRY=off`.",
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
    name = "inband_error"
    runs = [("", board.results[gateway][name])] if name in board.results[gateway] else []
    runs += [(one.shown, after) for one, _, after in board.arms if one.gateway == gateway and one.scenario == name]
    good = [result for _, result in runs if result.numbers]
    doubled = [f" with `{shown}`" if shown else "" for shown, result in runs if _doubled(result)]
    left = "".join(f", `{shown}` {NOT_RUN}" for shown, result in runs if shown and result.verdict == NOT_RUN)
    return f"**seen**{doubled[0]}" if doubled else f"not seen{left}" if good else NOT_RUN if not runs else NOTHING


REPORTS: Mapping[str, Callable[[Board, str], str]] = {
    "a breaker window without effect": _without_effect("--cb-window-duration-secs"),
    "a replica that is not tried again within 10 s of its return": _refuted("returns"),
    "a truncated stream that is passed on without an error": _refuted("truncated"),
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
        seen if seen in (CHANGED, DISAGREE, NOT_RUN, NOTHING) else f"**{seen}**",
    )
    return f"| {' | '.join(map(_escaped, cells))} |"


def _shown(name: str, result: Result) -> str:
    if not result.numbers:
        return "-"
    value = result.numbers.get(name)
    return UNSEEN if value is None else f"{value:g}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
