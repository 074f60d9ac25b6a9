"""Generator of docs/patterns.md from a run of scenarios/patterns/.

python docs/generate_patterns.py build/patterns/latest/run.json [LATER_RUN.json ...]

A pattern that a later run performed again is taken from there. One without a scenario
today is left out.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCENARIOS = ROOT / "scenarios" / "patterns"
PAGE = ROOT / "docs" / "patterns.md"
HEALTHY = "before_fault."
TIMES = {"during_fault": "", "after_fault": "after the fault, ", "whole": "in all, "}
VERDICTS = {"passed": "held", "failed": "**refuted**"}

HEAD = """\
# What each pattern of the gateway is worth

<!-- `make patterns` writes this page. -->

Each [reliability pattern of the lab's gateway](gateway.md) is performed with its switch on and off, under the same load
and the same fault by the same seed. An effect is the value with the pattern minus the value without it, or the first
divided by the second (times), with its 95 % interval, during the fault unless it names another time. The last column is
what a healthy system pays: the difference of the median time to first token before the fault. It pays nothing measurable
if the interval ends below 5 ms. The arms run one after the other, so a value below 0 is that order and no gain, except
that `affinity` acts without a fault.

`make patterns` repeats all of it. `pytest scenarios/patterns/test_{first}.py --chaos-runtime={runtime}
--chaos-backend=sim --chaos-seed={seed}` repeats one, and its report has the numbers. The files there have the loads and the
claims. This run: commit `{commit}`, {cores} cores. {held} of {claims} claims held.
"""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One scenario's pair of trials.

    Attributes:
        name: Name of the scenario.
        text: Paragraphs of its docstring.
        fault: The fault and its options.
        settings: Environment of each arm.
        claims: Each claim and its outcome, by name.
        effects: Effects that the claims read, as in run.json.
    """

    name: str
    text: tuple[str, ...]
    fault: str
    settings: Mapping[str, str]
    claims: Mapping[str, str]
    effects: tuple[Mapping[str, object], ...]


def patterns_of(run: Mapping[str, object]) -> list[Pattern]:
    """Return the patterns of a run, in the order of its trials.

    Raises:
        SystemExit: The run has no trials with arms.
    """
    trials: Iterable[Mapping[str, object]] = run["trials"]  # type: ignore[assignment] # the public format
    made: dict[str, list[Mapping[str, object]]] = {}
    for trial in trials:
        if trial["arm"] is not None:
            made.setdefault(str(trial["scenario"]), []).append(trial)
    if not made:
        raise SystemExit("expected a run of scenarios/patterns, got one without arms: run make patterns")
    return [_pattern(name, found) for name, found in made.items() if _scenario(name).exists()]


def _scenario(name: str) -> Path:
    return SCENARIOS / f"test_{name}.py"


def _pattern(name: str, trials: list[Mapping[str, object]]) -> Pattern:
    docstring = ast.get_docstring(ast.parse(_scenario(name).read_text(encoding="utf-8"))) or ""
    claims: dict[str, Mapping[str, object]] = {}
    for trial in trials:
        for claim in trial["claims"]:  # type: ignore[attr-defined] # the public format
            claims.setdefault(claim["nodeid"].rpartition("::")[2], claim)
    effects = [effect for claim in claims.values() for effect in claim["effects"]]  # type: ignore[attr-defined]
    return Pattern(
        name=name,
        text=tuple(" ".join(part.split()) for part in docstring.split("\n\n") if not part.startswith("Needs")),
        fault=_fault(trials[0]),
        settings={str(trial["arm"]): _environment(trial) for trial in trials},
        claims={test: str(claim["outcome"]) for test, claim in claims.items()},
        effects=tuple(effects),
    )


def _fault(trial: Mapping[str, object]) -> str:
    """Return each fault with its options and its services."""
    services: dict[str, list[str]] = {}
    for undo in trial["undo"]:  # type: ignore[attr-defined] # the public format
        options = ", ".join(f"{name}={value}" for name, value in undo.get("strength", {}).items())
        victims = services.setdefault(f"{undo['fault']}({options})" if options else f"{undo['fault']}", [])
        if undo["victim"] not in victims:
            victims.append(undo["victim"])
    return "<br>".join(f"{what} on {' and '.join(names)}" for what, names in services.items()) or f"{trial['fault']}"


def _environment(trial: Mapping[str, object]) -> str:
    found: Mapping[str, Mapping[str, str]] = trial["environment"] or {}  # type: ignore[assignment] # the public format
    services: dict[str, list[str]] = {}  # those with the same variables
    for service, variables in found.items():
        services.setdefault(" ".join(f"`{name}={value}`" for name, value in variables.items()), []).append(service)
    return "; ".join(
        text if names == ["api"] else f"{text} of {' and '.join(names)}" for text, names in services.items() if text
    )


def number(value: object, measure: str, *, signed: bool = False) -> str:
    """Format a value of this measure, with its unit. Null is infinite."""
    if value is None:
        return "∞"
    sign = "+" if signed else ""
    if "_s." in measure:
        seconds = float(value)  # type: ignore[arg-type]
        return f"{seconds:{sign}.3g} s" if abs(seconds) >= 1 else f"{seconds * 1000:{sign}.3g} ms"
    if "rps" in measure:
        return f"{float(value):{sign}.3g}/s"  # type: ignore[arg-type]
    return f"{float(value) * 100:{sign}.3g} {'points' if signed else '%'}"  # type: ignore[arg-type]


def effect_text(effect: Mapping[str, object]) -> str:
    """Describe an effect: its value and interval, and both arms' values."""
    measure = str(effect["measure"])
    window, _, value_name = measure.partition(".")
    name = TIMES[window] + value_name.replace("ttft_s.", "time to first token, ").replace("_", " ")
    both = f"{number(effect['first_value'], measure)} instead of {number(effect['second_value'], measure)}"
    if effect["is_ratio"]:
        value, low, high = (f"{float(effect[key]):.2g}" for key in ("value", "low", "high"))  # type: ignore[arg-type]
        return f"{name}: {value} times ({low} to {high}), {both}"
    value, low, high = (number(effect[key], measure, signed=True) for key in ("value", "low", "high"))
    return f"{name}: {value} ({low} to {high}), {both}"


def page(run: Mapping[str, object], patterns: list[Pattern]) -> str:
    """Return the page of a run."""
    outcomes = [outcome for one in patterns for outcome in one.claims.values()]
    environment: Mapping[str, object] = run["environment"]  # type: ignore[assignment] # the public format
    head = HEAD.format(
        first=patterns[0].name,
        commit=environment["commit"],
        cores=environment["cores"],
        seed=run["seed"],
        runtime=run["runtime"],
        held=outcomes.count("passed"),
        claims=len(outcomes),
    )
    table = ["| pattern | fault | effect | healthy |", "|---|---|---|---|"]
    for one in patterns:
        effects = [effect_text(effect) for effect in one.effects if not str(effect["measure"]).startswith(HEALTHY)]
        healthy = [
            f"{number(effect['value'], str(effect['measure']), signed=True)} "
            f"(at most {number(effect['high'], str(effect['measure']), signed=True)})"
            for effect in one.effects
            if str(effect["measure"]).startswith(HEALTHY)
        ]
        shown = "<br>".join(effects) or "see its claims"
        table.append(
            f"| [{one.name}](#{one.name.replace('_', '-')}) | {one.fault} | {shown} | {'<br>'.join(healthy)} |"
        )
    return "\n".join([head, *table, "", *(section(one) for one in patterns)])


def section(one: Pattern) -> str:
    """Return the section of one pattern."""
    lines = [f"## {one.name.replace('_', '-')}", "", *(f"{part}\n" for part in one.text)]
    lines += [f"- **{arm}**: {settings or 'the defaults'}" for arm, settings in one.settings.items()]
    lines += [
        f"- {test.removeprefix('test_').replace('_', ' ')}: {VERDICTS.get(outcome, 'proves nothing')}"
        for test, outcome in one.claims.items()
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    if len(sys.argv) < 2:
        sys.stderr.write(__doc__ or "")
        return 2
    runs = [json.loads(Path(one).read_text(encoding="utf-8")) for one in sys.argv[1:]]
    found = {one.name: one for run in runs for one in patterns_of(run)}
    PAGE.write_text(page(runs[-1], [found[name] for name in sorted(found)]), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
