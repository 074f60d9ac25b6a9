"""`llmchaos generate`: rules, tables and dashboards from an OpenSLO file."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.generate import docs, engines, prices, rules, signals
from pytest_llmchaos.generate.boards.all_boards import boards
from pytest_llmchaos.generate.boards.slo import own_overview
from pytest_llmchaos.generate.schemas import schemas
from pytest_llmchaos.host.extras import install_command
from pytest_llmchaos.slo.openslo import slos_of, text_of
from pytest_llmchaos.subject.lab_signals import EXPECTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmchaos.generate.boards.panels import Board
    from pytest_llmchaos.slo.arithmetic import Slo

SOURCE = "stack/slo.yaml"
# Every generated file contains this. Files without it are not overwritten.
MARK = "by `llmchaos generate`"
EPILOG = """
examples:
  llmchaos generate --slo slo.yaml --out monitoring              for alerts on a month of traffic
  llmchaos generate --slo slo.yaml --out monitoring --scale 240  for experiments of a minute or two
  llmchaos generate --prices prices.toml --out monitoring        what 1,000 good answers cost, by provider

Writes slo.rules.yml (recording rules and burn alerts, for rule_files of prometheus.yml), slo.md (the same as tables)
and, if grafana-foundation-sdk is installed, slo-overview.json (a dashboard for Grafana 10 and later).
With --prices, it writes prices.rules.yml (see docs/providers.md).
Without --slo and --prices, it regenerates the committed files of a checkout of this project.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0 is success, 1 a difference that `--check` found, 2 an invalid input.
    """
    given = _parser().parse_args(args)
    own = given.slo is not None or given.prices is not None
    if own != (given.out is not None):
        return _refuse("--slo FILE and --out DIR belong together: give both. So do --prices FILE and --out DIR")
    scale = given.scale or (1.0 if own else rules.LAB_SCALE)
    base = given.out if own else given.root
    try:
        slos = () if given.slo is None else slos_of(given.slo)
        if not own:
            slos = _checkout_slos(given.root)
        wanted = _own(given, slos, scale) if own else outputs(slos, given.root, scale)
        if not given.check:
            _require_writable(wanted, base)
        if own and not (given.force or given.check):
            _require_ours(wanted)
        changed = _compare(wanted, base) if given.check else _write(wanted, base)
    except (BadScenario, OSError) as error:
        return _refuse(str(error))
    for windows in rules.lab_windows(scale):
        factors = rules.factors_of(slos, windows.alert)
        if factors:
            sys.stdout.write(
                f"{windows.alert.name}: {factors} times too fast over {windows.long} and {windows.short}\n"
            )
    return 1 if given.check and changed else 0


def _checkout_slos(root: Path) -> tuple[Slo, ...]:
    if not (root / SOURCE).is_file():
        raise BadScenario(
            f"{root} has no {SOURCE}: give --slo FILE and --out DIR for SLOs of your own, or run in a checkout"
        )
    return slos_of(root / SOURCE, SOURCE)


def outputs(slos: Sequence[Slo], root: Path, scale: float = rules.LAB_SCALE) -> dict[Path, str]:
    """Return the text of each generated file of a checkout."""
    page, faults = root / "docs" / "slo.md", root / "docs" / "faults.md"
    made = {board.uid: dashboard_json(board) for board in boards(slos, scale)}
    return {
        root / "stack" / "prometheus" / "rules" / "slo.yml": rules.rules(slos, SOURCE, scale),
        root / "stack" / "prometheus" / "rules" / "servers.yml": engines.rules(),
        root / "stack" / "remediation.slo.yaml": signals.triggers(slos, SOURCE, scale),
        page: docs.page(page.read_text(encoding="utf-8"), slos, scale),
        faults: docs.faults_page(faults.read_text(encoding="utf-8"), EXPECTED),
        **{root / "dashboards" / f"{uid}.json": text for uid, text in made.items()},
        **schemas(root),
    }


def _own(given: argparse.Namespace, slos: Sequence[Slo], scale: float) -> dict[Path, str]:
    """Return the text of each file generated from a user's files."""
    written = {} if given.slo is None else outputs_of(slos, given.slo, given.out, scale)
    if given.prices is not None:
        found = prices.parse_prices(text_of(given.prices), str(given.prices))
        written[given.out / "prices.rules.yml"] = prices.price_rules(found, _name_in_comments(given.prices))
    return written


def outputs_of(slos: Sequence[Slo], slo_file: Path, out: Path, scale: float) -> dict[Path, str]:
    """Return the text of each file generated from a user's SLOs."""
    source = _name_in_comments(slo_file)
    written = {
        out / "slo.rules.yml": rules.rules(slos, source, scale),
        out / "slo.md": docs.own_page(slos, source, scale),
    }
    try:
        written[out / "slo-overview.json"] = dashboard_json(own_overview(slos, source, scale))
    except BadScenario as error:
        sys.stdout.write(f"no dashboard: {error}\n")
    return written


def _name_in_comments(path: Path) -> str:
    """Return the file's name without characters that could end a comment."""
    return "".join(one if one.isprintable() and one not in "<>" else "_" for one in path.name)


def dashboard_json(board: Board) -> str:
    """Return the board as Grafana's JSON.

    Raises:
        BadScenario: The SDK is not installed.
    """
    try:
        with warnings.catch_warnings():
            # The SDK deprecates the older schema, the only one for Grafana 10 and 11.
            warnings.simplefilter("ignore", DeprecationWarning)
            from pytest_llmchaos.generate import grafana  # noqa: PLC0415 (an extra that only this needs)
    except ImportError as error:
        raise BadScenario(f"dashboards need grafana-foundation-sdk: {install_command('generate')} ({error})") from error
    return grafana.dashboard_json(board)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmchaos generate",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--slo", type=_path, metavar="FILE", help="your SLOs, in OpenSLO v1 (see docs/slo.md)")
    parser.add_argument(
        "--prices", type=_path, metavar="FILE", help="your providers' prices, in TOML (see docs/providers.md)"
    )
    parser.add_argument("--out", type=_path, metavar="DIR", help="the folder to write to, created if missing")
    parser.add_argument(
        "--scale",
        type=_scale,
        metavar="N",
        help="make the alerts' windows N times shorter (default: 1, windows for a month; 240 for a checkout)",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, print differences and exit with 1 if there are any"
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite files in DIR that this command did not generate"
    )
    parser.add_argument("--root", type=Path, default=Path.cwd(), metavar="DIR", help="the checkout (default: here)")
    return parser


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path, got {text!r}: write . for this folder")
    return Path(text)


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 1, got {text!r}")
    return value


def _require_writable(wanted: Mapping[Path, str], base: Path) -> None:
    """Check that every file can be written, before writing the first.

    Raises:
        BadScenario: A file or its folder cannot be written.
    """
    for folder in dict.fromkeys((base, *(path.parent for path in wanted))):
        nearest = next(
            one for one in (folder, *folder.parents) if one.is_symlink() or one.exists() or one == one.parent
        )
        what = _seen(nearest, is_as_wanted=nearest.is_dir(), mode=os.W_OK | os.X_OK)
        if what:
            expected = "must be a writable folder or one that can be created"
            raise BadScenario(f"{folder} {expected}, but {nearest} is {what}: give another. Nothing was written")
    for path in wanted:
        if path.is_symlink() or path.exists():
            what = _seen(path, is_as_wanted=path.is_file(), mode=os.W_OK | os.R_OK)
            if what:
                raise BadScenario(f"{path} must be a writable file, but is {what}: move it away. Nothing was written")


def _seen(path: Path, *, is_as_wanted: bool, mode: int) -> str:
    """Return the obstacle at a path, empty if it can be written."""
    if is_as_wanted:
        return "" if os.access(path, mode) else "not writable for you"
    if not path.exists():
        return "a dangling symlink"
    return "a folder" if path.is_dir() else "a file" if path.is_file() else "neither file nor folder"


def _require_ours(wanted: Mapping[Path, str]) -> None:
    """Raise BadScenario for existing files that this command did not write."""
    foreign = [path for path in wanted if path.exists() and MARK not in path.read_text("utf-8", errors="replace")]
    if foreign:
        names = ", ".join(map(str, foreign))
        raise BadScenario(f"not generated by this command: {names}: move it away or add --force. Nothing was written")


def _write(wanted: Mapping[Path, str], base: Path) -> bool:
    different = _different(wanted)
    for path in different:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(base)}\n")
    return bool(different)


def _compare(wanted: Mapping[Path, str], base: Path) -> bool:
    different = _different(wanted)
    for path in different:
        name = path.relative_to(base)
        old = path.read_text("utf-8", errors="replace").splitlines(keepends=True) if path.is_file() else []
        new = wanted[path].splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(old, new, f"committed/{name}", f"generated/{name}", n=1))
    return bool(different)


def _different(wanted: Mapping[Path, str]) -> list[Path]:
    return [
        path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8", errors="replace") != text
    ]


def _refuse(why: str) -> int:
    sys.stderr.write(f"llmchaos generate: {why}\n")
    return 2
