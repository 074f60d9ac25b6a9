"""Run the scenarios on every gateway, and write a page.

`make scoreboard` runs it. Each gateway is installed from its lock file into a virtual
environment under build/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from scoreboard_cases import (
    BUDGET_S,
    GATEWAYS,
    HERE,
    NOT_RUN,
    NOTHING,
    SCENARIOS,
    SWITCHES,
    Board,
    Gateway,
    Result,
    Switch,
    results_of,
)
from scoreboard_page import render

ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "scoreboard"
PAGE = ROOT / "docs" / "scoreboard.md"
LONGEST_RUN_S = 6 * 60  # of one gateway with one set of settings


def install(gateway: Gateway, into: Path) -> str:
    """Create the gateway's environment unless it is there, and return its version."""
    if not gateway.package:
        return gateway.version
    folder, lock = into / gateway.name, HERE / f"{gateway.name}.lock"
    python, stamp = folder / "bin" / "python", folder / "lock"
    if not stamp.is_file() or stamp.read_bytes() != lock.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--requirement", str(lock)], check=True)
        stamp.write_bytes(lock.read_bytes())
    shown = f"import importlib.metadata as m; print(m.version({gateway.package!r}))"
    return subprocess.run([str(python), "-c", shown], check=True, capture_output=True, text=True).stdout.strip()


def run(gateway: Gateway, names: Sequence[str], settings: Mapping[str, str], installed: Path) -> dict[str, Result]:
    """Run scenarios on a gateway with these settings. A lost run is no result."""
    junit = BUILD / "junit.xml"
    junit.unlink(missing_ok=True)
    files = [f"../scenarios/test_{name}.py" for name in names]
    path = os.pathsep.join(
        (str(Path(sys.executable).parent), os.environ["PATH"], str(installed / gateway.name / "bin"))
    )
    words = ["-q", "-c", "pyproject.toml", "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "junit_family=legacy"]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                *words,
                f"--junitxml={junit}",
                f"--chaos-report={BUILD / 'reports'}",
                *files,
            ],
            cwd=HERE / gateway.name,
            env={**os.environ, "PATH": path, "GATEWAY_RENEWED": "yes" if gateway.renewed else "no", **settings},
            check=False,
            timeout=LONGEST_RUN_S,
        )
    return results_of(junit.read_text(encoding="utf-8")) if junit.is_file() else {}


Known = dict[tuple[str, str], Result]  # by scenario and settings


def measure(gateways: Sequence[Gateway], budget_s: float, installed: Path) -> Board:
    """Run everything. What the budget leaves no time for is not run."""
    versions = {one.name: install(one, installed) for one in gateways}
    begin_s = time.monotonic()
    deadline_s = begin_s + budget_s
    known: dict[str, Known] = {one.name: {} for one in gateways}
    for one in gateways:  # all gateways before the switches of one
        perform(one, [(scenario.name, {}) for scenario in SCENARIOS], known[one.name], deadline_s, installed)
    chosen = [switch for switch in SWITCHES if switch.gateway in known]
    for one in gateways:
        own = [switch for switch in chosen if switch.gateway == one.name]
        wanted = [(switch.scenario, arm) for switch in own for arm in (switch.base, switch.settings)]
        perform(one, wanted, known[one.name], deadline_s, installed)
    unknown = Result(verdict=NOT_RUN)

    def result_of(switch: Switch, settings: Mapping[str, str]) -> Result:
        return known[switch.gateway].get(_key(switch.scenario, settings), unknown)

    return Board(
        versions=versions,
        results={
            name: {scenario: result for (scenario, settings), result in found.items() if settings == "{}"}
            for name, found in known.items()
        },
        arms=[(one, result_of(one, one.base), result_of(one, one.settings)) for one in chosen],
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        took_s=time.monotonic() - begin_s,
        commit=_commit(),
        day=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def _key(scenario: str, settings: Mapping[str, str]) -> tuple[str, str]:
    return scenario, json.dumps(settings, sort_keys=True)


def perform(
    gateway: Gateway, wanted: Sequence[tuple[str, Mapping[str, str]]], known: Known, deadline_s: float, installed: Path
) -> None:
    """Add the results of these scenarios with these settings.

    Scenarios with the same settings share one start. What proves nothing is repeated
    once.
    """
    for _ in range(2):
        starts: dict[str, list[str]] = {}
        for scenario, settings in wanted:
            found = known.get(_key(scenario, settings))
            names = starts.setdefault(json.dumps(settings, sort_keys=True), [])
            if (found is None or found.verdict == NOTHING) and scenario not in names:
                names.append(scenario)
        for text, names in starts.items():
            if names and time.monotonic() < deadline_s:
                results = run(gateway, names, json.loads(text), installed)
                for name in names:
                    known[name, text] = results.get(name, Result(verdict=NOTHING, reason="no result"))


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[one.name for one in GATEWAYS], help="a gateway; repeatable")
    parser.add_argument("--installed", type=Path, default=BUILD, help="folder of the gateways' environments")
    given = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    gateways = [one for one in GATEWAYS if not given.only or one.name in given.only]
    board = measure(gateways, BUDGET_S, given.installed.resolve())
    (BUILD / "board.json").write_text(json.dumps(asdict(board), indent=1))
    page = render(board)
    if given.only:
        sys.stdout.write(page)
    else:
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
