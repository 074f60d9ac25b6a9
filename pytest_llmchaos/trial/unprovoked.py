"""Repairs and alerts outside of any fault, since the last judged trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import UnprovokedReaction
from pytest_llmchaos.trial.attribution import sent

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.lab.reasons import Reasons
    from pytest_llmchaos.prometheus.queries import FiredAlert

# Rule evaluations and audit log lines can be read this long after they happened.
WRITTEN_WITHIN_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Unprovoked:
    """Repairs and alerts outside of faults, as sentences.

    Attributes:
        names: Names of the alerts.
        findings: All of them.
        repairs: Repairs, which refute a control arm.
        pages: Pages, which refute a control arm.
    """

    names: frozenset[str] = frozenset()
    findings: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()

    def require_none(self, *, may_page: bool = False) -> None:
        """Require that the system neither repaired nor paged.

        Args:
            may_page: True if the load may exceed what the replicas can serve.

        Raises:
            UnprovokedReaction: It did, although nothing was wrong.
        """
        refuting = self.repairs if may_page else self.repairs + self.pages
        if refuting:
            raise UnprovokedReaction("; ".join(refuting))


def unprovoked(lab: Lab, record: Record) -> Unprovoked:
    """Return repairs and alerts since the last call that no fault explains.

    The first call covers the time since the stack started. An alert that does not page
    is a finding. A repair or a page refutes a control arm.
    """
    reasons = lab.reasons
    since, now_unix_s = reasons.unjudged_unix_s, time.time() - WRITTEN_WITHIN_S
    audit = lab.remediator.audit() or []
    fired = lab.prometheus.firing_spells(since, now_unix_s) if since < now_unix_s else ()
    lines = [line for line in unexplained_actions(audit, reasons) if since <= _at(line) <= now_unix_s]
    alerts = [one for one in fired if not one.before and not reasons.explains_alert(one.at_unix_s)]
    reasons.judged(now_unix_s)
    acted = [f"{_action_words(line)} {_when(record, _at(line))}" for line in lines]
    paged = [_alert_words(record, one) for one in alerts if one.labels.get("severity") == "page"]
    noted = [_alert_words(record, one) for one in alerts if one.labels.get("severity") != "page"]
    return Unprovoked(
        names=frozenset(one.name for one in alerts),
        findings=tuple(acted + paged + noted),
        repairs=tuple(acted),
        pages=tuple(paged),
    )


def unexplained_actions(audit: Sequence[Mapping[str, object]], reasons: Reasons) -> list[Mapping[str, object]]:
    """Return the remediator's intents that no fault explains.

    One that it refused is left out, because nothing was done. A fault explains an
    intent that began during it, or whose incident did.
    """
    noticed = {
        line.get("incident")
        for line in audit
        if line.get("event") == "detected" and reasons.explains_action(_at(line)) and line.get("incident")
    }
    return [
        line
        for line, _ in sent(audit)
        if line.get("incident") not in noticed and not reasons.explains_action(_at(line))
    ]


def _at(line: Mapping[str, object]) -> float:
    at = line.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _action_words(line: Mapping[str, object]) -> str:
    rule = line.get("rule") or "no rule"
    return f"outside of any fault the remediator did {line.get('action')} {line.get('service')} by rule {rule}"


def _alert_words(record: Record, alert: FiredAlert) -> str:
    about = f" for {alert.labels['service']}" if alert.labels.get("service") else ""
    return f"outside of any fault alert {alert.name} fired{about} {_when(record, alert.at_unix_s)}"


def _when(record: Record, at_unix_s: float) -> str:
    at_s = record.at_s(at_unix_s)
    return f"{at_s:.1f} s into the trial" if at_s >= 0 else f"{-at_s:.1f} s before the trial's load"
