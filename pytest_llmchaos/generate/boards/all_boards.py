"""All dashboards of the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.generate.boards.agents import AGENTS
from pytest_llmchaos.generate.boards.autoscaling import AUTOSCALING
from pytest_llmchaos.generate.boards.engine import ENGINE
from pytest_llmchaos.generate.boards.latency import LATENCY
from pytest_llmchaos.generate.boards.providers import PROVIDERS
from pytest_llmchaos.generate.boards.repair import REPAIR
from pytest_llmchaos.generate.boards.requests import REQUESTS
from pytest_llmchaos.generate.boards.saturation import SATURATION
from pytest_llmchaos.generate.boards.slo import overview

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.generate.boards.panels import Board
    from pytest_llmchaos.slo.arithmetic import Slo


def boards(slos: Sequence[Slo], scale: float) -> tuple[Board, ...]:
    return (overview(slos, scale), REQUESTS, LATENCY, REPAIR, SATURATION, ENGINE, PROVIDERS, AGENTS, AUTOSCALING)
