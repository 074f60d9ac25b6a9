"""Folds journal lines into the value that becomes run.json. Pure; repeats what the judge wrote and judges nothing itself.

The one exception is said by the format: a trial that the judge let hold is «refuted» once a claim about it failed, and
«invalid» where a claim could not be asked or the run died before the trial was judged.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_llmchaos.errors import CLAIM_MAKES
from pytest_llmchaos.report.formatting import VERDICTS, number, one_line

SCHEMA = "llmchaos-run/1"
UNJUDGED = "the run ended before this trial was judged"

Line = Mapping[str, Any]

_DEFAULTS: dict[str, Any] = {
    "scenario": "unknown",
    "hypothesis": "",
    "fault": "unknown",
    "target": None,
    "victim": None,
    "fidelity": None,
    "lifetime": None,
    "remediator": True,
    "repeat": 0,
    "verdict": "invalid",
    "reason": UNJUDGED,
    "time_to_detect_s": None,
    "detected_by": None,
    "time_to_recover_s": None,
    "repaired_by": None,
    "proof": [],
    "phases": [],
    "slos": [],
    "load": None,
    "events": [],
    "findings": [],
    "healed": None,
}


_PHASE = ("name", "from_s", "to_s", "offered", "ok", "outcomes", "ttft_p95_s", "e2e_p95_s")
_SLO = ("name", "objective", "value", "query", "budget_spent", "burn_rate", "callers_say")
_PROOF = ("step", "witness", "at_s")
_EVENT = ("at_s", "source", "what", "service")


def fold(lines: Iterable[Line]) -> dict[str, Any]:
    """The run that the lines tell, in order. Lines of a kind that is not known here are passed over."""
    run: dict[str, Any] = {}
    of_trial: dict[str, list[Line]] = {}
    exit_status = None
    started: list[float] = []
    stack: dict[str, Any] = {}
    for line in lines:
        kind = line.get("kind")
        moment = number(line.get("at_unix_s"))
        if moment is not None:
            started.append(moment)
        if kind == "run":
            run = {
                **line,
                **{key: value for key, value in run.items() if value is not None},
            }  # xdist: the first one wins
        elif kind == "run_end":
            exit_status = line.get("exit_status")
        elif kind in {"stack_up", "stack_down"}:
            stack[f"{kind[6:]}_s"] = line.get("took_s")
            stack.update({"images": line["images"]} if "images" in line else {})
        elif "trial" in line:
            of_trial.setdefault(str(line["trial"]), []).append(line)
    folded = {
        "schema": SCHEMA,
        "run": str(run.get("run") or "unknown"),
        "seed": run.get("seed"),
        "replay": run.get("replay"),
        "runtime": run.get("runtime"),
        "backend": run.get("backend"),
        "started_unix_s": min(started, default=None),
        "ended_unix_s": max(started, default=None),
        "exit_status": exit_status,
        "environment": run.get("environment") or {},
        "stack": stack,
        "schedule": run.get("schedule") or [],
        "catalogue": run.get("catalogue") or {},
    }
    trials = [_trial(name, its, folded) for name, its in of_trial.items()]
    folded["counts"] = {verdict: sum(trial["verdict"] == verdict for trial in trials) for verdict in VERDICTS}
    return {**folded, "trials": trials}


def _trial(name: str, lines: list[Line], run: Line) -> dict[str, Any]:
    """One trial from its own lines: what was planned, overlaid by what the judge wrote."""
    planned = _last(lines, "trial")
    judged = _last(lines, "judged")
    trial = {"trial": name, **_DEFAULTS, **_known(planned), **_known(judged)}
    anchor = _last(lines, "anchor")
    trial["anchor"] = {key: anchor.get(key) for key in ("unix_s", "monotonic_s")} if anchor else None
    trial["judged"] = bool(judged)
    trial["claims"] = [
        {key: line.get(key) for key in ("nodeid", "outcome", "message")} for line in lines if line["kind"] == "claim"
    ]
    trial["phases"] = _list(judged.get("phases"), _PHASE) or _phases(lines)
    trial["slos"] = _list(judged.get("slos"), _SLO)
    trial["proof"] = _merged(lines, judged, "proof", _PROOF)
    trial["events"] = _merged(lines, judged, "event", _EVENT)
    trial["findings"] = _findings(lines, judged)
    trial["undo"] = _undo(lines)
    trial["verdict"], trial["reason"] = _verdict(trial)
    trial["replay"] = trial.get("replay") or _replay(trial, run)
    return trial


def _known(line: Line) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in {"kind", "at_unix_s", "trial"}}


def _last(lines: list[Line], kind: str) -> Line:
    return next((line for line in reversed(lines) if line["kind"] == kind), {})


def _list(value: Any, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The mappings in a list, each with all of `keys`: what nobody wrote is null."""
    listed = value if isinstance(value, list) else []
    return [{**dict.fromkeys(keys), **item} for item in listed if isinstance(item, Mapping)]


def _verdict(trial: Line) -> tuple[str, str | None]:
    verdict, reason = str(trial["verdict"]), trial["reason"]
    if verdict not in VERDICTS:
        return "invalid", f"the journal names the verdict {one_line(verdict, 40)!r}, which this version does not know"
    if verdict == "held":
        for outcome, becomes in CLAIM_MAKES.items():
            told = next((claim for claim in trial["claims"] if claim["outcome"] == outcome), None)
            if told is not None:
                return becomes, reason or told["message"] or f"{told['nodeid']} {outcome}"
    return verdict, reason


def _phases(lines: list[Line]) -> list[dict[str, Any]]:
    """Phases of a trial that was not judged: those that ended, and the one that had begun, open-ended (`to_s` null)."""
    phases: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line["kind"] in {"phase", "phase_begin"}:
            phases[str(line.get("name"))] = {
                **dict.fromkeys(_PHASE),
                "name": str(line.get("name")),
                "from_s": line.get("from_s"),
                "to_s": line.get("to_s") if line["kind"] == "phase" else None,
            }
    return list(phases.values())


def _merged(lines: list[Line], judged: Line, kind: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """What the judge listed and what was noted on the way, each once, in order of time."""
    field = "events" if kind == "event" else kind
    merged: dict[str, dict[str, Any]] = {}
    for item in [
        *_list(judged.get(field), keys),
        *_list([_known(line) for line in lines if line["kind"] == kind], keys),
    ]:
        merged.setdefault(repr([item[key] for key in keys]), item)
    return sorted(merged.values(), key=lambda item: _moment(item.get("at_s")))


def _moment(value: Any) -> float:
    seen = number(value)
    return math.inf if seen is None else seen


def _findings(lines: list[Line], judged: Line) -> list[str]:
    told = judged.get("findings")
    found = [*(told if isinstance(told, list) else []), *(line for line in lines if line["kind"] == "finding")]
    return list(dict.fromkeys(str(item.get("what") if isinstance(item, Mapping) else item) for item in found))


def _undo(lines: list[Line]) -> list[dict[str, Any]]:
    """Every fault that was announced, with its undo and whether the journal shows that undo done afterwards."""
    undo: list[dict[str, Any]] = []
    for line in lines:
        victim = line.get("victim")
        if line["kind"] == "intent":
            act = line.get("undo")
            op = act.get("op") if isinstance(act, Mapping) else None
            undo.append({"fault": line.get("fault"), "victim": victim, "op": op, "undone": False})
        elif line["kind"] == "undone" and line.get("ok") is True:
            for entry in undo:
                if (entry["victim"], entry["op"]) == (victim, line.get("op")):
                    entry["undone"] = True
    return undo


def _replay(trial: Line, run: Line) -> str | None:
    """The line that performs this trial's experiment again, claims and all."""
    files = sorted({str(claim["nodeid"]).split("::")[0] for claim in trial["claims"] if claim["nodeid"]})
    if not files or run["seed"] is None:
        return run["replay"] if isinstance(run["replay"], str) else None
    # The run's own line has the seed always, and spells it as it can be spelled beside the plugins that are installed there.
    ours = "--llmchaos" if "--llmchaos-seed=" in str(run["replay"]) else "--chaos"
    options = [f"{ours}-{name}={run[name]}" for name in ("seed", "runtime", "backend") if run[name] not in (None, "")]
    return shlex.join(["pytest", *files, *options])
