"""The `llmchaos` command."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Commands with parsers of their own, so that each imports only what it needs.
_MODULES = {
    "autoscale": "pytest_llmchaos.cli.autoscale_command",
    "generate": "pytest_llmchaos.generate",
    "init": "pytest_llmchaos.generate.starter",
    "metrics": "pytest_llmchaos.prometheus.metrics_command",
    "slo": "pytest_llmchaos.generate.slo_command",
}
_OTHERS = "pytest_llmchaos.cli.commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: the arguments after the program's name. Default: those of this process.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    module = _MODULES.get(given[0]) if given else None
    run: Callable[[Sequence[str]], int] = importlib.import_module(module or _OTHERS).main
    return run(given[1:] if module else given)
