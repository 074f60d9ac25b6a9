"""Report files of a run directory: tolerated and refused input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence import latest
from pytest_llmchaos.report import builder


def test_three_files_and_nothing_else(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    before = {path.name for path in run_dir.iterdir()}

    page = report.build(run_dir)

    assert page == run_dir / "report.html"
    assert {path.name for path in run_dir.iterdir()} - before == {"report.html", "run.json", "summary.md"}


def test_building_the_report_of_an_earlier_run_does_not_make_it_the_newest(tmp_path: Path) -> None:
    first = reportdata.run_dir(tmp_path, [Made()], seed=1)
    second = reportdata.run_dir(tmp_path, [Made()], seed=2)
    latest.point_to(second)

    report.build(first)

    assert (tmp_path / "latest").resolve() == second


def test_building_through_the_link_builds_the_run_it_points_to(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    latest.point_to(run_dir)

    assert report.build(tmp_path / "latest") == run_dir / "report.html"
    assert (tmp_path / "latest").readlink() == Path(run_dir.name)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, reportdata.gallery())
    names = ("report.html", "run.json", "summary.md")

    report.build(run_dir)
    first = [(run_dir / name).read_bytes() for name in names]
    report.build(run_dir)

    assert [(run_dir / name).read_bytes() for name in names] == first


def test_a_failed_write_leaves_the_former_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    report.build(run_dir)
    former = (run_dir / "report.html").read_bytes()

    def full(self: Path, text: str, **options: object) -> int:
        self.write_bytes(text[:10].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        report.build(run_dir)

    assert (run_dir / "report.html").read_bytes() == former
    assert not [path for path in run_dir.iterdir() if path.name.startswith(".")]


def test_a_torn_last_line_is_counted_and_tolerated(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    with (run_dir / "journal.jsonl").open("ab") as file:
        file.write(b'{"at_unix_s": 17954499\xff')

    page = report.build(run_dir)

    run = json.loads((run_dir / "run.json").read_text())
    assert (run["unreadable_lines"], run["counts"]["held"]) == (1, 1)
    assert "1 journal line could not be read" in page.read_text()


@pytest.mark.parametrize("present", [False, True], ids=["no directory", "an empty directory"])
def test_without_a_journal_the_message_names_the_place_and_the_way_out(tmp_path: Path, present: bool) -> None:
    place = tmp_path / "reports"
    if present:
        place.mkdir()

    with pytest.raises(NotReady, match=r"expected journal\.jsonl in .*reports, found .*reports/latest"):
        report.build(place)


def test_a_trial_without_samples_still_has_its_verdict_and_timeline(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    (run_dir / "trials" / "001" / "samples.jsonl").unlink()

    page = report.build(run_dir).read_text()

    assert "detected +1.9 s" in page
    assert json.loads((run_dir / "run.json").read_text())["trials"][0]["verdict"] == "held"


def test_samples_that_cannot_be_read_are_a_finding_and_no_crash(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    path = run_dir / "trials" / "001" / "samples.jsonl"
    path.write_text(path.read_text().replace('"ok"', '"splendid"', 1))

    report.build(run_dir)

    (finding,) = json.loads((run_dir / "run.json").read_text())["trials"][0]["findings"]
    assert finding.startswith("the charts lack samples: trials/001/samples.jsonl, line 2: expected due_s, sent_s")


@pytest.mark.parametrize("odd", ["[-1e12,0,0,1", "[1e308,0,0,1e308", "[0,-1e12,0,1", "[0,0,1e308,1", "[NaN,0,0,1"])
def test_a_sample_at_a_time_that_cannot_be_is_a_finding_and_no_crash(tmp_path: Path, odd: str) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    with (run_dir / "trials" / "001" / "samples.jsonl").open("a") as file:
        file.write(f'{odd},0,1,"ok","model-1","ab12-0"]\n')

    report.build(run_dir)

    (finding,) = json.loads((run_dir / "run.json").read_text())["trials"][0]["findings"]
    assert finding.startswith("the charts lack samples: trials/001/samples.jsonl, line")


def test_samples_outside_the_run_are_not_read(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    secret = tmp_path / "samples.jsonl"
    (run_dir / "trials" / "001" / "samples.jsonl").rename(secret)
    journal = run_dir / "journal.jsonl"
    journal.write_text(journal.read_text().replace("trials/001/samples.jsonl", "../samples.jsonl"))

    page = report.build(run_dir).read_text()

    assert "not answered in full" not in page
    assert json.loads((run_dir / "run.json").read_text())["trials"][0]["findings"] == []


def test_a_trial_at_once_too_long_and_too_wordy_keeps_the_page_below_its_limit(tmp_path: Path) -> None:
    wordy = [
        Made(repeat=i, rate_rps=2, reason="x" * 20_000, verdict="refuted", findings=["y" * 3_000] * 50)
        for i in range(40)
    ]
    run_dir = reportdata.run_dir(tmp_path, wordy)

    page = report.build(run_dir)

    assert page.stat().st_size <= 1_000_000
    assert "To stay below 1 MB, this page shows fewer points" in page.read_text()
    assert len(json.loads((run_dir / "run.json").read_text())["trials"][0]["reason"]) == 20_000


def test_a_control_character_in_a_path_of_samples_is_no_crash(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    journal = run_dir / "journal.jsonl"
    journal.write_text(journal.read_text().replace("trials/001/samples.jsonl", "trials/\\u0000/samples.jsonl"))

    assert report.build(run_dir).exists()


def test_logs_are_shown_by_their_end(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])
    (run_dir / "logs" / "api.txt").write_text("".join(f"line {i}\n" for i in range(100_000)))

    page = report.build(run_dir).read_text()

    assert "line 99999" in page
    assert "line 10\n" not in page
    assert builder.logs(run_dir)["logs/api.txt"].endswith("line 99999\n")
