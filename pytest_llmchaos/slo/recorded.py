"""Names and expressions of the series that rules record for an SLO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.model import CLIENTS

if TYPE_CHECKING:
    from pytest_llmchaos.slo.arithmetic import Slo

ERROR_RATIO = "slo:error_ratio:rate"


def error_ratio(window: str) -> str:
    """Return the series name of the share of bad events over a window such as `15s`.

    Its label `slo` holds the SLO's name.
    """
    return f"{ERROR_RATIO}{window}"


def error_ratio_expression(slo: Slo, window: str, without_s: int = 0) -> str:
    """Return PromQL for the share of bad events in the window before the evaluation.

    Args:
        slo: The objective.
        window: Length of the window, such as `15s`.
        without_s: Seconds at the window's end to leave out.
    """
    # clamp_min: good and total are counted at different moments, so good can be higher.
    over = f"[{float(window[:-1]) - without_s:g}s] offset {without_s}s" if without_s else f"[{window}]"

    def rate(selector: str) -> str:
        return f"sum({_of_one_load('rate', selector, over)})"

    return f"clamp_min(1 - {slo.good_events(rate)} / ({rate(slo.total)} > 0), 0)"


def events_expression(slo: Slo, window: str) -> str:
    """Return PromQL for the number of events in the window before the evaluation."""
    return f"sum({_of_one_load('increase', slo.total, f'[{window}]')})"


def _of_one_load(function: str, selector: str, over: str) -> str:
    """Apply the function to a range, for the clients' counters only of this load.

    A window may begin before the load did. Without the restriction, failures of an
    earlier load would fire the alert a second time. The labels name the load.
    """
    result = f"{function}({selector}{over})"
    return f"{result} and {selector}" if selector.startswith(f"{CLIENTS}_") else result
