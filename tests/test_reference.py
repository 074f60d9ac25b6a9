"""The generated reference matches the code and covers every public name."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import pytest
from support.primitives import REQUIRED

import check_offline
import generate_reference
from generate_reference import FOLDER, differing, pages
from pytest_llmchaos import errors, faults, loads, options
from pytest_llmchaos.errors import Verdict
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.plan.experiment import experiment
from pytest_llmchaos.stats.windows import Window
from pytest_llmchaos.trial.trial import Trial
from reference_pages import claims, outcomes, settings
from reference_pages.docstrings import Source, members_of


@pytest.fixture(scope="module")
def made():
    return pages()


def headings(text):
    return re.findall(r"^#+ `?([^\n`]+)", text, re.MULTILINE)


def test_the_committed_pages_are_as_the_code_gives_them(made):
    assert [path.name for path in differing(made)] == []


def test_a_page_that_was_changed_by_hand_or_is_no_longer_made_is_found(tmp_path, made):
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "ini.md").write_text(made["ini.md"].replace("Default", "default"))
    (tmp_path / "gone.md").write_text("# Gone\n")

    assert differing(made, tmp_path) == {tmp_path / "ini.md": made["ini.md"], tmp_path / "gone.md": None}


def test_the_index_links_to_every_page(made):
    linked = re.findall(r"\]\(([\w-]+\.md)\)", made["index.md"])

    assert sorted(linked) == sorted(set(made) - {"index.md"})
    assert FOLDER == generate_reference.ROOT / "docs" / "reference"


ONE_FORM = sorted(set(faults.CATALOGUE) - {"gpu_exhaustion", "xid"})


@pytest.mark.parametrize("name", ONE_FORM)
def test_a_faults_docstring_has_its_lifetime_and_fidelity(name):
    text, fault = inspect.getdoc(getattr(faults, name)), getattr(faults, name)("model-1", **REQUIRED.get(name, {}))

    assert f"Fidelity: `{fault.fidelity}`" in text
    assert f"(`{fault.lifetime}`)" in text
    assert "Expected signal: " in text


@pytest.mark.parametrize("name", [row[0] for row in options.OPTIONS])
def test_every_option_has_an_entry(name, made):
    assert f"--chaos-{name}" in headings(made["options.md"])


@pytest.mark.parametrize("name", [row[0] for row in options.INI])
def test_every_ini_key_has_an_entry(name, made):
    assert name in headings(made["ini.md"])


@pytest.mark.parametrize("name", faults.__all__)
def test_every_fault_has_an_entry(name, made):
    assert name in headings(made["faults.md"])


@pytest.mark.parametrize("name", faults.__all__)
def test_every_argument_of_a_fault_is_described(name, made):
    assert undescribed(made["faults.md"], name) == []


@pytest.mark.parametrize("name", sorted(one for one in loads.__all__ if one not in {"Arrival", "Load"}))
def test_every_load_has_an_entry_that_describes_its_arguments(name, made):
    assert name in headings(made["loads.md"])
    assert undescribed(made["loads.md"], name) == []


def test_every_argument_of_an_experiment_is_described(made):
    for name in inspect.signature(experiment).parameters:
        assert re.search(rf"^- `{name}` \(.*\): ", made["experiment.md"], re.MULTILINE), name


def undescribed(text, heading):
    """Return the arguments of an entry that have a name and no description."""
    entry = text.partition(f"\n## `{heading}`\n")[2].partition("\n## ")[0]
    assert entry, heading
    listed = entry.partition("Arguments:\n\n")[2].partition("\n\n")[0]
    return [line for line in listed.splitlines() if re.fullmatch(r"- `\w+`( \(.*\))?", line)]


@pytest.mark.parametrize(("cls", "page"), [(Trial, "trial.md"), (Window, "windows.md"), (Lab, "lab.md")])
def test_every_value_of_a_trial_a_window_and_the_lab_has_an_entry(cls, page, made):
    hidden = {"how_to_claim", "note_reads"}
    public = {name for name in {*vars(cls), *getattr(cls, "__dataclass_fields__", ())} if name[0] != "_"} - hidden
    fields = set(re.findall(r"^- `(\w+)`", made[page], re.MULTILINE))

    assert public - fields - set(headings(made[page])) == set()


def test_every_member_of_a_described_class_has_an_entry(made):
    source = Source(claims.links())
    for page, (_, _, classes) in claims.CLASSES.items():
        for path, _ in classes:
            one = source.cls(path)
            public = {
                name for name, member in members_of(one).items() if "property" in member.labels or member.is_function
            }
            assert public - set(headings(made[page])) == set(), path


def test_every_verdict_has_an_entry(made):
    assert set(get_args(Verdict)) == set(outcomes.VERDICTS)
    assert set(get_args(Verdict)) <= set(headings(made["verdicts.md"]))


def test_every_error_has_an_entry(made):
    ours = {
        name for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, errors.LlmchaosError)
    }

    assert ours == set(headings(made["errors.md"])) - {"Errors"}


def test_a_docstring_of_an_error_names_its_verdict():
    told = {one: re.findall(r"Verdict: `(\w+)`", inspect.getdoc(one) or "") for one in outcomes.tree()}

    assert {one: verdict for one, verdict in told.items() if verdict and verdict != [errors.verdict_of(one(""))]} == {}
    assert told[errors.NoData] == ["inconclusive"]


def test_every_command_has_an_entry(made):
    assert "heal" in settings.commands()
    assert {f"llmchaos {name}" for name in settings.commands()} <= set(headings(made["commands.md"]))


def test_every_exporter_of_the_lab_has_entries(made):
    names = headings(made["metrics.md"])

    for prefix in ("llmchaos_client_", "llmchaos_fault_", "llmlab_", "gen_ai_", "vllm:", "DCGM_", "remediation_"):
        assert any(name.startswith(prefix) for name in names), prefix
    assert "ServiceDown" in names


def test_links_between_the_pages_have_their_anchors(made):
    anchors = {name: {slug(one) for one in headings(text)} for name, text in made.items()}
    lost = [
        (name, target, anchor)
        for name, text in made.items()
        for target, anchor in re.findall(r"\]\(([\w-]+\.md)?#([\w-]+)\)", text)
        if anchor not in anchors[target or name]
    ]

    assert lost == []


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    ("text", "suffix", "found"),
    [
        ('<link rel="stylesheet" href="https://fonts.example/x.css">', ".html", 1),
        ('<script src="//cdn.example/x.js"></script>', ".html", 1),
        ('<img alt="" src="http://img.example/x.png">', ".html", 1),
        ('<div style="background: url(https://img.example/x.png)">', ".html", 1),
        ("<style>@import 'https://fonts.example/x.css';</style>", ".html", 1),
        ("a { background: url('//img.example/x.png') }", ".css", 1),
        ('<a href="https://example.org">a page</a> <img src="_static/x.png">', ".html", 0),
        ("a { background: url(data:image/png;base64,AA) } /* https://example.org */", ".css", 0),
    ],
)
def test_what_a_page_loads_from_another_host_is_found(text, suffix, found):
    assert len(check_offline.remote_resources(text, suffix)) == found
