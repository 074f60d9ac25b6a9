"""The retries of trials on a busy machine."""

import pytest
from support import hiccups, sessions

from pytest_llmchaos.errors import LoadNotHeld, NotSteady, PartialScrape, StaleData, TruthsDisagree
from pytest_llmchaos.trial.perform import Performed


@pytest.fixture
def ends_with(monkeypatch):
    """Let trials end with these errors in turn, and return how many are left."""

    def made(*errors):
        left = list(errors)
        monkeypatch.setattr(hiccups, "perform", lambda lab, plan: Performed(error=left.pop(0)))
        return left

    return made


@pytest.mark.parametrize("error", [NotSteady("it was never steady"), StaleData("old"), TruthsDisagree("odd")])
def test_an_error_that_is_not_about_the_machine_is_not_retried(ends_with, error):
    left = ends_with(error, LoadNotHeld("late"))

    with pytest.raises(type(error)):
        hiccups.perform_measured(None, None)
    assert len(left) == 1


def test_a_trial_that_the_machine_disturbed_is_performed_again_with_a_warning(ends_with, capsys):
    ends_with(PartialScrape("4 of 50 scrapes failed"), LoadNotHeld("late"), NotSteady("it was never steady"))

    with pytest.raises(NotSteady):
        hiccups.perform_measured(None, None)
    assert "performed again: PartialScrape: 4 of 50 scrapes failed\n" in capsys.readouterr().err


def test_a_machine_that_is_always_too_busy_is_an_error(ends_with):
    left = ends_with(*[LoadNotHeld("late")] * 4)

    with pytest.raises(LoadNotHeld):
        hiccups.perform_measured(None, None)
    assert len(left) == 1


def test_an_act_that_the_machine_disturbed_is_repeated_and_a_failed_one_is_not():
    ends = [LoadNotHeld("late"), AssertionError("no window"), "unread"]

    def act():
        raise ends.pop(0)

    with pytest.raises(AssertionError, match="no window"):
        hiccups.act_measured(act)
    assert ends == ["unread"]


HELD = "✓ held         web: pause web    detected 0.5 s, settled 1.2 s"
LATE = "∅ invalid      web: pause web    - LoadNotHeld: the load ran late: p99 0.0525 s, expected at most 0.05 s"
NO_VICTIM = "∅ invalid      web: pause web    - NoVictim: nothing to hit"


@pytest.mark.parametrize(
    ("outputs", "last"),
    [
        ([HELD], HELD),
        ([LATE, HELD], HELD),
        ([LATE.replace("LoadNotHeld", "PartialScrape"), NO_VICTIM], NO_VICTIM),
        ([NO_VICTIM], NO_VICTIM),
        ([LATE, LATE, LATE], LATE),
    ],
)
def test_a_session_that_the_machine_disturbed_runs_again(outputs, last, capsys):
    left = [f"llmchaos: a session\n{one}\n1 of 1\n" for one in outputs]

    assert last in hiccups.run_measured(lambda: left.pop(0), output_of=str)
    assert left == []
    assert capsys.readouterr().err.count("run again: ∅ invalid") == len(outputs) - 1


def test_the_evidence_of_a_disturbed_session_is_removed(tmp_path):
    (tmp_path / "earlier").mkdir()
    outputs = [LATE, HELD]

    def run():
        (tmp_path / f"run {len(outputs)}").mkdir()
        (tmp_path / f"line {len(outputs)}").touch()
        return outputs.pop(0)

    assert sessions.measured(tmp_path, run, output_of=str) == HELD
    assert {path.name for path in tmp_path.iterdir()} == {"earlier", "run 1", "line 1"}
