"""`llmchaos generate`: files that follow from SLOs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.prometheus_server import program

from pytest_llmchaos.cli import main as llmchaos
from pytest_llmchaos.generate import main

ROOT = Path(__file__).parent.parent
WRITTEN = [
    "stack/prometheus/rules/slo.yml",
    "docs/slo.md",
    "dashboards/llmchaos-overview.json",
    "stack/remediation.slo.yaml",
    "docs/faults.md",
    "pytest_llmchaos/evidence/journal.schema.json",
    "pytest_llmchaos/report/run.schema.json",
    "stack/prometheus/rules/servers.yml",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Files of this repository that the command reads and writes."""
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
def test_a_manual_change_is_found_by_the_check_and_replaced_by_the_command(
    checkout: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / name
    wanted = path.read_text()
    path.write_text(
        wanted.replace(
            next(
                said
                for said in ("99.5 % in", "99.5 %", "0.995", "0.005", "integer", "ServiceDown`", "native")
                if said in wanted
            ),
            "nothing",
            1,
        )
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
    assert "(objective 99.8 %)" in (checkout / WRITTEN[2]).read_text()
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
def test_wrong_input_is_reported_and_nothing_is_written(
    checkout: Path, name: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = (checkout / WRITTEN[0]).read_text()
    (checkout / name).write_text(text)

    assert main(["--root", str(checkout)]) == 2
    assert said in capsys.readouterr().err
    assert (checkout / WRITTEN[0]).read_text() == rules


def test_a_folder_that_is_no_checkout_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 2
    assert "slo.yaml" in capsys.readouterr().err


def test_it_is_a_command_of_llmchaos(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)

    assert llmchaos(["generate", "--check"]) == 0


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a foreign SLO file, and nothing of this project."""
    shutil.copy(ROOT / "examples" / "byo" / "slo.yaml", tmp_path / "slo.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SLO_TEXT = (ROOT / "examples" / "byo" / "slo.yaml").read_text()
OWN = ("--slo", "slo.yaml", "--out", "made")


class TestOwnSlos:
    def test_become_rules_tables_and_a_dashboard(self, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(OWN) == 0

        assert sorted(path.name for path in (own / "made").iterdir()) == [
            "slo-overview.json",
            "slo.md",
            "slo.rules.yml",
        ]
        assert "wrote slo.rules.yml" in capsys.readouterr().out
        groups = yaml.safe_load((own / "made" / "slo.rules.yml").read_text())["groups"]
        assert [group["name"] for group in groups] == ["slo-whole-answers"]
        alerts = [rule["alert"] for rule in groups[0]["rules"] if "alert" in rule]
        assert alerts[0] == "WholeAnswersFastBurn"
        assert "rate3600s" in (own / "made" / "slo.rules.yml").read_text()
        assert "| `whole-answers` | 99 % in 30 days |" in (own / "made" / "slo.md").read_text()
        asked = json.dumps(json.loads((own / "made" / "slo-overview.json").read_text()))
        assert "faq_answers_total" in asked
        assert "llmlab" not in asked
        assert "lab:" not in asked

    def test_become_rules_that_prometheus_takes(self, own: Path) -> None:
        assert main(OWN) == 0

        done = subprocess.run(
            [program("promtool"), "check", "rules", "made/slo.rules.yml"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("name", ["5xx-free", "1e3", "on", "0x1f", "null", "2026-11-28", "a--b"])
    def test_own_slos_may_have_any_name_of_rfc_1123(self, own: Path, name: str) -> None:
        (own / "slo.yaml").write_text(re.sub(r"  name: .*", f"  name: '{name}'", SLO_TEXT, count=1))

        assert main(OWN) == 0

        done = subprocess.run(
            [program("promtool"), "check", "rules", "made/slo.rules.yml"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (group,) = yaml.safe_load((own / "made" / "slo.rules.yml").read_text())["groups"]
        assert {rule["labels"]["slo"] for rule in group["rules"]} == {name}
        assert {rule["labels"]["signal"] for rule in group["rules"] if "alert" in rule} == {"slo"}

    def test_own_slos_have_names_and_descriptions_that_prometheus_prints_unchanged(self, own: Path) -> None:
        odd = "a {{ .Foo }} {{{ | b"
        text = re.sub(r"  name: .*", lambda _: f'  name: whole-answers\n  displayName: "{odd}"', SLO_TEXT, count=1)
        (own / "slo.yaml").write_text(re.sub(r"(?m)^  description: .*", lambda _: f'  description: "{odd}"', text))

        assert main(OWN) == 0

        done = subprocess.run(
            [program("promtool"), "check", "rules", "made/slo.rules.yml"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (group,) = yaml.safe_load((own / "made" / "slo.rules.yml").read_text())["groups"]
        (described,) = {rule["annotations"]["description"] for rule in group["rules"] if "alert" in rule}
        assert described.replace('{{ "{{" }}', "{{") == odd
        assert r"a {{ .Foo }} {{{ \| b |" in (own / "made" / "slo.md").read_text()

    def test_near_to_1_are_written_as_they_are(self, own: Path) -> None:
        (own / "slo.yaml").write_text(SLO_TEXT.replace("target: 0.99", "target: 0.9999999"))

        assert main(OWN) == 0
        assert "'vector(0.9999999)'" in (own / "made" / "slo.rules.yml").read_text()
        assert "| 99.99999 % in" in (own / "made" / "slo.md").read_text()
        assert "99.99999 %" in (own / "made" / "slo-overview.json").read_text()

    def test_own_slos_that_did_not_change_are_left_alone(self, own: Path) -> None:
        assert main(OWN) == 0
        before = {path: path.stat().st_mtime_ns for path in (own / "made").iterdir()}

        assert main(OWN) == 0
        assert main([*OWN, "--check"]) == 0
        assert {path: path.stat().st_mtime_ns for path in (own / "made").iterdir()} == before

    def test_own_slos_that_changed_are_listed_by_the_check_and_written_by_the_command(
        self, own: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(OWN) == 0
        (own / "slo.yaml").write_text((own / "slo.yaml").read_text().replace("target: 0.99", "target: 0.95"))

        assert main([*OWN, "--check"]) == 1
        assert "+        expr: 'vector(0.95)'" in capsys.readouterr().out
        assert "vector(0.99)" in (own / "made" / "slo.rules.yml").read_text()
        assert main(OWN) == 0
        assert "vector(0.95)" in (own / "made" / "slo.rules.yml").read_text()

    def test_own_slos_have_shorter_windows_for_short_experiments(self, own: Path) -> None:
        assert main([*OWN, "--scale", "240"]) == 0

        assert "rate15s" in (own / "made" / "slo.rules.yml").read_text()

    def test_own_slos_do_not_overwrite_what_was_not_generated(
        self, own: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (own / "made").mkdir()
        (own / "made" / "slo.md").write_text("# My own page\n")

        assert main(OWN) == 2
        assert "not generated by this command: made/slo.md: move it away or add --force" in capsys.readouterr().err
        assert [path.name for path in (own / "made").iterdir()] == ["slo.md"]
        assert main([*OWN, "--force"]) == 0
        assert "whole-answers" in (own / "made" / "slo.md").read_text()

    def test_need_no_grafana_sdk_for_rules(
        self, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delitem(sys.modules, "pytest_llmchaos.generate.grafana", raising=False)
        monkeypatch.delattr("pytest_llmchaos.generate.grafana", raising=False)
        monkeypatch.setitem(sys.modules, "grafana_foundation_sdk.builders", None)

        assert main(OWN) == 0
        assert "no dashboard: dashboards need grafana-foundation-sdk" in capsys.readouterr().out
        assert sorted(path.name for path in (own / "made").iterdir()) == ["slo.md", "slo.rules.yml"]

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (["--slo", "slo.yaml"], "--slo FILE and --out DIR belong together"),
            (["--out", "made"], "--slo FILE and --out DIR belong together"),
            (["--slo", "missing.yaml", "--out", "made"], "missing.yaml: must be a text file"),
            (["--slo", "bad.yaml", "--out", "made"], "bad.yaml:1:1: the document must have 'apiVersion'"),
            (
                ["--slo", "slo.yaml", "--out", "bad.yaml"],
                "bad.yaml must be a writable folder or one that can be created, but",
            ),
            (
                ["--slo", "slo.yaml", "--out", "bad.yaml/a/b"],
                "bad.yaml/a/b must be a writable folder .* bad.yaml is a file: give",
            ),
            (
                ["--slo", "slo.yaml", "--out", "dangling"],
                "dangling must be a writable folder .* dangling is a dangling symlink: ",
            ),
            (["--slo", "slo.yaml", "--out", "dangling/a"], "dangling is a dangling symlink: give another"),
            (
                ["--slo", "slo.yaml", "--out", "full"],
                "full/slo.md must be a writable file, but is a folder: move it away",
            ),
            (
                ["--slo", "slo.yaml", "--out", "full", "--force"],
                "full/slo.md must be a writable file, but is a folder: move it",
            ),
            (
                ["--slo", "slo.yaml", "--out", "linked", "--force"],
                "linked/slo.md must be a writable file, but is a dangling symlink",
            ),
            ([], "has no stack/slo.yaml: give --slo FILE and --out DIR"),
        ],
    )
    def test_own_slos_that_cannot_be_used_are_one_error(
        self, own: Path, args: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (own / "bad.yaml").write_text("kind: SLO\n")
        (own / "dangling").symlink_to("nowhere")
        (own / "full" / "slo.md").mkdir(parents=True)
        (own / "linked").mkdir()
        (own / "linked" / "slo.md").symlink_to("nowhere")
        before = sorted(own.rglob("*"))

        assert main(args) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("llmchaos generate: ")
        assert re.search(said, line), line
        assert "Errno" not in line or "must be a text file" in line
        assert sorted(own.rglob("*")) == before

    @pytest.mark.parametrize("duration", ["1h", "49h", "2d"])
    def test_own_slos_whose_window_is_too_short_for_any_alert_are_refused(
        self, own: Path, duration: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (own / "slo.yaml").write_text(SLO_TEXT.replace("duration: 30d", f"duration: {duration}"))

        assert main(OWN) == 2
        assert "timeWindow[0].duration must be at least 50h for burn alerts (or write " in capsys.readouterr().err
        assert not (own / "made").exists()

    def test_own_slos_of_a_short_window_without_alerts_have_no_alert(
        self, own: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = SLO_TEXT.replace("duration: 30d", "duration: 1h")
        quiet = '  name: whole-answers\n  annotations: {llmchaos/alerts: "false"}\n'
        (own / "slo.yaml").write_text(text.replace("  name: whole-answers\n", quiet, 1))

        assert main(OWN) == 0
        assert "too fast" not in capsys.readouterr().out
        for name in ("slo.rules.yml", "slo.md"):
            assert "too fast" not in (own / "made" / name).read_text()
            assert "No SLO has a burn alert." in (own / "made" / name).read_text()
        assert "| 99 % in 1 hours |" in (own / "made" / "slo.md").read_text()

    def test_own_slos_of_a_short_window_have_the_alerts_that_fit_with_their_own_factors(
        self, own: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (own / "slo.yaml").write_text(SLO_TEXT.replace("duration: 30d", "duration: 7d"))

        assert main(OWN) == 0
        (group,) = yaml.safe_load((own / "made" / "slo.rules.yml").read_text())["groups"]
        burns = {rule["alert"]: rule["labels"]["burn"] for rule in group["rules"] if "alert" in rule}
        assert burns == {"WholeAnswersFastBurn": "3.36", "WholeAnswersMediumBurn": "1.4"}
        said = capsys.readouterr().out
        rules, page = ((own / "made" / name).read_text() for name in ("slo.rules.yml", "slo.md"))
        for text in (said, rules):
            assert re.search(r"FastBurn[: ]+3.36 times too fast", text)
            assert re.search(r"MediumBurn[: ]+1.4 times too fast", text)
        assert "| 3.36 | page |" in page
        board = json.loads((own / "made" / "slo-overview.json").read_text())
        (burn,) = [panel for panel in board["panels"] if panel["title"].startswith("Burn rate")]
        assert burn["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == 3.36
        for text in (said, rules, page):
            assert "14.4" not in text
            assert "CreepingBurn" not in text

    def test_own_slos_of_different_windows_show_each_factor(
        self, own: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = SLO_TEXT.replace("duration: 30d", "duration: 7d").replace("name: whole-answers", "name: other")
        (own / "slo.yaml").write_text(f"{SLO_TEXT}---\n{other}")

        assert main(OWN) == 0
        assert "FastBurn: 14.4 or 3.36 times too fast over 3600s and 300s" in capsys.readouterr().out

    @pytest.mark.parametrize("option", ["--slo", "--out"])
    @pytest.mark.parametrize("path", ["", " "])
    def test_own_slos_have_paths_that_are_not_empty(
        self, own: Path, option: str, path: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            main([*OWN, option, path])
        assert f"{option}: must be a path, got {path!r}: write . for this folder" in capsys.readouterr().err
        assert [one.name for one in own.iterdir()] == ["slo.yaml"]

    @pytest.mark.parametrize("name", ["a\nb: c.yaml", "a --> b.yaml", "a --!> b.yaml", "a\udcffb.yaml"])
    def test_own_slos_may_be_in_a_file_of_any_name(self, own: Path, name: str) -> None:
        (own / "slo.yaml").rename(own / name)

        assert main(["--slo", name, "--out", "made"]) == 0

        for made in ("slo.rules.yml", "slo.md"):
            first = (own / "made" / made).read_text().splitlines()[0]
            assert "generate again." in first
            assert first.count(">") == (made == "slo.md")

    @pytest.mark.parametrize("scale", ["0.5", "nan", "inf", "x"])
    def test_own_slos_are_scaled_by_a_number_of_at_least_1(
        self, own: Path, scale: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            main([*OWN, "--scale", scale])
        assert f"--scale: must be a number of at least 1, got {scale!r}" in capsys.readouterr().err
