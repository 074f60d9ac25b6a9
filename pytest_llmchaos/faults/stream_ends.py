"""Answers that end too early: cut, failed or empty, with status 200."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.option_checks import check_choice
from pytest_llmchaos.faults.wire_faults import WireFault, check_tokens, given, selection

if TYPE_CHECKING:
    from pytest_llmchaos.faults.wire_match import Match
    from pytest_llmchaos.model import Fault


class Truncate(WireFault):
    """Answers that end too early and cleanly."""

    kind: ClassVar[str] = "truncate"
    expects: ClassVar[str] = "answers are too short, with status 200; clients that check the end count truncated ones"

    @property
    def looks_whole(self) -> bool:
        return dict(self.options)["how"] == "false_stop"

    @property
    def least_tokens(self) -> int:
        return super().least_tokens + (1 if self.looks_whole else 0)  # it replaces a token


def truncate(
    target: Target, *, after_tokens: int = 3, how: str = "clean", share: float = 1.0, match: Match | None = None
) -> Fault:
    """End answers too early, without an error.

    `false_stop` looks like a whole answer. Only a client that expects a length detects
    it. A shorter answer is not hit.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: answers are too short, with status 200. Clients that check the
      end count `truncated` ones.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        after_tokens: Tokens that pass before it, 0 to 1,000,000.
        how: `clean` ends without a finish reason, `false_stop` with the finish reason
            `stop`, `mid_event` inside an event.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `after_tokens`,
            `how`, `share` or `match` is out of bounds.
    """
    options = given(
        after_tokens=check_tokens("truncate", after_tokens),
        how=check_choice("truncate(how=...)", how, ("clean", "false_stop", "mid_event")),
    )
    return on_targets(Truncate(options=(*options, *selection("truncate", share, match))), target)


class InbandError(WireFault):
    """Answers with an error inside the stream."""

    kind: ClassVar[str] = "inband_error"
    expects: ClassVar[str] = (
        "streams with status 200 carry an error event; clients count inband_error, status codes do not"
    )


def inband_error(target: Target, *, after_tokens: int = 3, share: float = 1.0, match: Match | None = None) -> Fault:
    """Send an error inside the stream and end it.

    It has the form of the stream's dialect. The status is 200. A shorter stream is not
    hit.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: streams with status 200 carry an error. Clients count
      `inband_error`, status codes do not.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        after_tokens: Tokens that pass before it, 0 to 1,000,000.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `after_tokens`,
            `share` or `match` is out of bounds.
    """
    options = given(after_tokens=check_tokens("inband_error", after_tokens))
    return on_targets(InbandError(options=(*options, *selection("inband_error", share, match))), target)


class EmptyAnswer(WireFault):
    """Answers without a token."""

    kind: ClassVar[str] = "empty_answer"
    expects: ClassVar[str] = (
        "answers end properly without any token; clients that check answers count truncated ones, every status is 200"
    )

    looks_whole: ClassVar[bool] = True


def empty_answer(target: Target, *, share: float = 1.0, match: Match | None = None) -> Fault:
    """Remove all tokens of answers, and keep their proper end.

    The finish reason and the end of the stream stay.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: answers end properly without a token. Clients that check answers
      count `truncated` ones, and every status is 200.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `share` or `match` is
            out of bounds.
    """
    return on_targets(EmptyAnswer(options=selection("empty_answer", share, match)), target)
