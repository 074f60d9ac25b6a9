"""`llmchaos generate`: writes what follows from slo.yaml, tells what differs, and refuses what it cannot read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_llmchaos.cli import main as llmchaos
from pytest_llmchaos.generate import main

ROOT = Path(__file__).parent.parent
WRITTEN = [
    "stack/prometheus/rules/slo.yml",
    "docs/slo.md",
    "dashboards/llmchaos-overview.json",
    "stack/remediation.slo.yaml",
    "pytest_llmchaos/evidence/journal.schema.json",
    "pytest_llmchaos/report/run.schema.json",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What of this repository the command reads and writes."""
    for folder in ("stack/prometheus/rules", "dashboards", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("evidence", "report"):
        (tmp_path / "pytest_llmchaos" / folder).mkdir(parents=True)
    for name in ("stack/slo.yaml", *WRITTEN):
        shutil.copy(ROOT / name, tmp_path / name)
    for path in (ROOT / "dashboards").glob("*.json"):
        shutil.copy(path, tmp_path / "dashboards")
    return tmp_path


def test_an_unchanged_checkout_is_left_alone(checkout: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*") if path.is_file()}

    assert main(["--root", str(checkout)]) == 0
    assert {path: path.stat().st_mtime_ns for path in checkout.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", WRITTEN)
def test_a_change_by_hand_is_told_by_the_check_and_undone_by_the_command(
    checkout: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / name
    wanted = path.read_text()
    path.write_text(
        wanted.replace(next(said for said in ("99.5 %", "0.995", "0.005", "integer") if said in wanted), "nothing", 1)
    )

    assert main(["--root", str(checkout), "--check"]) == 1
    assert f"+++ generated/{name}" in capsys.readouterr().out
    assert main(["--root", str(checkout)]) == 0
    assert path.read_text() == wanted
    assert main(["--root", str(checkout), "--check"]) == 0


def test_a_missing_file_is_made(checkout: Path) -> None:
    shutil.rmtree(checkout / "dashboards")
    (checkout / "stack" / "prometheus" / "rules" / "slo.yml").unlink()

    assert main(["--root", str(checkout), "--check"]) == 1
    assert main(["--root", str(checkout)]) == 0
    assert main(["--root", str(checkout), "--check"]) == 0


def test_a_change_of_an_objective_reaches_rules_page_dashboard_and_triggers(checkout: Path) -> None:
    slo = checkout / "stack" / "slo.yaml"
    slo.write_text(slo.read_text().replace("target: 0.995", "target: 0.998", 1))

    assert main(["--root", str(checkout)]) == 0
    assert "vector(0.998)" in (checkout / WRITTEN[0]).read_text()
    assert "| 99.8 % in 30 days |" in (checkout / WRITTEN[1]).read_text()
    assert "(promised 99.8 %)" in (checkout / WRITTEN[2]).read_text()
    assert "/ 0.002" in (checkout / WRITTEN[3]).read_text()


def test_other_windows_are_written_and_printed(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(checkout), "--scale", "60"]) == 0

    assert "FastBurn: 14.4 times too fast over 60s and 5s" in capsys.readouterr().out
    assert "rate60s" in (checkout / WRITTEN[0]).read_text()
    assert "rate60s" in (checkout / WRITTEN[3]).read_text()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("stack/slo.yaml", "kind: SLO\n", "stack/slo.yaml:1:1: the document must have 'apiVersion'"),
        ("docs/slo.md", "# Service levels\n", "must hold the lines '<!-- generated from stack/slo.yaml: begin -->'"),
    ],
)
def test_wrong_input_is_told_and_nothing_is_written(
    checkout: Path, name: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = (checkout / WRITTEN[0]).read_text()
    (checkout / name).write_text(text)

    assert main(["--root", str(checkout)]) == 2
    assert said in capsys.readouterr().err
    assert (checkout / WRITTEN[0]).read_text() == rules


def test_a_folder_that_is_no_checkout_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 2
    assert "slo.yaml" in capsys.readouterr().err


def test_it_is_a_command_of_llmchaos(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)

    assert llmchaos(["generate", "--check"]) == 0
