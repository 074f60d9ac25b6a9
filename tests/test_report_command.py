"""Errors of `llmchaos report`, which keep the former report."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.cli import main
from pytest_llmchaos.errors import NotReady

WRITTEN = ("run.json", "report.html", "summary.md")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    found = reportdata.run_dir(tmp_path, [Made()])
    report.build(found)
    return found


def contents(run_dir: Path) -> list[bytes]:
    return [(run_dir / name).read_bytes() for name in WRITTEN if (run_dir / name).is_file()]


@pytest.mark.parametrize(
    ("journal", "seen"),
    [
        (b"", "found no lines: restore .* No report was written"),
        (b"\n\n", "found no lines: "),
        (
            bytes(range(256)) * 20,
            r"found no lines and \d+ unreadable lines, the first of them in journal.jsonl, line 1 \(",
        ),
        (b'{"at_unix_s": 1.0, "kind": "run_end", "exit_status": 0}\n', "found 1 line of other kinds: "),
        (b'{"at_unix_s": 1.0, "kind": "r', "1 unreadable line, the first of them in .*cut off"),
    ],
    ids=["empty", "blank lines", "other bytes", "no run in it", "torn"],
)
def test_a_journal_without_a_run_is_one_error_and_the_report_stays(
    run_dir: Path, journal: bytes, seen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run_dir)
    (run_dir / "journal.jsonl").write_bytes(journal)

    status = main(["report", str(run_dir)])

    said = capsys.readouterr()
    assert (status, said.out, said.err.count("\n")) == (1, "", 1)
    with pytest.raises(NotReady, match=seen):
        report.build(run_dir)
    assert said.err.startswith("llmchaos: the journal in ")
    assert contents(run_dir) == before


def test_the_number_of_unreadable_lines_is_printed(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run_dir / "journal.jsonl").open("a") as file:
        file.write("odd\nodd\n")

    status = main(["report", str(run_dir)])

    said = capsys.readouterr()
    assert (status, said.out) == (0, f"{run_dir / 'report.html'}\n")
    assert said.err.startswith("llmchaos: 2 journal lines could not be read; ")


@pytest.mark.parametrize("name", ["journal.jsonl", *WRITTEN])
def test_a_folder_in_the_place_of_a_file_is_one_error(
    run_dir: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / name).unlink()
    (run_dir / name).mkdir()
    before = contents(run_dir)

    status = main(["report", str(run_dir)])

    said = capsys.readouterr()
    assert (status, said.out, said.err.count("\n")) == (1, "", 1)
    assert f"{run_dir / name}" in said.err
    assert "folder" in said.err
    assert contents(run_dir) == before


def test_what_the_file_system_refuses_is_one_error(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, os.strerror(13), str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", refuse)

    status = main(["report", str(run_dir)])

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert f"{run_dir / 'run.json'}: Permission denied; fix that" in said


def test_a_folder_among_the_logs_is_passed_over(run_dir: Path) -> None:
    (run_dir / "logs" / "old.txt").mkdir()

    assert main(["report", str(run_dir)]) == 0
