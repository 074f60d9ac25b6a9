"""Faults on the wire that the requests of a load can never meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.overload import Overload
from pytest_llmchaos.faults.timed import AtMessage
from pytest_llmchaos.faults.wire_faults import WireFault
from pytest_llmchaos.subject.request_body import fields_of, limits_answers
from pytest_llmchaos.subject.requests import Requests, head_of

if TYPE_CHECKING:
    from pytest_llmchaos.loads import Arrival
    from pytest_llmchaos.model import Injection
    from pytest_llmchaos.subject.lab import Subject

# Requests may leave a little late.
LATE_S = 1.0
# Headers of each request whose values differ.
_OWN_HEADERS = ("host", "x-request-id", "content-length")


def require_met(subject: Subject, where: str, acts: Sequence[Injection], arrivals: Sequence[Arrival]) -> None:
    """Check that the requests of a load can meet each fault on the wire.

    Only what is certain is refused. Nothing is certain of an attached stack, which has
    other clients, nor of requests that services of a user's stack send to each other.

    Args:
        subject: The stack.
        where: The scenario, for the message.
        acts: The planned acts.
        arrivals: The planned requests.

    Raises:
        BadScenario: A fault acts after more tokens than any answer has, selects other
            requests, or begins at a request that the load does not send in time.
    """
    if subject.attach:
        return
    floods = [act.fault.max_tokens for act in acts if isinstance(act.fault, Overload)]
    for act in acts:
        shown = f"{where}: {act.fault.kind} {act.victim}"
        if isinstance(act.fault, AtMessage):
            if (act.fault.on or act.victim) == subject.api and not act.fault.tool:
                _require_message(subject, shown, act.fault, arrivals if not floods else None)
        elif isinstance(act.fault, WireFault):
            if act.victim == subject.api or (not subject.own and act.victim in subject.replicas):
                _require_tokens(subject, shown, act.fault, [*floods, *(one.max_tokens for one in arrivals)])
            if act.victim == subject.api:
                _require_match(subject, shown, act.fault.match)


def _require_tokens(subject: Subject, shown: str, fault: WireFault, tokens: Sequence[int]) -> None:
    """Check that an answer can be long enough. A gateway passes on the limit."""
    least = fault.least_tokens
    longest = max(tokens, default=least)
    if least <= longest or not limits_answers(subject.requests, fields_of(subject.requests, subject.model)):
        return
    raise BadScenario(
        f"{shown} with after_tokens={dict(fault.options)['after_tokens']} needs an answer of at least {least} tokens, and the "
        f"load's longest has max_tokens={longest}: raise max_tokens of the load, or lower after_tokens"
    )


def _require_match(subject: Subject, shown: str, match: Mapping[str, str | bool]) -> None:
    """Check that the clients' requests fulfil each condition that is known of them."""
    if str(match.get("method", "POST")).upper() != "POST":
        return  # such as health checks, which are not of the load
    for name, value in match.items():
        sent = _contrary(subject, name, value)
        if sent is not None:
            raise BadScenario(
                f"{shown} hits only requests with {name}={value} (faults.match), and those of the load to {subject.api} {sent}: "
                "change the condition or drop it"
            )


def _contrary(subject: Subject, name: str, value: str | bool) -> str | None:
    """Return what the requests have instead, None if they may meet a condition."""
    requests, glob = subject.requests, str(value)
    if name == "streaming":
        return None if value else "are streams"
    if name == "path":
        return _other_path(requests, glob)
    if name == "model":
        model = fields_of(requests, subject.model).get("model")
        if not isinstance(model, str):
            return "name no model"
        return None if fnmatchcase(model, glob) else f"have model={model}"
    if name == "header":
        header, _, glob = (part.strip() for part in glob.partition(":"))
        return _other_header(requests, header.lower(), glob)
    return None


def _other_path(requests: Requests, glob: str) -> str | None:
    path = requests.path.partition("?")[0]
    return None if "$" in path or fnmatchcase(path, glob) else f"have path={path}"


def _other_header(requests: Requests, name: str, glob: str) -> str | None:
    given = {header.name: header.value for header in requests.headers}
    sent = {header.lower(): value for header, value in head_of(given).items()}
    if name in _OWN_HEADERS:
        return None
    if name not in sent:
        return f"have no header {name}"
    return None if "$" in sent[name] or fnmatchcase(sent[name], glob) else f"have another {name}"


def _require_message(subject: Subject, shown: str, fault: AtMessage, arrivals: Sequence[Arrival] | None) -> None:
    """Check that the message's request can come in time. None for unknown arrivals."""
    begins = f"{shown} is to begin {fault.at}"
    if sent := _other_path(subject.requests, fault.path):
        raise BadScenario(
            f"{begins}, which counts requests with path={fault.path}, and those of the load to {subject.api} {sent}: name "
            "another kind, such as after:request"
        )
    most = fault.number if arrivals is None else _most_within([one.due_s for one in arrivals], fault.within_s + LATE_S)
    if fault.number > most:
        raise BadScenario(
            f"{begins} within within_s={fault.within_s:g}, and {subject.api} gets at most {most} requests of the load in that "
            "time: name an earlier request, or raise within_s or the load's rate"
        )


def _most_within(due_s: Sequence[float], seconds: float) -> int:
    """Return the most requests in any span of so many seconds."""
    most = first = 0
    for last, at_s in enumerate(due_s):
        while at_s - due_s[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
