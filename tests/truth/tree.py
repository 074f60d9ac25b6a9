"""A changed copy of the tree, and a pytest session in it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.copies import copy_tree, environment_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from truth.defects import Patch


@dataclass(frozen=True, kw_only=True)
class Performed:
    """A session: pytest's exit status and output, and the outcomes in its run.json.

    `claims` maps a claim's function to its outcomes. `reasons` are those of trials that
    prove nothing.
    """

    status: int
    output: str
    claims: dict[str, set[str]]
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def not_held(self) -> set[str]:
        """Claims with another outcome than `passed`."""
        return {name for name, outcomes in self.claims.items() if outcomes != {"passed"}}


def changed_tree(folder: Path, patches: Iterable[Patch]) -> Path:
    """A copy of what runs, with the patches applied."""
    copy_tree(folder)
    for patch in patches:
        patch.apply(folder)
    return folder


def run_pytest(tree: Path, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run pytest in the tree, which imports from there alone."""
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command,
        cwd=tree,
        env=environment_of(tree),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def perform(tree: Path, reports: Path, *arguments: str, timeout_s: float) -> Performed:
    """Perform experiments in the tree, as processes with the simulated engine."""
    done = run_pytest(
        tree,
        "--chaos-runtime=local",
        "--chaos-backend=sim",
        f"--chaos-report={reports}",
        *arguments,
        timeout_s=timeout_s,
    )
    path = reports / "latest" / "run.json"
    trials = json.loads(path.read_text())["trials"] if path.is_file() else []
    claims: dict[str, set[str]] = {}
    for trial in trials:
        for claim in trial["claims"]:
            name = claim["nodeid"].rpartition("::")[2].partition("[")[0]
            claims.setdefault(name, set()).add(claim["outcome"])
    return Performed(
        status=done.returncode,
        output=done.stdout,
        claims=claims,
        verdicts=tuple(trial["verdict"] for trial in trials),
        reasons=tuple(trial["reason"] for trial in trials if trial["reason"]),
    )
