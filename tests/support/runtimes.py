"""Runtimes that this machine can start."""

from __future__ import annotations

import pytest
from support.stacks import require

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.runtime.local.runtime import LocalRuntime

RUNTIMES = {"compose": ComposeRuntime, "local": LocalRuntime}


def require_runtime(name):
    """Skip with the reason if this machine lacks what a runtime needs."""
    if name == "compose":
        require("sim")
    else:
        try:
            prerequisites.require_packages("sim")
            for program in ("prometheus", "prometheus-pushgateway"):
                prerequisites.server(program)
        except NotReady as error:
            pytest.skip(str(error))
