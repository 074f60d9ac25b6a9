"""Pages of verdicts and errors."""

from __future__ import annotations

import inspect
from typing import get_args

from pytest_llmchaos import errors
from pytest_llmchaos.errors import LlmchaosError, Verdict, verdict_of
from reference_pages.docstrings import Source
from reference_pages.markdown import bullets, error_link, fence, page, prose

# pytest's outcome, and the meaning.
VERDICTS: dict[str, tuple[str, str]] = {
    "held": ("PASSED", "Every claim of the trial passed, on evidence."),
    "refuted": ("FAILED", "A claim of the trial is wrong: the system did not do what the hypothesis states."),
    "invalid": ("ERROR", "The trial was not performed as planned, or a claim could not be judged."),
    "inconclusive": ("ERROR", "The judge cannot answer: data is missing, or two sources disagree."),
    "heal_failed": (
        "ERROR, and the session stops",
        "A fault could not be reverted. The message has the command that reverts it by hand.",
    ),
}
BEFORE = {
    "BadScenario": "pytest reports a collection error, or an ERROR if a claim raises it.",
    "NotReady": "pytest reports an ERROR. The run did not start.",
    "Unsupported": "pytest skips the test and names the missing ability.",
}


def tree() -> list[type[LlmchaosError]]:
    """Return every error of the package, parents before children."""
    ours = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, LlmchaosError)]
    found: list[type[LlmchaosError]] = []

    def walk(parent: type[LlmchaosError]) -> None:
        found.append(parent)
        for one in ours:
            if parent in one.__bases__:
                walk(one)

    walk(LlmchaosError)
    return found


def verdicts_page() -> str:
    """Return the page of verdicts."""
    parts = ["Each trial has one verdict. It is `held` if every claim of the trial passed."]
    for verdict in get_args(Verdict):
        outcome, meaning = VERDICTS[verdict]
        raised = [one.__name__ for one in tree() if one.__name__ not in BEFORE and _leads_to(one) == verdict]
        parts += [f"## `{verdict}`", f"pytest: {outcome}. {meaning}"]
        if raised:
            parts += ["Errors:", bullets(map(error_link, raised))]
    made = [
        f"a claim whose outcome is `{outcome}` makes the trial `{then}`" for outcome, then in errors.CLAIM_MAKES.items()
    ]
    parts += ["## Outcomes of claims", bullets(made)]
    return page("Verdicts", *parts)


def _leads_to(error: type[LlmchaosError]) -> str:
    return "" if error is LlmchaosError else verdict_of(error(""))


def errors_page(source: Source) -> str:
    """Return the page of errors."""
    lines = [f"{'    ' * (len(_parents(one)) - 1)}{one.__name__}" for one in tree()]
    parts = [
        "Every error that the package raises on purpose. `from pytest_llmchaos.errors import ...`",
        fence("\n".join(lines), "text"),
    ]
    for one in tree():
        docs = source.docs(source.cls(f"errors.{one.__name__}"))
        bases = ", ".join(
            error_link(base.__name__) if issubclass(base, LlmchaosError) else f"`{base.__name__}`"
            for base in one.__bases__
        )
        facts = [f"Base: {bases}."]
        if one.__name__ in BEFORE:
            facts.append(BEFORE[one.__name__])
        elif _leads_to(one) and "Verdict:" not in docs.text:
            facts.append(f"Verdict: `{_leads_to(one)}`.")
        parts += [f"## `{one.__name__}`", prose(docs.text), bullets(facts)]
    return page("Errors", *parts)


def _parents(error: type) -> list[type]:
    return [one for one in error.__mro__ if issubclass(one, LlmchaosError)]
