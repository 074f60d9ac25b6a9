"""Reports of tests with a trial or a lab: held, refuted, or invalid as an ERROR."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_llmchaos import report
from pytest_llmchaos.chaos_session import claims
from pytest_llmchaos.errors import (
    CLAIM_MAKES,
    BadScenario,
    EvidenceLost,
    HealFailed,
    NotReady,
    ProvesNothing,
    Refuted,
    Unsupported,
)
from pytest_llmchaos.stats.effects import Effect
from pytest_llmchaos.trial.result import effect_note
from pytest_llmchaos.trial.trial import OBJECTIVE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmchaos.chaos_session.known_refutations import Ratchet
    from pytest_llmchaos.evidence.trial_result import ClaimOutcome
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.session.campaign import Campaign


@dataclass(kw_only=True)
class Asked:
    """A trial of a test's experiment, and what the test did with it.

    Attributes:
        plan: the planned trial.
        name: its id. None before its first use in the test, empty if it was refused.
        read: names of the values that the claim read, None if the claim got no trial.
    """

    plan: TrialPlan
    name: str | None = None
    read: set[str] | None = None

    @property
    def objectives(self) -> tuple[str, ...] | None:
        """Objectives whose results the claim read, None if unknown."""
        if self.read is None:
            return None
        before = OBJECTIVE.format("")
        return tuple(sorted(name.removeprefix(before) for name in self.read if name.startswith(before)))


# One trial of a test with `trial`, all arms of a test with `arms`.
ASKED = pytest.StashKey[list[Asked]]()
EFFECTS = pytest.StashKey[list[Effect]]()


class ClaimReports:
    """Judges the reports of a session's tests and journals them.

    Attributes:
        lab: the session's running stack, or None before a test used it.
    """

    def __init__(self, campaign: Campaign, ratchet: Ratchet, *, is_worker: bool) -> None:
        self._campaign = campaign
        self._ratchet = ratchet
        self._is_worker = is_worker
        self._is_running = False
        self._subtests: list[tuple[ClaimOutcome, str | None]] = []  # of the test that runs
        self._judged: set[object] = set()  # keys of trials with a claim that read a value
        self.lab: Lab | None = None

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Surround a test's call. A report inside it belongs to a subtest."""
        self._is_running = True
        self._subtests.clear()
        try:
            yield
        except Exception as raised:
            claims.note_guess(raised)
            raise
        finally:
            self._is_running = False

    def note(self, item: pytest.Item, found: pytest.TestReport, raised: BaseException | None) -> None:
        """Judge a test's report and journal its outcome.

        A claim that proves nothing is an ERROR. A missing ability of the runtime is a
        SKIP.
        """
        stop_after(raised, item.session)
        if isinstance(raised, Unsupported) and found.failed:
            found.outcome, found.longrepr = "skipped", (str(item.path), item.location[1] or 0, f"Skipped: {raised}")
        if self._is_worker and raised is not None and raised is self._campaign.refused:
            item.session.shouldfail = str(raised)  # this worker's other tests would fail the same way
        if isinstance(raised, ProvesNothing | NotReady | HealFailed | BadScenario):
            found.longrepr = explained(raised)
            if found.when == "call":
                # pytest, JUnit files and HTML pages show failures in set-up as ERROR.
                found.when = "setup"
        elif isinstance(raised, Refuted) and found.when == "setup":
            found.when = "call"  # the trial refuted the claim already in the fixture
        if found.when == "call" or (found.when == "setup" and not found.passed):
            self._note_claim(item, found, raised)

    def _note_claim(self, item: pytest.Item, found: pytest.TestReport, raised: BaseException | None) -> None:
        """Journal the claim's outcome once, the worst of its subtests'."""
        own = self._campaign.test.claim(keep=self._is_running)
        asked = item.stash.get(ASKED, [])
        self._judged |= {one.plan.key for one in asked if (one.read or set()) - claims.ARM_VALUES}
        void = self._void(item, found, raised) if asked or own or self._passed_with_lab(item, found) else None
        outcome: ClaimOutcome = "error" if found.when == "setup" and found.failed else found.outcome
        text = found.longreprtext[-500:] if raised is None else str(raised).split("\n\n")[0]
        message = None if found.passed else void or text
        refuted = is_refuted(found, raised)
        if self._is_running:
            self._ratchet.judge_subtest(item.nodeid, found, refuted=refuted)
            self._subtests.append((outcome, message))
            return
        outcome, message = worst([(outcome, message), *self._subtests])
        self._subtests.clear()
        known = self._ratchet.judge(item.nodeid, found, outcome, refuted=refuted)
        if known is not None:
            item.user_properties.append(("llmchaos_known", known.issue))
        for result in filter(None, own.values()):
            item.user_properties.extend(report.junit_properties(result))
        item.user_properties[:] = [
            (name, CLAIM_MAKES.get(outcome, value) if (name, value) == ("llmchaos_verdict", "held") else value)
            for name, value in item.user_properties
        ]
        effects = tuple(dict.fromkeys(effect_note(one) for one in item.stash.get(EFFECTS, [])))
        for one in asked:
            if one.name is None:
                self._campaign.note_unasked(one.plan, item.nodeid, outcome, message, known)
            elif one.name:
                self._campaign.note_claim(
                    [one.name], item.nodeid, outcome, message, objectives=one.objectives, effects=effects, known=known
                )
        self._campaign.note_claim(filter(None, own), item.nodeid, outcome, message, known=known)

    def _passed_with_lab(self, item: pytest.Item, found: pytest.TestReport) -> bool:
        """True for a passed test that uses this session's lab without a trial."""
        return found.passed and self.lab is not None and getattr(item, "funcargs", {}).get("lab") is self.lab

    def _void(self, item: pytest.Item, found: pytest.TestReport, raised: BaseException | None) -> str | None:
        """Turn a claim without a real assertion into an ERROR.

        It raised another error, or it passes for every trial. Returns the reason, or
        None.
        """
        if found.when != "call":
            return None
        if found.failed and raised is not None and not claims.refutes(raised):
            found.when = "setup"
            return claims.broken_off(raised)
        why = None
        if found.passed and isinstance(item, pytest.Function) and not self._is_running:
            asked = item.stash.get(ASKED, [])
            sets = [one.read for one in asked if one.read is not None]
            made = asked[0].plan.experiment if asked else None
            why = claims.passes_anyway(
                item.function,
                set().union(*sets) if sets else None,
                arms=len(made.faults) * made.arm_count // len(asked) if made else 0,
                is_unjudged=any(self._is_unjudged(item, one.plan) for one in asked),
                value="arms" if len(asked) > 1 else "trial",
            )
        if why is not None:
            found.outcome, found.when, found.longrepr = "failed", "setup", f"{item.location[0]}: {why}"
            vars(found).pop("wasxfail", None)  # of a test that was expected to fail
        return why

    def _is_unjudged(self, item: pytest.Item, plan: TrialPlan) -> bool:
        """True for the last claim of a trial of which no claim read a value."""
        return plan.key not in self._judged and self._campaign.is_last_claim(item.nodeid, plan)


def worst(outcomes: Sequence[tuple[ClaimOutcome, str | None]]) -> tuple[ClaimOutcome, str | None]:
    """Return the outcome that decides, the first if none does."""
    return next((one for made in CLAIM_MAKES for one in outcomes if one[0] == made), outcomes[0])


def is_refuted(found: pytest.TestReport, raised: BaseException | None) -> bool:
    """True for a claim that failed by its assertion, and left nothing broken."""
    lost = any(isinstance(error, HealFailed | EvidenceLost) for error in causes_of(raised))
    return found.failed and found.when == "call" and raised is not None and claims.refutes(raised) and not lost


def stop_after(raised: BaseException | None, session: pytest.Session) -> None:
    """Stop the session after a failed revert or lost evidence."""
    for error in causes_of(raised):
        if isinstance(error, HealFailed):
            session.shouldfail = f"heal_failed: {error}"
            return
        if isinstance(error, EvidenceLost):
            session.shouldfail = "evidence lost: the session stops, because its journal or samples cannot be written"


def causes_of(raised: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and the members of groups among them."""
    waiting, seen = [raised], set[int]()
    while waiting:
        error = waiting.pop(0)
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            waiting += [error.__cause__, error.__context__]
            if isinstance(error, BaseExceptionGroup):
                waiting += error.exceptions


def explained(raised: BaseException) -> str:
    """Format an error, and below it the test's earlier failed assertions."""
    before = [error for error in causes_of(raised) if error is not raised and isinstance(error, AssertionError)]
    lines = [f"before that, the test had failed: {type(error).__name__}: {error}" for error in before]
    return "\n\n".join([f"{type(raised).__name__}: {raised}", *lines])
