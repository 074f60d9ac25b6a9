"""Errors that a service seems to give: at once or after a wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.option_checks import check_number, check_whole
from pytest_llmchaos.faults.wire_faults import LONGEST_S, WireFault, given, selection

if TYPE_CHECKING:
    from pytest_llmchaos.faults.wire_match import Match
    from pytest_llmchaos.model import Fault


class Flaky(WireFault):
    """Requests that fail at once."""

    kind: ClassVar[str] = "flaky"
    expects: ClassVar[str] = "clients or the gateway get errors of that status; retries succeed, the error rate rises"


def flaky(
    target: Target,
    *,
    status: int = 503,
    retry_after_s: int | None = None,
    share: float = 0.3,
    match: Match | None = None,
) -> Fault:
    """Answer a share of the requests with an error.

    The requests do not reach the service. The body is an error in OpenAI's form.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: clients or the gateway get errors of that status. Retries
      succeed, and the error rate rises. In the lab `UpstreamErrorsHigh` fires for a
      replica, or `ReplicaEjected` if half of its requests fail.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        status: HTTP status, 400 to 599. 529 is Anthropic's `overloaded`.
        retry_after_s: Whole seconds in the header Retry-After, 0 to 86400. None for no
            header.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `status`,
            `retry_after_s`, `share` or `match` is out of bounds.
    """
    options = given(
        status=check_whole("flaky(status=...)", status, at_least=400, at_most=599),
        retry_after_s=None
        if retry_after_s is None
        else check_whole("flaky(retry_after_s=...)", retry_after_s, at_least=0, at_most=86400),
    )
    return on_targets(Flaky(options=(*options, *selection("flaky", share, match))), target)


class SlowError(WireFault):
    """Requests that fail after a wait."""

    kind: ClassVar[str] = "slow_error"
    expects: ClassVar[str] = "requests fail late; timeouts and retries add up, the error rate rises"


def slow_error(
    target: Target, *, delay_s: float, status: int = 500, share: float = 1.0, match: Match | None = None
) -> Fault:
    """Answer requests with an error after a wait.

    The requests do not reach the service. The body is an error in OpenAI's form.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: requests fail late. Timeouts and retries add up, and the error
      rate rises.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        delay_s: Seconds from the request to the error, above 0, at most 3600.
        status: HTTP status, 400 to 599.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `delay_s`, `status`,
            `share` or `match` is out of bounds.
    """
    options = given(
        delay_s=check_number("slow_error(delay_s=...)", delay_s, above=0, at_most=LONGEST_S),
        status=check_whole("slow_error(status=...)", status, at_least=400, at_most=599),
    )
    return on_targets(SlowError(options=(*options, *selection("slow_error", share, match))), target)
