"""report.html in a real browser: scripts, policy and hostile text."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import reportdata
from support.hostile_run import HOSTILE, poisoned
from support.reportdata import Made

from pytest_llmchaos import report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: apt-get install chromium")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
)


@dataclass(frozen=True)
class Seen:
    """A page after its scripts ran, and the browser's console errors."""

    dom: str
    console: tuple[str, ...]


def seen(page: Path, home: Path, *more: str) -> Seen:
    """Open the page in a browser of its own, which always ends afterwards."""
    command = [str(CHROMIUM), *FLAGS, *more, f"--user-data-dir={home / 'profile'}", "--dump-dom", page.as_uri()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True, errors="replace"
    ) as browser:
        try:
            dom, errors = browser.communicate(timeout=60)
        finally:
            if browser.poll() is None:
                os.killpg(browser.pid, signal.SIGKILL)
    return Seen(
        dom=dom,
        console=tuple(re.findall(r":CONSOLE\(?\d*\)?\] (.*)", errors) + re.findall(r"CONSOLE:\d+\] (.*)", errors)),
    )


def test_the_scripts_run_under_the_pages_own_policy_and_complain_of_nothing(tmp_path: Path) -> None:
    page = report.build(reportdata.run_dir(tmp_path, reportdata.gallery()))

    shown = seen(page, tmp_path)

    assert shown.console == ()
    assert shown.dom.count('aria-pressed="false">Explore') == len(reportdata.gallery())


def test_hostile_text_runs_nothing(tmp_path: Path) -> None:
    short = [text for text in HOSTILE if len(text) < 1000]
    page = report.build(poisoned(tmp_path, " ".join(short)))

    shown = seen(page, tmp_path)

    title = re.search(r"<title>(.*?)</title>", shown.dom)
    assert title is not None
    assert title[1].startswith("2 of 2 refuted (1 known)")
    assert shown.console == ()
    assert shown.dom.count('aria-pressed="false">Explore') == 2


def test_a_policy_violation_would_have_been_seen(tmp_path: Path) -> None:
    """The control arm: the same browser reports a script that the policy forbids."""
    page = report.build(reportdata.run_dir(tmp_path, [Made(rate_rps=1)]))
    page.write_text(page.read_text().replace("</body>", "<script>document.title = 'pwned'</script></body>"))

    shown = seen(page, tmp_path)

    assert any("Content Security Policy" in line for line in shown.console)
    assert "<title>The experiment held" in shown.dom


def test_exploring_shows_four_charts_that_hold_the_same_numbers(tmp_path: Path) -> None:
    page = report.build(reportdata.run_dir(tmp_path, [Made()]))
    click = "<script>document.querySelector('.explore button').click()</script></body>"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    page.write_text(text.replace("</body>", click))

    shown = seen(page, tmp_path)

    assert shown.console == ()
    assert shown.dom.count("<canvas") == 4
    assert 'aria-pressed="true"' in shown.dom


def test_on_a_narrow_screen_nothing_but_a_drawing_scrolls_sideways(tmp_path: Path) -> None:
    """In a frame, because a headless Chromium opens no window as narrow as that."""
    page = report.build(reportdata.run_dir(tmp_path, reportdata.gallery()))
    look = """<iframe src="{name}" width="360" height="700"></iframe><script>
    onload = () => {{
      const page = document.querySelector("iframe").contentDocument
      page.querySelectorAll("details").forEach(one => one.open = true)
      const wide = [...page.querySelectorAll(".wide:not(.drawing)")].filter(one => one.scrollWidth > one.clientWidth)
      document.title = [page.documentElement.scrollWidth, wide.length, page.querySelectorAll("table").length].join(" ")
    }}</script>"""
    frame = page.with_name("frame.html")
    frame.write_text(look.format(name=page.name))

    shown = seen(frame, tmp_path, "--allow-file-access-from-files")

    title = re.search(r"<title>(\d+) (\d+) (\d+)</title>", shown.dom)
    assert title is not None, shown
    width, wide, tables = map(int, title.groups())
    assert (width <= 360, wide, tables > 10) == (True, 0, True)
