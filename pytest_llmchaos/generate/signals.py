"""Signals of the remediator: the burn rate of each budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.generate.rules import LAB_SCALE, alert_name, alerts_of
from pytest_llmchaos.slo.recorded import error_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.slo.arithmetic import Slo

SCHEMA = "llmlab-remediation/1"


def triggers(slos: Sequence[Slo], source: str, scale: float = LAB_SCALE) -> str:
    """Return the text of the signal file.

    Its queries read the series that the rules of the same SLOs record, and fire when
    their alert does.
    """
    head = (
        f"# Generated from {source} by `llmchaos generate`. Change that file and generate again.\n"
        "#\n# Signals for the rules of remediation.yaml: the burn rate of the clients' budget over both windows of the\n"
        "# SLO's quickest alert. Without requests there is no value, and the remediator does not act.\n"
        f"schema: {SCHEMA}\n\nsignals:"
    )
    signals = [_signal(slo, scale) for slo in slos if alerts_of(slo, scale)]
    return "\n".join([head, *signals]) if signals else f"{head} {{}}\n"


def signal_name(slo: Slo) -> str:
    return f"slo-{slo.name}-burn"


def _signal(slo: Slo, scale: float) -> str:
    quickest = alerts_of(slo, scale)[0]
    long, short = (f'{error_ratio(window)}{{slo="{slo.name}"}}' for window in (quickest.long, quickest.short))
    # The smaller of the two: the long window shows that the burn matters, the short one
    # that it continues.
    return (
        f"  {signal_name(slo)}: # {alert_name(slo, quickest.alert)}\n"
        f"    query: |\n"
        f"      ({long} <= {short}\n"
        f"        or {short}) / {slo.error_budget:.6g}\n"
        f"    by: null\n"
        f"    every_s: 1\n"
        f'    fires: "> {quickest.alert.factor(slo.window_days):g}"\n'
    )
