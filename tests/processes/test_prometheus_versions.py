"""All queries and rules on three Prometheus versions.

Debian has 2.42 (bookworm), 2.53 (trixie) and 3 (unstable). Each is fetched once into
the cache, or skipped with the reason if there is no Debian archive.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
import requests
import yaml
from offline import debian
from offline.shell import SetupError
from support import rule_cases
from support.grafana_queries import substituted
from support.prometheus_server import prometheus_with
from support.waiting import until

from pytest_llmchaos.generate.boards.all_boards import boards
from pytest_llmchaos.generate.rules import LAB_SCALE
from pytest_llmchaos.prometheus.binary import cache_directory

STACK = Path(__file__).parents[2] / "stack"
pytestmark = pytest.mark.sampled  # the commit draws one version for each query

VERSIONS = {"bookworm": "2.42", "trixie": "2.53", "unstable": "3"}


@pytest.fixture(scope="module", params=VERSIONS)
def programs(request: pytest.FixtureRequest) -> Path:
    """A folder with `prometheus` and `promtool` of one version."""
    suite: str = request.param
    kept = cache_directory() / "suites" / suite
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        packages = ["prometheus"] if suite == "bookworm" else ["prometheus", "promtool"]  # one package, later two
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            try:
                debian.unpack_newer(packages, Path(scratch) / suite, suite)
            except (SetupError, OSError) as error:
                pytest.skip(f"no Prometheus of Debian {suite} here: {str(error).splitlines()[0]}")
            (Path(scratch) / suite).rename(
                kept
            )  # as one, so that an interrupted fetch leaves nothing that looks complete
    found = kept / "usr" / "bin"
    said = subprocess.run([found / "promtool", "--version"], capture_output=True, text=True, check=True)
    assert f"version {VERSIONS[suite]}." in said.stdout + said.stderr
    return found


@pytest.fixture
def chosen(programs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The version that the other tests' helpers start."""
    for module in ("support.rule_cases", "support.prometheus_server"):
        monkeypatch.setattr(f"{module}.program", lambda name: str(programs / name))
    return programs


def questions() -> list[str]:
    """Queries of rules, dashboards and the remediator, with Grafana's rate window."""
    found = [rule["expr"] for rule in rule_cases.all_rules()]
    for board in boards(rule_cases.SLOS, LAB_SCALE):
        variables = {variable.name: ".*" for variable in board.variables}
        found += [substituted(query.expr, 60, 1, variables) for panel in board.panels for query in panel.queries]
    for name in ("remediation.yaml", "remediation.slo.yaml"):
        signals = yaml.safe_load((STACK / name).read_text())["signals"]
        found += [signal["query"] for signal in signals.values() if "query" in signal]
    return sorted(set(found))


def test_every_question_is_accepted(chosen: Path, tmp_path: Path) -> None:
    records = [{"record": f"asked:{number}", "expr": expr} for number, expr in enumerate(questions())]
    (tmp_path / "asked.yml").write_text(json.dumps({"groups": [{"name": "asked", "rules": records}]}))
    files = [*map(str, rule_cases.RULES), str(tmp_path / "asked.yml")]

    done = subprocess.run([chosen / "promtool", "check", "rules", *files], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(records) > 100


# Rules of one SLO. The others differ by a name and a number.
OTHERS = {rule_cases.burn_case(slo).says for slo in rule_cases.SLOS[1:]}
CASES = [case for case in rule_cases.CASES if case.says not in OTHERS]


@pytest.mark.sampled(share=0.1)  # test_rules.py runs all of them with this machine's version
@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_every_alert_fires_with_its_labels_and_ends(tmp_path: Path, case: rule_cases.Case) -> None:
    rule_cases.assert_rules_say(tmp_path, (case.history, case.seconds, rule_cases.checks_of(case)))


@pytest.mark.usefixtures("chosen")
def test_the_server_loads_the_rules_and_answers_every_question(tmp_path: Path) -> None:
    config = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(STACK / "prometheus" / "rules" / "*.yml")],
    }
    with prometheus_with(tmp_path, json.dumps(config)) as server:
        for question in questions():
            server.vector(question, 1_000_000.0, may_be_empty=True)

        def evaluated() -> bool:
            groups = requests.get(f"{server.url}/api/v1/rules", timeout=5).json()["data"]["groups"]
            return {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}

        assert until(evaluated, "a good evaluation of every rule", 20)
