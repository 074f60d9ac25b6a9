"""`llmchaos slo`: checks SLO files and converts those of other tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import CLIENTS
from pytest_llmchaos.slo.conversion import convert
from pytest_llmchaos.slo.openslo import load_slos, slos_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_llmchaos.slo.arithmetic import Slo

_DESCRIPTION = """\
Check files of objectives, or convert those of Sloth and Pyrra to OpenSLO v1.

Exit status: 0 if every file is valid or wholly converted, 1 if one is not,
2 for a wrong option.
"""
_CHECK = """\
Read OpenSLO v1 files as a run does. Prints a line for each objective, and a line
with file, line and column for each problem.
"""
_CONVERT = """\
Write OpenSLO v1 from a file of Sloth (prometheus/v1, sloth.slok.dev/v1), Pyrra
(pyrra.dev/v1alpha1) or OpenSLO v1alpha. Objectives that cannot be converted are
listed with the reason, and with --out nothing is written then, unless --partial
permits it. An existing file is never changed.
"""
_EXAMPLES = """\
examples:
  llmchaos slo check slo.yaml
  llmchaos slo convert sloth.yaml --out slo.yaml
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = _parser().parse_args(args)
    return _check(given.files) if given.command == "check" else _convert(given.file, given.out, partial=given.partial)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmchaos slo",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    check = commands.add_parser("check", help="read files as a run does", description=_CHECK, formatter_class=raw)
    check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files in OpenSLO v1")
    to_openslo = commands.add_parser(
        "convert", help="write OpenSLO v1 from a file of Sloth or Pyrra", description=_CONVERT, formatter_class=raw
    )
    to_openslo.add_argument("file", type=Path, metavar="FILE", help="the file to convert")
    to_openslo.add_argument("--out", type=Path, metavar="FILE", help="the new file (default: print it)")
    to_openslo.add_argument("--partial", action="store_true", help="write what can be converted, without the rest")
    return parser


def _check(files: Sequence[Path]) -> int:
    is_bad = False
    for file in files:
        try:
            slos = slos_of(file)
            for slo in slos:
                sys.stdout.write(f"{file}: {slo}: {slo.share}\n")
            sys.stderr.write(_loss(slos))
        except BadScenario as error:
            is_bad = True
            sys.stderr.write(f"{error}\n")
    return int(is_bad)


def _convert(file: Path, out: Path | None, *, partial: bool) -> int:
    try:
        done = convert(text_of(file), str(file))
    except BadScenario as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for note in done.notes:
        sys.stderr.write(f"note: {note}\n")
    for problem in done.problems:
        sys.stderr.write(f"not converted: {problem}\n")
    if not done.text:
        return 1
    sys.stderr.write(_loss(load_slos(done.text, str(file))))
    if out is None:
        sys.stdout.write(done.text)
        return int(bool(done.problems))
    if done.problems and not partial:
        sys.stderr.write(
            "llmchaos slo convert: nothing was written: change the file, or write the other objectives with --partial\n"
        )
        return 1
    try:
        _write_new(out, done.text)
    except OSError as error:
        why = "exists already" if isinstance(error, FileExistsError) else f"cannot be written: {error.strerror}"
        sys.stderr.write(f"llmchaos slo convert: {out} {why}: give another file with --out\n")
        return 1
    sys.stdout.write(f"wrote {out}\n")
    return int(bool(done.problems))


def _write_new(path: Path, text: str) -> None:
    """Write a file that must not exist, whole or not at all. Raises OSError."""
    new = path.open("x", encoding="utf-8")
    try:
        with new:
            new.write(text)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _loss(slos: Iterable[Slo]) -> str:
    """A line about the objectives whose counters a killed service would lose."""
    names = [slo.name for slo in slos if not slo.outlives_services]
    if not names:
        return ""
    return (
        f"note: {', '.join(names)}: the counters are lost when the service that has them is killed or restarted, and the "
        f"claim is inconclusive then (CounterReset). Those of clients ({CLIENTS}_*) or of a proxy in front survive\n"
    )
