"""Sessions next to other plugins, with pytest's own options, in odd surroundings.

Each row is a session of its own process, with journal, report and JUnit file, on a
stack of values. The plugins of `tests/neighbours.in` load in no other test.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support import stub_stack

SUPPORT = Path(stub_stack.__file__).parent.parent
NEIGHBOURS = Path(sys.prefix) / "neighbours"  # see `make parts`
SEED = "--chaos-seed=7"
ISSUE = "https://example.org/issues/17"
CONFTEST = """
import sys, threading
from pathlib import Path
from support import stub_stack

def once(hung=[]):
    hung.append(1)
    if len(hung) == 1:
        threading.Event().wait(30)

stub_stack.install(Path(__file__).parent{hooks})
"""
SCENARIO = '''
"""It holds."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=2, max_tokens=8), fault=[faults.kill("model-*"), faults.kill("api")]
)

def test_one(trial):
    assert trial.time_to_detect_s <= 5

def test_late(trial):
    assert trial.time_to_detect_s <= 1

def test_blind(trial):
    assert trial.slo("gone").value > 0
'''
ONE_CLAIM = '''
"""It holds."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault=faults.kill("api"))

{claim}
'''
PERFORMED = ["one: kill model-* hits model-1", "one: kill api hits api"]
NAMES = [
    f"test_one.py::{name}[{fault}]"
    for name in ("test_one", "test_late", "test_blind")
    for fault in ("kill model-*", "kill api")
]
CLAIMS = {
    name: {"one": "passed", "late": "failed", "blind": "error"}[name.split("_")[2].split("[")[0]] for name in NAMES
}


@dataclass(frozen=True)
class Row:
    """One session: what is added to it, and what differs from the table's default."""

    plugins: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    ini: str = ""
    env: dict[str, str] = field(default_factory=dict)
    claims: dict[str, str] = field(default_factory=lambda: CLAIMS)
    umask: str = "022"
    folder: str = "suite"


# Without the second line pytest-asyncio warns, which is an error in one row.
ASYNCIO = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function"
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
EVERY = (
    "pytest_rerunfailures",
    "pytest_timeout",
    "pytest_asyncio.plugin",
    "pytest_cov.plugin",
    "pytest_sugar",
    "pytest_repeat",
)
ROWS = {
    "alone": Row(),
    "rerunfailures": Row(("pytest_rerunfailures",), ("--reruns=2",)),
    "rerunfailures forced": Row(("pytest_rerunfailures",), ("--force-reruns=2",)),
    "rerunfailures with two workers": Row(("pytest_rerunfailures", "xdist"), ("--reruns=2", "-n2")),
    "timeout": Row(("pytest_timeout",), ("--timeout=60",)),
    "asyncio": Row(("pytest_asyncio.plugin",), ini=ASYNCIO),
    "cov": Row(("pytest_cov.plugin",), ("--cov=.",)),
    "sugar": Row(("pytest_sugar",)),
    "repeat": Row(
        ("pytest_repeat",),
        ("--count=2",),
        claims={f"{name[:-1]}-{n}-2]": outcome for name, outcome in CLAIMS.items() for n in (1, 2)},
    ),
    "all plugins and two workers": Row((*EVERY, "xdist"), ("--reruns=2", "--timeout=60", "--cov=.", "-n2")),
    "importlib": Row(options=("--import-mode=importlib",)),
    "importlib with two workers": Row(("xdist",), ("--import-mode=importlib", "-n2")),
    "append": Row(options=("--import-mode=append",)),
    "a home that cannot be written": Row(env={"HOME": "/proc/none"}),
    "umask 077": Row(umask="077"),
    "LANG=C": Row(env=C_LOCALE),
    "a path with blanks and umlauts": Row(folder="mein Prüfstand ß"),
    "a path with umlauts under LANG=C": Row(folder="mein Prüfstand ß", env=C_LOCALE),
    "PYTHONWARNINGS=error": Row(env={"PYTHONWARNINGS": "error"}),
    "all at once": Row(
        EVERY,
        ("--reruns=2", "--import-mode=importlib"),
        ini=ASYNCIO,
        env={**C_LOCALE, "PYTHONWARNINGS": "error", "HOME": "/proc/none"},
        umask="077",
        folder="mein Prüfstand ß",
    ),
}


@dataclass(frozen=True)
class Session:
    """The files and the output of an ended session."""

    folder: Path
    status: int
    output: str

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def journal(self) -> list[dict]:
        paths = sorted(self.folder.glob("reports/2*/journal*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]

    def claims(self) -> list[tuple[str, str]]:
        return sorted((line["nodeid"], line["outcome"]) for line in self.journal() if line["kind"] == "claim")

    def trials(self) -> list[dict]:
        return json.loads((self.folder / "reports/latest/run.json").read_text(encoding="utf-8"))["trials"]


@pytest.fixture
def session(tmp_path):
    """Run pytest on one scenario, in a process of its own."""

    def run(row=ROWS["alone"], *options, hooks="", cwd=None, files=None):
        lacking = [name for name in row.plugins if name in EVERY and name != "pytest_timeout"]
        if lacking and not NEIGHBOURS.exists():
            pytest.skip(f"no {NEIGHBOURS}: run `make .venv/neighbours`")
        folder = tmp_path / row.folder
        folder.mkdir(exist_ok=True)
        (folder / "conftest.py").write_text(CONFTEST.format(hooks=hooks))
        (folder / "pytest.ini").write_text(f"[pytest]\nllmchaos_runtime = local\n{row.ini}\n")
        for name, text in (files or {"test_one.py": SCENARIO}).items():
            (folder / name).write_text(text)
        plugins = [part for name in ("pytest_llmchaos.plugin", *row.plugins) for part in ("-p", name)]
        code = [os.fspath(SUPPORT.parent), os.fspath(SUPPORT), os.fspath(NEIGHBOURS)]
        env = {
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(tmp_path),
            "COLUMNS": "200",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join(code),
            **row.env,
        }
        pytest_ = [sys.executable, "-m", "pytest", SEED, "--junitxml=junit.xml", *plugins, *row.options, *options]
        done = subprocess.run(
            ["sh", "-c", f'umask {row.umask}; exec "$@"', "sh", *pytest_],
            cwd=cwd or folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=60, check=False,
        )  # fmt: skip
        return Session(folder, done.returncode, done.stdout.decode("utf-8", "replace"))

    return run


def outcomes_in_junit(path):
    """The outcome of each test case."""
    kinds = {"failure": "failed", "error": "error", "skipped": "skipped"}
    found = []
    for case in ET.parse(path).iter("testcase"):
        outcome = next((kinds[child.tag] for child in case if child.tag in kinds), "passed")
        found.append((f"{case.get('classname')}.py::{case.get('name')}", outcome))
    return sorted(found)


def require_one_stack(ended):
    """Every stack that was started is gone."""
    counts = Counter(ended.lines("stack.txt"))
    assert counts["down"] >= counts["up"] == 1


@pytest.mark.sampled(share=0.15)
@pytest.mark.parametrize("name", ROWS)
def test_each_claim_has_one_outcome_and_each_trial_is_performed_once(session, name):
    row = ROWS[name]

    ended = session(row)

    assert ended.status == 1, ended.output
    assert ended.lines("performed.txt") == PERFORMED
    require_one_stack(ended)
    assert ended.claims() == sorted(row.claims.items())
    assert outcomes_in_junit(ended.folder / "junit.xml") == sorted(row.claims.items())
    assert [trial["verdict"] for trial in ended.trials()] == ["refuted", "refuted"]
    assert "2 of 2 refuted" in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["alone", "rerunfailures forced", "all plugins and two workers"])
def test_a_known_refutation_is_expected_and_fails_once_it_has_vanished(session, name):
    row = replace(ROWS[name], ini=f"{ROWS[name].ini}\nllmchaos_known = known.toml")
    listed = ["test_late", "test_one[kill api]", "test_blind[kill api]"]
    entries = [f'[[known]]\ntest = "test_one.py::{one}"\nissue = "{ISSUE}"\nwhy = "slow"\n' for one in listed]

    ended = session(row, files={"test_one.py": SCENARIO, "known.toml": "".join(entries)})

    assert ended.status == 1, ended.output
    require_one_stack(ended)
    late = {name: "skipped" for name in NAMES if "late" in name}
    vanished = "test_one.py::test_one[kill api]"
    assert outcomes_in_junit(ended.folder / "junit.xml") == sorted((CLAIMS | late | {vanished: "failed"}).items())
    assert ended.claims() == sorted(CLAIMS.items())
    assert {line["nodeid"] for line in ended.journal() if line.get("known")} == {*late, vanished}
    assert "2 of 2 refuted (2 known)" in ended.output


@pytest.mark.sampled(by="outcome")
@pytest.mark.parametrize(
    ("row", "claim"),
    [
        (
            Row(("pytest_asyncio.plugin",), ini=ASYNCIO),
            "async def test_it(trial):\n    assert trial.time_to_detect_s <= {}",
        ),
        (
            Row(),
            (
                "def test_it(trial, subtests):\n    with subtests.test():\n        assert trial.repaired_by\n"
                "    with subtests.test():\n        assert trial.time_to_detect_s <= {}"
            ),
        ),
    ],
    ids=["asyncio", "subtests"],
)
@pytest.mark.parametrize(("limit_s", "outcome"), [(5, "passed"), (1, "failed")])
def test_a_claim_in_another_form_is_judged_like_any_other(session, row, claim, limit_s, outcome):
    ended = session(row, files={"test_one.py": ONE_CLAIM.format(claim=claim.format(limit_s))})

    assert ended.status == (outcome == "failed"), ended.output
    assert ended.claims() == [("test_one.py::test_it", outcome)]
    assert [trial["verdict"] for trial in ended.trials()] == [{"passed": "held", "failed": "refuted"}[outcome]]
    require_one_stack(ended)


def test_neither_folder_nor_import_mode_changes_ids_or_what_the_seed_draws(session, tmp_path):
    here = session()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    there = session(ROWS["importlib"], f"--junitxml={here.folder}/junit.xml", os.fspath(here.folder), cwd=elsewhere)

    assert there.status == 1, there.output
    assert there.lines("performed.txt") == PERFORMED * 2
    schedules = [line["schedule"] for line in there.journal() if line["kind"] == "run"]
    assert schedules[0] == schedules[1]
    assert set(Counter(there.claims()).values()) == {2}
    assert list(elsewhere.iterdir()) == []


@pytest.mark.sampled
@pytest.mark.parametrize("option", ["-x", "--maxfail=1", "--sw"])
def test_a_stop_at_the_first_failure_removes_the_stack_and_reports_what_was_not_judged(session, option):
    ended = session(ROWS["alone"], option)

    require_one_stack(ended)
    trial = ended.trials()[0]
    assert trial["verdict"] == "refuted"
    assert [line["kind"] for line in ended.journal()][-2:] == ["stack_down", "run_end"]
    assert len(ended.claims()) == len(set(ended.claims())) == 6
    assert ended.claims().count((NAMES[4], "skipped")) == 1
    assert "1 of 2 refuted, 1 proves nothing" in ended.output


def test_the_next_session_with_lf_or_sw_performs_the_trial_of_that_claim_again(session):
    session(ROWS["alone"], "-x")

    for option in ("--lf", "--sw"):
        again = session(ROWS["alone"], option, "-k", "late and model")

        assert again.status != 0, again.output
        assert again.trials()[0]["claims"][0]["nodeid"] == NAMES[2]
        assert again.lines("performed.txt")[-1] == PERFORMED[0]
    assert Counter(again.lines("stack.txt")) == {"up": 3, "down": 3}


def test_a_collection_starts_nothing_and_leaves_no_folder(session):
    ended = session(ROWS["alone"], "--co", "-q")

    assert ended.status == 0, ended.output
    assert all(name in ended.output for name in NAMES)
    assert ended.lines("stack.txt") == []
    assert not (ended.folder / "reports").exists()


CUT = Row(("pytest_timeout", "pytest_rerunfailures"), ("--timeout=0.5", "--timeout-method=signal", "--reruns=2"))


def test_a_time_limit_during_the_start_ends_one_claim_and_the_next_one_starts_the_stack_again(session):
    ended = session(CUT, hooks=", starting=once")

    assert sorted(ended.lines("performed.txt")) == sorted(PERFORMED)
    assert ended.lines("stack.txt").count("up") == 2
    assert ended.lines("stack.txt")[-1] == "down"
    assert ended.claims() == sorted((CLAIMS | {NAMES[0]: "error"}).items())
    # Below the test, and in the summary.
    assert ended.output.count("Timeout (>0.5s) from pytest-timeout") == 2, ended.output
    assert "the stack was starting; the next test starts it again" in ended.output


def test_a_time_limit_in_a_trial_makes_its_claims_errors_with_one_reason(session):
    """They get no second trial. The next trial is performed."""
    ended = session(CUT, hooks=", acting=once")

    assert ended.lines("performed.txt") == PERFORMED
    require_one_stack(ended)
    of_the_trial = {name: "error" for name in NAMES if "model" in name}
    assert ended.claims() == sorted((CLAIMS | of_the_trial).items())
    cut_off, whole = ended.trials()
    assert (cut_off["verdict"], whole["verdict"]) == ("invalid", "refuted")
    assert (
        cut_off["reason"]
        == "Failed: Timeout (>0.5s) from pytest-timeout; trial 001 was interrupted before its steady phase"
    )
    others = f"the trial was interrupted during another of its claims: {cut_off['reason']}"
    assert [claim["message"] for claim in cut_off["claims"]] == [
        "Timeout (>0.5s) from pytest-timeout.",
        others,
        others,
    ]
