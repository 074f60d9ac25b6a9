"""Names and expressions of the series that rules record of an SLO. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.model import CLIENTS

if TYPE_CHECKING:
    from pytest_llmchaos.slo.arithmetic import Slo

ERROR_RATIO = "slo:error_ratio:rate"


def error_ratio(window: str) -> str:
    """The name of the recorded share of bad events over a window such as `15s`; its label `slo` says of which SLO."""
    return f"{ERROR_RATIO}{window}"


def error_ratio_expression(slo: Slo, window: str) -> str:
    """PromQL of that share over the window before the evaluation."""
    # clamp_min: where good and total are counted at different moments, a window can hold more of the former.
    good, total = _of_one_load("rate", slo.good, window), _of_one_load("rate", slo.total, window)
    return f"clamp_min(1 - sum({good}) / (sum({total}) > 0), 0)"


def events_expression(slo: Slo, window: str) -> str:
    """PromQL of how many events there were in the window before the evaluation."""
    return f"sum({_of_one_load('increase', slo.total, window)})"


def _of_one_load(function: str, selector: str, window: str) -> str:
    """The function over the window. Of the clients' counters, whose labels name their load, only of the load that is on.

    A window may reach back beyond a load's start. What an earlier load's clients suffered pages nobody a second time.
    """
    over = f"{function}({selector}[{window}])"
    return f"{over} and {selector}" if selector.startswith(f"{CLIENTS}_") else over
