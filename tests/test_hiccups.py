"""The retries of trials on a busy machine."""

import pytest
from support import hiccups

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
