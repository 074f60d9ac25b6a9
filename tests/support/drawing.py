"""The selection of tests that a commit draws.

`--drawn-by=HEAD` selects. Without the option every test runs. The cases of a function
under `@pytest.mark.sampled` are sorted by a hash of the commit and their names, and the
first ones run. A test under `@pytest.mark.nightly` runs only without the option.
"""

from __future__ import annotations

import hashlib
import math
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
MARKERS = (
    "sampled(share=0, by=None): with --drawn-by, this share of the cases runs, and one of every value of `by` at least.",
    "nightly(instead): with --drawn-by, the test does not run. `instead` names what catches such a defect then.",
)
NO_COMMIT = "no commit"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case of a sampled function, with the stratum that it represents."""

    name: str
    stratum: str = ""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The counts of one draw: cases of each sampled function, and nightly tests."""

    commit: str
    of: dict[str, tuple[int, int]] = field(default_factory=dict)
    nightly: list[str] = field(default_factory=list)

    def told(self) -> list[str]:
        counts = [f"  {few} of {all_} of {name}" for name, (few, all_) in sorted(self.of.items()) if few < all_]
        nightly = [f"  none of {len(self.nightly)} nightly tests"] if self.nightly else []
        return [f"drawn by {self.commit}; without --drawn-by all tests run", *counts, *nightly]


_DRAWN = pytest.StashKey[Drawn]()


def commit_of(name: str, folder: Path = ROOT) -> str:
    """The commit of this name in git, else the name itself, and for HEAD a constant."""
    otherwise = NO_COMMIT if name == "HEAD" else name
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return otherwise
    return done.stdout.strip() or otherwise


def draw(cases: Iterable[Case], *, commit: str, share: float) -> set[str]:
    """Names of the drawn cases: first one of every stratum, then up to the share."""
    in_order = sorted(cases, key=lambda case: hashlib.sha256(f"{commit} {case.name}".encode()).digest())
    firsts = list({case.stratum: case.name for case in reversed(in_order)}.values())
    others = [case.name for case in in_order if case.name not in firsts]
    return {*firsts, *others[: max(0, math.ceil(share * len(in_order)) - len(firsts))]}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--drawn-by",
        metavar="COMMIT",
        help="run the share of the sampled tests that this commit draws, and none of the nightly ones",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    name = config.getoption("--drawn-by")
    if name is not None:
        config.stash[_DRAWN] = Drawn(commit=commit_of(name))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect undrawn tests, before `-k` and `-m`, so that they change no draw."""
    drawn = config.stash.get(_DRAWN, None)
    if drawn is None:
        return
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            groups.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = set()
    for name, group in groups.items():
        chosen = _drawn_of(group, drawn.commit)
        left_out |= {item.nodeid for item in group} - chosen
        drawn.of[name] = len(chosen), len(group)
    drawn.nightly.extend(item.nodeid for item in items if (mark := item.get_closest_marker("nightly")) and _said(mark))
    left_out.update(drawn.nightly)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    drawn = config.stash.get(_DRAWN, None)
    return drawn.told() if drawn else []


def _drawn_of(group: Sequence[pytest.Item], commit: str) -> set[str]:
    mark = group[0].get_closest_marker("sampled")
    assert mark is not None
    cases = [Case(name=item.nodeid, stratum=_stratum(item, mark.kwargs.get("by"))) for item in group]
    return draw(cases, commit=commit, share=mark.kwargs.get("share", 0.0))


def _stratum(item: pytest.Item, by: str | Callable[[Mapping[str, object]], object] | None) -> str:
    parameters: Mapping[str, object] = item.callspec.params if isinstance(item, pytest.Function) else {}
    if by is None:
        return ""
    return str(parameters[by] if isinstance(by, str) else by(parameters))


def _said(mark: pytest.Mark) -> str:
    """The test that catches such a defect in the gate instead."""
    if len(mark.args) != 1 or not mark.args[0]:
        raise pytest.UsageError("nightly(instead) needs the name of what catches such a defect instead")
    return str(mark.args[0])
