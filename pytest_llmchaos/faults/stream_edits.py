"""Answers whose events are wrong: broken, doubled, swapped or mislabelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.option_checks import check_text
from pytest_llmchaos.faults.wire_faults import WireFault, check_tokens, given, selection

if TYPE_CHECKING:
    from pytest_llmchaos.faults.wire_match import Match
    from pytest_llmchaos.model import Fault


class Malformed(WireFault):
    """Answers with an event that is not JSON."""

    kind: ClassVar[str] = "malformed"
    expects: ClassVar[str] = "clients count corrupted answers, every status is 200"


def malformed(target: Target, *, after_tokens: int = 3, share: float = 1.0, match: Match | None = None) -> Fault:
    """Break the JSON of one event of each answer.

    The rest of the answer is unchanged. A shorter stream is not hit.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: clients count `corrupted` answers, and every status is 200.

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
    options = given(after_tokens=check_tokens("malformed", after_tokens))
    return on_targets(Malformed(options=(*options, *selection("malformed", share, match))), target)


class Duplicate(WireFault):
    """Answers with an event that comes twice."""

    kind: ClassVar[str] = "duplicate"
    further_tokens: ClassVar[int] = 1
    expects: ClassVar[str] = "one token too many; clients that check answers count corrupted ones"


def duplicate(target: Target, *, after_tokens: int = 3, share: float = 1.0, match: Match | None = None) -> Fault:
    """Send one event of each answer twice.

    The rest of the answer is unchanged. A shorter stream is not hit.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: one token too many. Clients that check answers count
      `corrupted` ones.

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
    options = given(after_tokens=check_tokens("duplicate", after_tokens))
    return on_targets(Duplicate(options=(*options, *selection("duplicate", share, match))), target)


class Reorder(WireFault):
    """Answers with two events in the wrong order."""

    kind: ClassVar[str] = "reorder"
    further_tokens: ClassVar[int] = 2
    expects: ClassVar[str] = "two tokens are swapped; clients that check answers count corrupted ones"


def reorder(target: Target, *, after_tokens: int = 3, share: float = 1.0, match: Match | None = None) -> Fault:
    """Swap two successive events of each answer.

    The rest of the answer is unchanged. A shorter stream is not hit.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: two tokens are swapped. Clients that check answers count
      `corrupted` ones.

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
    options = given(after_tokens=check_tokens("reorder", after_tokens))
    return on_targets(Reorder(options=(*options, *selection("reorder", share, match))), target)


class WrongModel(WireFault):
    """Answers that name another model."""

    kind: ClassVar[str] = "wrong_model"
    expects: ClassVar[str] = "answers name another model; clients that check answers count corrupted ones"


def wrong_model(
    target: Target, *, model: str = "another-model", share: float = 1.0, match: Match | None = None
) -> Fault:
    """Name another model in answers.

    As after a wrong rollout or a fallback. The tokens are unchanged. Streams of TGI
    name no model and are not hit.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: answers name another model. Clients that check answers count
      `corrupted` ones.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        model: The model's name in the answers.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, from `faults.match`. None for every POST.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `model`, `share` or
            `match` is out of bounds.
    """
    options = given(model=check_text("wrong_model(model=...)", model))
    return on_targets(WrongModel(options=(*options, *selection("wrong_model", share, match))), target)
