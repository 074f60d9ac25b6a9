"""Known refutations of a run, and those that have vanished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from pytest_llmchaos.plan.known import is_web_link
from pytest_llmchaos.report.formatting import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.evidence.trial_result import ClaimResult, KnownNote, RunResult, TrialResult


def known(trials: Sequence[TrialResult]) -> list[tuple[ClaimResult, KnownNote]]:
    """Return each claim that was refuted as known, once."""
    return _with_entry(trials, "failed")


def vanished(trials: Sequence[TrialResult]) -> list[tuple[ClaimResult, KnownNote]]:
    """Return each claim that held though it is listed as refuted, once."""
    return _with_entry(trials, "passed")


def listed(trials: Sequence[TrialResult]) -> list[tuple[str, list[tuple[ClaimResult, KnownNote]]]]:
    """Return both kinds, each with its name."""
    return [("known refutation", known(trials)), ("vanished refutation", vanished(trials))]


def _with_entry(trials: Sequence[TrialResult], outcome: str) -> list[tuple[ClaimResult, KnownNote]]:
    every = [claim for trial in trials for claim in trial.claims]
    found = {claim.nodeid: (claim, claim.known) for claim in every if claim.known and claim.outcome == outcome}
    return list(found.values())


def count_known(run: RunResult) -> int:
    """Return the number of refuted trials without a new refutation."""
    refuted = [trial for trial in run.trials if trial.verdict == "refuted"]
    failed = [[claim for claim in trial.claims if claim.outcome == "failed"] for trial in refuted]
    return sum(bool(its) and all(claim.known for claim in its) for its in failed)


def known_lines(trial: TrialResult) -> list[str]:
    """Return a line for each listed claim of a trial."""
    kinds = (("known", known([trial])), ("known refutation has vanished", vanished([trial])))
    return [
        f"{kind}: {one_line(claim.nodeid.rsplit('::', 1)[-1], 120)}: {one_line(entry.why)} ({one_line(entry.issue, 500)})"
        for kind, its in kinds
        for claim, entry in its
    ]


def link(text: str, url: str) -> Markup:
    """Return HTML of a link, or its text alone if the address is no web page's."""
    if not is_web_link(url):
        return escape(text)
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(url, text)
