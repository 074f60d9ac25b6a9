"""Answers that come late: the first token, the next one, or every byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.option_checks import check_number, check_span, check_whole
from pytest_llmchaos.faults.wire_faults import LONGEST_S, WireFault, check_tokens, given, selection

if TYPE_CHECKING:
    from pytest_llmchaos.faults.wire_match import Match
    from pytest_llmchaos.model import Fault


class LateFirstToken(WireFault):
    """Answers whose first token comes late."""

    kind: ClassVar[str] = "late_first_token"
    expects: ClassVar[str] = "time to first token rises by the delay, gaps between tokens do not; nothing is restarted"


def late_first_token(target: Target, *, delay_s: float, share: float = 1.0, match: Match | None = None) -> Fault:
    """Delay the first token of answers.

    Status and headers come on time. An answer without streaming waits as a whole.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: the time to the first token rises by the delay, gaps between
      tokens do not.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        delay_s: Seconds from the first token's arrival at the agent to its departure,
            above 0, at most 3600.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `delay_s`, `share` or
            `match` is out of bounds.
    """
    options = given(delay_s=check_number("late_first_token(delay_s=...)", delay_s, above=0, at_most=LONGEST_S))
    return on_targets(LateFirstToken(options=(*options, *selection("late_first_token", share, match))), target)


class Stall(WireFault):
    """Answers that stop in the middle and stay open."""

    kind: ClassVar[str] = "stall"
    expects: ClassVar[str] = "streams stop and stay open; clients count stalled answers, every status is 200"


def stall(
    target: Target,
    *,
    after_tokens: int = 0,
    for_s: float | None = None,
    keep_alive_s: float | None = None,
    share: float = 1.0,
    match: Match | None = None,
) -> Fault:
    """Stop streams in the middle, without an end.

    The end of the fault lets them go on. A shorter stream is not hit.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: streams stop and stay open. Clients count `stalled` answers, and
      every status is 200.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        after_tokens: Tokens that pass before it, 0 to 1,000,000.
        for_s: Seconds of the stop, above 0, at most 3600. None for the rest of the
            fault.
        keep_alive_s: Seconds between comments that keep the connection alive, above 0,
            at most 3600. None sends nothing.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `after_tokens`,
            `for_s`, `keep_alive_s`, `share` or `match` is out of bounds.
    """
    options = given(
        after_tokens=check_tokens("stall", after_tokens),
        for_s=None if for_s is None else check_number("stall(for_s=...)", for_s, above=0, at_most=LONGEST_S),
        keep_alive_s=None
        if keep_alive_s is None
        else check_number("stall(keep_alive_s=...)", keep_alive_s, above=0, at_most=LONGEST_S),
    )
    return on_targets(Stall(options=(*options, *selection("stall", share, match))), target)


class SlowDrip(WireFault):
    """Answers that arrive in tiny pieces."""

    kind: ClassVar[str] = "slow_drip"
    expects: ClassVar[str] = (
        "whole answers take much longer while bytes keep coming; timeouts between bytes do not fire"
    )


def slow_drip(
    target: Target, *, every_s: float, bytes_per_piece: int = 1, share: float = 1.0, match: Match | None = None
) -> Fault:
    """Send answers in tiny pieces with a pause after each.

    Events are torn at any byte. It acts on the body of any answer with status 200.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: whole answers take much longer while bytes keep coming. Timeouts
      between bytes do not fire.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        every_s: Seconds between two pieces, 0.001 to 60.
        bytes_per_piece: Size of a piece in bytes, 1 to 1,048,576.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `every_s`,
            `bytes_per_piece`, `share` or `match` is out of bounds.
    """
    options = given(
        every_s=check_span("slow_drip(every_s=...)", every_s, least=0.001, most=60),
        bytes_per_piece=check_whole("slow_drip(bytes_per_piece=...)", bytes_per_piece, at_least=1, at_most=2**20),
    )
    return on_targets(SlowDrip(options=(*options, *selection("slow_drip", share, match))), target)
