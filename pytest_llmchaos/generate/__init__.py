"""`llmchaos generate`: everything that follows from slo.yaml, written where it is committed."""

from __future__ import annotations

import argparse
import difflib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.generate import docs, rules, signals
from pytest_llmchaos.generate.boards.all_boards import boards
from pytest_llmchaos.generate.schemas import schemas
from pytest_llmchaos.slo.openslo import load_slos

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.slo.arithmetic import Slo


def outputs(root: Path, scale: float = rules.LAB_SCALE) -> dict[Path, str]:
    """What each generated file of a checkout must hold."""
    source = "stack/slo.yaml"
    slos = load_slos((root / source).read_text(encoding="utf-8"), source)
    page = root / "docs" / "slo.md"
    return {
        root / "stack" / "prometheus" / "rules" / "slo.yml": rules.rules(slos, source, scale),
        root / "stack" / "remediation.slo.yaml": signals.triggers(slos, source, scale),
        page: docs.page(page.read_text(encoding="utf-8"), slos, scale),
        **_dashboards(root, slos, scale),
        **schemas(root),
    }


def main(args: Sequence[str] | None = None) -> int:
    """0: all is as it must be; 1: `--check` found a difference; 2: the input is wrong."""
    parser = argparse.ArgumentParser(prog="llmchaos generate", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: here)")
    parser.add_argument("--scale", type=float, default=rules.LAB_SCALE, help="how many times shorter than for a month")
    parser.add_argument("--check", action="store_true", help="write nothing; tell what differs")
    given = parser.parse_args(args)
    try:
        wanted = outputs(given.root, given.scale)
    except (BadScenario, FileNotFoundError) as error:
        sys.stderr.write(f"llmchaos generate: {error}\n")
        return 2
    different = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in different:
        name = path.relative_to(given.root)
        if given.check:
            old = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
            new = wanted[path].splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(old, new, f"committed/{name}", f"generated/{name}", n=1))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
            sys.stdout.write(f"wrote {name}\n")
    for windows in rules.lab_windows(given.scale):
        sys.stdout.write(
            f"{windows.alert.name}: {windows.alert.factor():g} times too fast over {windows.long} and {windows.short}\n"
        )
    return 1 if given.check and different else 0


def _dashboards(root: Path, slos: Sequence[Slo], scale: float) -> dict[Path, str]:
    try:
        with warnings.catch_warnings():
            # The SDK prefers the schema that only Grafana 12 knows; provisioned files of the older one serve every Grafana.
            warnings.simplefilter("ignore", DeprecationWarning)
            from pytest_llmchaos.generate.grafana import dashboard_json  # noqa: PLC0415 (an extra that only this needs)
    except ImportError as error:
        raise BadScenario(
            f"dashboards need grafana-foundation-sdk: pip install 'pytest-llmchaos[generate]' ({error})"
        ) from error
    return {root / "dashboards" / f"{board.uid}.json": dashboard_json(board) for board in boards(slos, scale)}
