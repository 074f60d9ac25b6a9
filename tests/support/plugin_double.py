"""A scenario, and a double that performs its trials."""

from __future__ import annotations

from dataclasses import replace

from pytest_llmchaos import errors
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.trial_result import LoadResult
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.trial.perform import Performed
from pytest_llmchaos.trial.recovery import Recovery
from pytest_llmchaos.trial.trial import Trial

SCENARIO = '''
"""It holds."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault={fault})

def test_one(trial):
    assert trial.time_to_detect_s <= 5

def test_two(trial):
    assert trial.repaired_by == "remediator"
'''


def put_double(monkeypatch):
    """A double that performs the trials of this test's sessions."""
    double = Double()
    monkeypatch.setattr(Campaign, "_perform", lambda campaign, plan: double.perform(campaign, plan))  # noqa: PLW0108 - a method of the class, not of the double
    monkeypatch.setattr(Campaign, "preflight", lambda self: None)
    return double


def put_journalled_double(monkeypatch):
    """A double whose trials hold until a claim fails, in the journal of a run."""
    double = put_double(monkeypatch)
    double.slos = ()

    def perform(campaign, plan):
        begun = replace(double.perform(campaign, plan), name=f"{len(double.performed):03}")
        about = {"trial": begun.name, "scenario": plan.scenario, "fault": str(plan.fault)}
        campaign.run.journal.write(lines.TrialBegin(samples="", **about))
        campaign.run.journal.write(lines.Judged(verdict="held", slos=double.slos, **about))
        return begun

    monkeypatch.setattr(
        Campaign, "preflight", lambda self: self.run.announce([trial.entry for trial in self.schedule()])
    )
    monkeypatch.setattr(Campaign, "_perform", perform)
    return double


class Double:
    """Returns a prepared trial or raises a prepared error, and counts its calls."""

    def __init__(self):
        self.error = None
        self.detect_s = 1.5
        self.repaired_by = "remediator"
        self.performed = []
        self.windows = {}  # by arm

    def perform(self, campaign, plan):
        self.performed.append(f"{plan.fault} {plan.arm}".strip())
        if self.error is not None:
            return Performed(name="001", trial=None, error=self.error)
        trial = Trial(
            name="001",
            plan=plan,
            windows=self.windows.get(plan.arm, {}),
            slos={},
            slo_errors={"gone": errors.NoData("no data for gone")},
            detect_s=self.detect_s,
            detected_by="alert X",
            coincident=(),
            recover=Recovery(why_not="still down"),
            settle=Recovery(why_not="still down"),
            repaired_by=self.repaired_by,
            victims=("api",),
            fired=(),
            acted=(),
            noticed=(),
            restarts={},
            findings=(),
            events=(),
            load=LoadResult(),
        )
        return Performed(name="001", trial=trial, error=None)
