"""A trial as it stands in the journal and in run.json. Builtins only; it decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import TooFewSamples

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.slo.arithmetic import SloResult
    from pytest_llmchaos.stats.windows import Window
    from pytest_llmchaos.trial.trial import Trial


def as_json(
    plan: TrialPlan,
    record: Record,
    trial: Trial | None,
    verdict: str,
    reason: str | None,
) -> dict[str, Any]:
    """The trial as it stands in run.json; where it could not be judged, as far as it is known."""
    return {
        "scenario": plan.scenario,
        "fault": str(plan.fault),
        "target": plan.fault.target,
        "victim": ", ".join(dict.fromkeys(act.victim for act in plan.injections)) or None,
        "fidelity": plan.fault.fidelity,
        "lifetime": plan.fault.lifetime,
        "remediator": plan.experiment.remediator,
        "repeat": plan.repeat,
        "verdict": verdict,
        "reason": reason,
        "time_to_detect_s": trial.detect_s if trial else None,
        "detected_by": trial.detected_by if trial else None,
        "time_to_recover_s": trial.recover_s if trial else None,
        "time_to_settle_s": trial.settle_s if trial else None,
        "repaired_by": trial.repaired_by if trial else None,
        "proof": list(record.proofs),
        "phases": [_phase_json(w) for w in trial.windows.values() if w.name != "whole"] if trial else [],
        "slos": [_slo_json(r) for r in trial.slos.values()] if trial else [],
        "load": dict(trial.load) if trial else {},
        "events": list(record.events),
        "findings": list(record.findings),
        "healed": record.healed,
    }


def _phase_json(window: Window) -> dict[str, Any]:
    return {
        "name": window.name,
        "from_s": round(window.from_s, 3),
        "to_s": round(window.to_s, 3),
        "offered": window.offered,
        "ok": window.ok,
        "outcomes": {k: v for k, v in window.outcomes.items() if v},
        "ttft_p95_s": _quantile(window, "ttft_s", "p95"),
        "e2e_p95_s": _quantile(window, "e2e_s", "p95"),
        "e2e_p99_s": _quantile(window, "e2e_s", "p99"),
    }


def _quantile(window: Window, what: str, which: str) -> float | None:
    try:
        value = float(getattr(getattr(window, what), which))
    except TooFewSamples:
        return None
    return round(value, 6) if value != float("inf") else None


def _slo_json(result: SloResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "objective": result.objective,
        "value": round(result.value, 6),
        "query": result.query,
        "budget_spent": result.budget_spent,
        "burn_rate": round(result.burn_rate, 4),
        "callers_say": None if result.callers_say is None else round(result.callers_say, 6),
        "raw": dict(result.raw),
        "window_s": round(result.window_s, 3),
    }
