"""Hands a runtime to a fault, if it has the abilities that the fault needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pytest_llmchaos.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_llmchaos.model import AbleRuntime, Runtime


def grant(runtime: Runtime, needs: Iterable[str], fault: str) -> AbleRuntime:
    """The runtime, for a fault that uses these abilities and no others. Raises Unsupported naming those it lacks."""
    missing = sorted(set(needs) - runtime.abilities)
    if missing:
        raise Unsupported(f"the {runtime.name} runtime cannot {', '.join(missing)}, which {fault} needs")
    return cast("AbleRuntime", runtime)
