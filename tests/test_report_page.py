"""report.html: one offline file, complete without JavaScript."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support import reportdata
from support.hostile_run import HOSTILE, poisoned
from support.reportdata import Made

from pytest_llmchaos import report


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in {"script", "style"} else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(page: Path | str) -> Elements:
    parser = Elements()
    parser.feed(page if isinstance(page, str) else page.read_text(encoding="utf-8"))
    parser.close()
    return parser


def built(tmp_path: Path, *trials: Made, **options: Any) -> Elements:
    return read(report.build(reportdata.run_dir(tmp_path, trials, **options)))


def test_what_the_faults_were_and_did_is_under_the_name_of_the_trial(tmp_path: Path) -> None:
    counts = {"counters": {"met": 27, "hit": 7}, "unit": "requests", "first_hit_after_s": 1.2}
    flaky = Made(fault="flaky model-1", victim="model-1", strength={"status": 503, "share": 0.3}, counts=[counts])

    page = built(tmp_path, flaky)

    said = "flaky(status=503, share=0.3) on model-1: hit 7 of 27 requests, the first after 1.2 s"
    assert page.text.count(said) == 2, "among the verdicts and at the head of the trial"
    assert f"flaky model-1 · real {said}" in page.text
    old = built(tmp_path / "old", Made())
    assert not [tag for tag, attributes in old.elements if "done" in str(attributes.get("class")).split()]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda text: ascii(text[:24]))
def test_hostile_text_stays_text(tmp_path: Path, hostile: str) -> None:
    clean = read(report.build(reportdata.run_dir(tmp_path / "clean", [Made()])))
    run_dir = poisoned(tmp_path / "poisoned", hostile)

    page = read(report.build(run_dir))

    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in clean.elements} | {"ul", "li", "pre", "table"}
    assert sum(tag == "script" for tag, _ in page.elements) == 3
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in {"src", "style", "srcdoc", "action"}]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert all(re.fullmatch(r"#[a-z]+(-\d+)?", str(link)) for link in links)
    shown = (run_dir / "report.html").read_text(encoding="utf-8")
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]", shown
    )
    run = report.read_run(run_dir / "run.json")
    assert run.unreadable == ()
    for line in report.summary_lines(run):
        assert line.isprintable()


def test_data_for_the_charts_cannot_end_its_script(tmp_path: Path) -> None:
    run_dir = poisoned(tmp_path, "</script><script>document.title='pwned'</script><!--")

    page = report.build(run_dir).read_text()

    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data
    assert len(json.loads(data[1])) == 2
    assert "<" not in data[1]


def test_the_page_fetches_nothing_and_runs_only_its_own_scripts(tmp_path: Path) -> None:
    page = built(tmp_path, *reportdata.gallery())

    text = (tmp_path / "20261123-160501-42" / "report.html").read_text()
    assert {tag for tag, _ in page.elements}.isdisjoint(
        {"link", "img", "iframe", "object", "embed", "base", "form", "video"}
    )
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) == {
        "https://github.com/leeoniya/uPlot"
    }  # in its licence banner
    assert "url(" not in text
    assert "@import" not in text
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_every_id_that_is_referred_to_exists_once(tmp_path: Path) -> None:
    page = built(tmp_path, *reportdata.gallery())

    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    wanted = {str(a["href"])[1:] for tag, a in page.elements if tag == "a"}
    wanted |= {str(a["aria-labelledby"]) for _, a in page.elements if "aria-labelledby" in a}
    assert len(ids) == len(set(ids))
    assert wanted <= set(ids)


def test_every_table_has_a_caption_and_scoped_headings(tmp_path: Path) -> None:
    page = built(tmp_path, *reportdata.gallery())

    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 10
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.elements if tag == "th")


def test_every_drawing_has_words_or_is_hidden_from_those_who_read_by_ear(tmp_path: Path) -> None:
    page = built(tmp_path, Made())

    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    told = [attributes["aria-label"] for attributes in drawings if attributes.get("role") == "img"]
    story = "kill api at 8.03 s; detected +1.9 s · alert AvailabilityFastBurn; recovered +4.2 s · remediator; revert proved."
    assert told == [f"Timeline of kill_api, fault kill api; {story}"]
    assert all("aria-label" in drawing or drawing.get("aria-hidden") == "true" for drawing in drawings)


@pytest.mark.parametrize(
    ("trials", "headline"),
    [
        pytest.param([], "No experiment was performed", id="nothing"),
        pytest.param([Made()], "The experiment held", id="one held"),
        pytest.param([Made(), Made(repeat=1)], "All 2 experiments held", id="all held"),
        pytest.param([Made(verdict="invalid", reason="x")], "1 of 1 proves nothing", id="nothing proved"),
        pytest.param(
            [Made(), Made(verdict="refuted", reason="x", repeat=1), Made(verdict="inconclusive", reason="y", repeat=2)],
            "1 of 3 refuted, 1 inconclusive, 1 held",
            id="what did not hold comes first",
        ),
    ],
)
def test_the_headline_is_the_verdict(tmp_path: Path, trials: list[Made], headline: str) -> None:
    page = built(tmp_path, *trials)

    assert headline in page.text


def test_services_as_processes_are_named_with_the_runtime_and_the_fidelity(tmp_path: Path) -> None:
    text = built(tmp_path, Made(), ran_as="process, not container").text

    assert "runtime compose · process, not container" in text
    assert "fidelity real a real part failed, by the runtime's own means; process, not container" in text


def test_reason_evidence_and_repeat_line_stand_on_the_page(tmp_path: Path) -> None:
    page = built(tmp_path, *reportdata.gallery())

    for words in (
        "LoadNotHeld: p99 lateness must be <= 0.05 s, was 0.113 s",
        "runtime event die exitCode=137",
        'sum(llmchaos_client_requests_total{outcome="ok"})',
        "good at the window's end",
        "remediator restart api",
        "ended 3 streams without finish_reason",
        "pytest scenarios/test_kill_api.py --chaos-seed=42",
        "8 requests/s offered, 100 % of the schedule sent, p99 lateness 0.0042 s, generator CPU 12 %",
        "a real part failed",
        "llmchaos/ollama:5b1e6cc2a9d0",
        "log: logs/api.txt",
    ):
        assert re.sub(r"\W+", " ", words) in re.sub(r"\W+", " ", page.text)


def test_a_service_level_that_clients_cannot_judge_is_by_prometheus_alone(tmp_path: Path) -> None:
    folder = reportdata.run_dir(tmp_path, [Made()])
    journal = folder / "journal.jsonl"
    assert "Prometheus only" not in read(report.build(folder)).text

    lines = journal.read_text().replace('"name": "ttft-p95",', '"name": "ttft-p95", "second_truth": "none",')
    journal.write_text(lines)

    assert read(report.build(folder)).text.count("Prometheus only") == 1


def test_every_failed_claim_has_its_reason_in_the_row_of_its_trial(tmp_path: Path) -> None:
    claims = [
        ("test_first", "failed", "assert 3 == 0"),
        ("test_then", "error", "NoData: none"),
        ("test_last", "passed", None),
    ]
    folder = reportdata.run_dir(tmp_path, [Made(claims=claims)])
    html = report.build(folder).read_text()

    (row,) = re.findall(r'<tr class="because">.*?</tr>', html, re.DOTALL)
    assert "assert 3 == 0" in row
    assert "then: NoData: none" in row
    assert "last" not in row


def test_cells_have_the_names_of_their_columns_for_narrow_screens(tmp_path: Path) -> None:
    html = report.build(reportdata.run_dir(tmp_path, reportdata.gallery())).read_text()
    matrix = html.partition('class="matrix"')[2].partition("</table>")[0]

    (row, *_) = re.findall(r"<tr>.*?</tr>", matrix.partition("</thead>")[2], re.DOTALL)
    assert re.findall(r'data-h="([^"]*)"', row) == [
        "verdict",
        "clients",
        "claims",
        "detected",
        "recovered",
        "budget spent",
    ]
    assert re.findall(r'<td class="n" data-h="(at, s|since fault, s)">', html)
    assert "data-h" not in html.partition("<script")[2]


def test_times_give_n_and_spread_and_leave_out_what_proves_nothing(tmp_path: Path) -> None:
    times = [Made(repeat=i, recover_s=value) for i, value in enumerate((4.0, 5.0, 9.0))]
    page = built(tmp_path, *times, Made(repeat=3, recover_s=99.0, verdict="invalid", reason="late"))

    assert "MTTR 3 6 s 5 s 4 \u2013 9 s 2.65 s" in page.text


def test_the_page_lists_what_was_not_exercised(tmp_path: Path) -> None:
    page = built(tmp_path, Made())

    (others,) = [(tag, about) for tag, about in page.elements if about.get("class") == "others"]

    assert page.text.count("NOT EXERCISED") == 4 - 1  # the other targets of the exercised fault
    assert others == ("details", {"class": "others"})  # folded, without a script
    assert (
        "5 faults not exercised On none of api, model-1, model-2, prometheus: crash restart pause partition limit_cpu"
        in page.text
    )


def test_a_run_that_exercised_every_fault_has_nothing_to_fold(tmp_path: Path) -> None:
    page = built(
        tmp_path,
        *(Made(fault=f"{kind} api") for kind in ("kill", "crash", "restart", "pause", "partition", "limit_cpu")),
    )

    assert page.text.count("NOT EXERCISED") == 6 * (4 - 1)
    assert "not exercised" not in page.text


def test_a_control_arm_covers_nothing(tmp_path: Path) -> None:
    page = built(tmp_path, Made(remediator=False), Made(fault="none", victim="", outage_s=0))

    assert "6 faults not exercised" in page.text
    assert "Verdicts by fault and service" not in page.text
    assert "Control arms: kill api without the remediator ✓ held without a fault ✓ held" in page.text


def test_a_simulated_engine_is_watermarked_on_the_page_and_in_every_drawing(tmp_path: Path) -> None:
    simulated = built(tmp_path / "sim", Made(), Made(repeat=1), backend="sim").text
    real = built(tmp_path / "real", Made(), backend="ollama").text

    assert simulated.count("simulated engine") == 2
    assert "Simulated engine. A program that imitates an engine" in simulated
    assert "imulated engine" not in real


def test_a_killed_run_is_marked_as_killed(tmp_path: Path) -> None:
    page = built(tmp_path, Made(), Made(repeat=1, judged=False), ended=False)

    assert "The run was cut off." in page.text
    assert "the run ended before this trial was judged" in page.text
    assert "NOT DONE according to the journal" in page.text
    assert re.search(r"fault\s+8\.000\s+did not end\s+\W\s+\d+", page.text)
    assert page.text.count("requests still open are unknown") == 1


def test_a_run_that_was_killed_while_all_was_well_claims_no_full_answers(tmp_path: Path) -> None:
    page = built(tmp_path, Made(judged=False, outage_s=0), ended=False)

    assert "all answered in full" not in page.text
    assert "all that ended were answered in full, requests still open are unknown" in page.text


def test_vendored_files_match_their_note() -> None:
    vendor = Path(report.__file__).with_name("vendor")
    noted = dict(re.findall(r"\| (uPlot\S+) \| ([0-9a-f]{64}) \|", (vendor / "README.md").read_text()))

    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in vendor.glob("uPlot*")}
    assert found == noted
    assert "Permission is hereby granted" in (vendor / "LICENSE").read_text()


def test_a_recovery_shows_how_exactly_it_was_seen_and_a_relapse_when(tmp_path: Path) -> None:
    page = built(tmp_path, Made(recover_s=9.0, extra={"recovery_resolution_s": 0.5, "relapsed_s": 6.0}))

    assert "repaired by remediator, to within 0.5 s" in page.text
    assert "relapsed after 6 s" in page.text


def test_a_signal_that_is_no_detection_is_shown_with_the_reason(tmp_path: Path) -> None:
    other = {"what": "alert GpuHot", "after_s": 1.5, "service": "model-2", "why": "model-2 was not hit"}
    page = built(tmp_path, Made(extra={"coincident": [other]}))

    assert "No detection: alert GpuHot after 1.5 s is coincident: model-2 was not hit." in page.text
