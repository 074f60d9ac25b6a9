"""Every dashboard of the lab, as values: what is asked, and what it means when it moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.generate.engine_board import ENGINE
from pytest_llmchaos.generate.latency_board import LATENCY
from pytest_llmchaos.generate.repair_board import REPAIR
from pytest_llmchaos.generate.requests_board import REQUESTS
from pytest_llmchaos.generate.saturation_board import SATURATION
from pytest_llmchaos.generate.slo_board import overview

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.generate.panels import Board
    from pytest_llmchaos.slo import Slo


def boards(slos: Sequence[Slo], scale: float) -> tuple[Board, ...]:
    return (overview(slos, scale), REQUESTS, LATENCY, REPAIR, SATURATION, ENGINE)
