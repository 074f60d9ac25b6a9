"""Check of a runtime's abilities against those a fault needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pytest_llmchaos.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_llmchaos.model import AbleRuntime, Runtime


def grant(runtime: Runtime, needs: Iterable[str], fault: str) -> AbleRuntime:
    """Return the runtime typed with all abilities.

    Raises:
        Unsupported: the runtime lacks an ability in `needs`. Names each.
    """
    missing = sorted(set(needs) - runtime.abilities)
    if missing:
        raise Unsupported(f"the {runtime.name} runtime cannot {', '.join(missing)}, which {fault} needs")
    return cast("AbleRuntime", runtime)
