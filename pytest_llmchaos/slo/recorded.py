"""Names and expressions of the series that rules record of an SLO. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmchaos.slo.arithmetic import Slo

ERROR_RATIO = "slo:error_ratio:rate"


def error_ratio(window: str) -> str:
    """The name of the recorded share of bad events over a window such as `15s`; its label `slo` says of which SLO."""
    return f"{ERROR_RATIO}{window}"


def error_ratio_expression(slo: Slo, window: str) -> str:
    """PromQL of that share over the window before the evaluation."""
    # clamp_min: where good and total are counted at different moments, a window can hold more of the former.
    return f"clamp_min(1 - sum(rate({slo.good}[{window}])) / (sum(rate({slo.total}[{window}])) > 0), 0)"
