"""Each bad agent refutes its own claims alone, the good one next to it none."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from truth.tree import run_pytest

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(1500),
    pytest.mark.nightly("test_tasks has each wrong world, and test_lab_agents_process what each switch does"),
]
SESSION_S = 1400.0
ALWAYS = {"refused", "lost", "stuck", "duplicate_effects", "missing_effects", "false_success"}
PAGE = Path(__file__).parents[2] / "docs" / "agents.md"
# Each flaw of LAB_FLAWS, and the claims that it refutes.
REFUTED = {
    flaw: set(re.findall(r"`(\w+)`", claims))
    for flaw, claims in re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
}


def test_every_bad_agent_is_refuted_by_its_claim(tree_with, tmp_path):
    tree, reports = tree_with([]), tmp_path / "reports"
    arguments = ["--chaos-runtime=local", "--chaos-backend=sim", "--chaos-seed=7", f"--chaos-report={reports}"]
    done = run_pytest(tree, "tests/truth/bad_agents.py", *arguments, timeout_s=SESSION_S)

    refuted, seen = defaultdict(set), defaultdict(set)
    unproven = defaultdict(set)
    for trial in json.loads((reports / "latest" / "run.json").read_text())["trials"]:
        for claim in trial["claims"]:
            what, name = re.search(r"\[(\w+)-(\w+)\]$", claim["nodeid"]).groups()
            seen[claim["nodeid"].partition("[")[0], name].add(what)
            if claim["outcome"] == "failed":
                refuted[name].add(what)
            elif claim["outcome"] != "passed":
                unproven[name].add(f"{what}: {claim['message'] or trial['reason']}")
    assert not unproven, done.stdout[-3000:]
    # Each of the nine experiments has a good arm, and each arm the claims of all.
    assert Counter(name for _, name in seen) == {**dict.fromkeys(REFUTED, 1), "good": 9}
    assert all(claims >= ALWAYS for claims in seen.values())
    assert refuted == REFUTED, done.stdout[-6000:]
