"""Faults of connections: slow, narrow, silent, reset and refused ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.option_checks import check_choice, check_number, check_span, check_whole
from pytest_llmchaos.faults.wire_faults import WireFault, given, selection

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault

MOST_BYTES = 2**40


class Latency(WireFault):
    """Connections on which every byte of an answer arrives late."""

    kind: ClassVar[str] = "latency"
    expects: ClassVar[str] = "time to first token and the whole answer take longer by the delay; requests may time out"
    counts: ClassVar[str] = "connections"


def latency(
    target: Target, *, delay_s: float, jitter_s: float = 0.0, distribution: str = "uniform", share: float = 1.0
) -> Fault:
    """Delay what a service sends.

    Open connections are hit too. The order of bytes is kept.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: time to first token and whole answers take longer by the delay,
      and requests may time out. In the lab `ProbeSlow` fires for a replica whose health
      checks take longer than 0.2 s.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        delay_s: Seconds of delay, above 0, at most 600.
        jitter_s: Seconds by which the delay varies, 0 to `delay_s`: the largest
            difference (uniform), or the standard deviation (normal).
        distribution: `uniform` or `normal`, drawn by the seed.
        share: Share of the connections that is hit, above 0, at most 1.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `delay_s`,
            `jitter_s`, `distribution` or `share` is out of bounds.
    """
    options = given(
        delay_s=check_number("latency(delay_s=...)", delay_s, above=0, at_most=600),
        jitter_s=check_span("latency(jitter_s=...)", jitter_s, most=delay_s, named="delay_s"),
        distribution=check_choice("latency(distribution=...)", distribution, ("uniform", "normal")),
    )
    return on_targets(Latency(options=(*options, *selection("latency", share))), target)


class Bandwidth(WireFault):
    """Connections that carry few bytes per second."""

    kind: ClassVar[str] = "bandwidth"
    expects: ClassVar[str] = "long prompts and answers take longer, short ones hardly do; requests may time out"
    counts: ClassVar[str] = "connections"


def bandwidth(target: Target, *, bytes_per_s: int, share: float = 1.0) -> Fault:
    """Limit the bytes per second from and to a service.

    All hit connections share the limit, separately for each direction. Open ones are
    hit too.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: long prompts and answers take longer, short ones hardly do.
      Requests may time out.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        bytes_per_s: Limit in bytes per second for each direction, at least 1.
        share: Share of the connections that is hit, above 0, at most 1.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `bytes_per_s` or
            `share` is out of bounds.
    """
    options = given(bytes_per_s=check_whole("bandwidth(bytes_per_s=...)", bytes_per_s, at_least=1, at_most=MOST_BYTES))
    return on_targets(Bandwidth(options=(*options, *selection("bandwidth", share))), target)


class BlackHole(WireFault):
    """Connections that stay open and carry nothing."""

    kind: ClassVar[str] = "black_hole"
    expects: ClassVar[str] = "connections open, no byte comes; requests time out, health probes and scrapes fail"
    counts: ClassVar[str] = "connections"


def black_hole(target: Target, *, share: float = 1.0) -> Fault:
    """Let connections to a service hang.

    New connections are accepted and carry nothing. Open ones stay open and carry
    nothing more. After the revert they go on.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: connections open and no byte comes. Requests time out, health
      probes and scrapes fail.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        share: Share of the connections that is hit, above 0, at most 1.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `share` is out of
            bounds.
    """
    return on_targets(BlackHole(options=selection("black_hole", share)), target)


class Reset(WireFault):
    """Connections that end with a reset."""

    kind: ClassVar[str] = "reset"
    expects: ClassVar[str] = "answers break off with a connection reset; retries on another replica succeed"
    counts: ClassVar[str] = "connections"


def reset(target: Target, *, after_bytes: int = 0, share: float = 1.0) -> Fault:
    """Reset connections to a service.

    Open connections are hit too.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: answers break off with a connection reset. Retries on another
      replica succeed.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        after_bytes: Bytes of the service's answers that still pass on each connection,
            0 for a reset at once.
        share: Share of the connections that is hit, above 0, at most 1.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `after_bytes` or
            `share` is out of bounds.
    """
    options = given(after_bytes=check_whole("reset(after_bytes=...)", after_bytes, at_least=0, at_most=MOST_BYTES))
    return on_targets(Reset(options=(*options, *selection("reset", share))), target)


class Reject(WireFault):
    """Connections that are refused."""

    kind: ClassVar[str] = "reject"
    expects: ClassVar[str] = "connects are refused; health probes and scrapes fail, retries on another replica succeed"
    counts: ClassVar[str] = "connections"


def reject(target: Target, *, share: float = 1.0) -> Fault:
    """Refuse connections to a service.

    Open connections are reset. With a share below 1 the hit connections are accepted
    and reset before their first byte.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: connects are refused. Health probes and scrapes fail, retries on
      another replica succeed.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        share: Share of the connections that is hit, above 0, at most 1.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `share` is out of
            bounds.
    """
    return on_targets(Reject(options=selection("reject", share)), target)
