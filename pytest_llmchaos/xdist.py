"""Keep the claims of one scenario file on one xdist worker, so that its trial is performed once. Nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xdist.scheduler.loadscope import LoadScopeScheduling


class ScenarioScheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist's scheduler classes are untyped
    """Scenario files are one scope each; every other test is a scope of its own, as with `--dist load`.

    xdist's own loadgroup mark is dead with pytest 9.2 (pytest-xdist#1386), so scopes are told by the file's text.
    """

    def __init__(self, config: Any, log: Any) -> None:
        super().__init__(config, log)
        self._scenario_files: dict[str, bool] = {}

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if file not in self._scenario_files:
            self._scenario_files[file] = is_scenario(self.config.rootpath / file)
        return file if self._scenario_files[file] else nodeid


def is_scenario(path: Path) -> bool:
    try:
        return "pytest_llmchaos" in path.read_text(errors="replace")
    except OSError:
        return False


def scheduler_for(config: Any, log: Any) -> Any:
    """Our scheduler for the default `--dist load`; None leaves a distribution that the user chose alone."""
    return ScenarioScheduling(config, log) if config.getvalue("dist") == "load" else None
