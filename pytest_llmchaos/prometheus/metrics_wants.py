"""Series that the files of `llmchaos metrics` want."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.prometheus.metrics_page import text_of_file
from pytest_llmchaos.servers.wanted_files import (
    Wants,
    wants_of,
    wants_of_dashboard,
    wants_of_rules,
    wants_of_scaled_objects,
)
from pytest_llmchaos.slo.openslo import slos_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def wants_in(
    rules: Sequence[str], dashboards: Sequence[str], scaled_objects: Sequence[str], objectives: Sequence[str]
) -> Wants:
    """Return the wanted series of all files.

    Raises:
        BadScenario: A file is not readable, or not of its kind.
    """
    wants = Wants()
    for files, read in (
        (rules, wants_of_rules),
        (dashboards, wants_of_dashboard),
        (scaled_objects, wants_of_scaled_objects),
    ):
        for file in files:
            wants += read(text_of_file(file), file)
    for file in objectives:
        slos = slos_of(Path(file))
        wants += wants_of([(f"SLO {one.name}", counter) for one in slos for counter in one.counters], file)
    return wants


def wants_of_files(files: Sequence[Path]) -> Wants:
    """Return the wanted series of files, each of the kind that its content shows.

    Raises:
        BadScenario: A file is not readable, or neither a Grafana dashboard nor rules or
            KEDA objects.
    """
    wants = Wants()
    for file in files:
        text = text_of_file(str(file))
        if text.lstrip().startswith("{"):
            wants += wants_of_dashboard(text, file.name)
        elif re.search(r"^kind:\s*Scaled(Object|Job)\b", text, re.MULTILINE):
            wants += wants_of_scaled_objects(text, file.name)
        else:
            wants += wants_of_rules(text, file.name)
    return wants
