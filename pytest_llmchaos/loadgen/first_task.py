"""First task of a user's agent, which finds out if it keeps the contract of tasks.

The task has an empty plan, so no tool is called.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.redaction import redact
from pytest_llmchaos.host.http_client import Reply, exchange
from pytest_llmchaos.loadgen.task_state import read_state
from pytest_llmchaos.subject.requests import TASKS_PATH, authority, head_of

if TYPE_CHECKING:
    from pytest_llmchaos.subject.lab import Endpoint, Subject

PLAN = "plan:"
STATUSES = ("running", "completed", "failed", "cancelled")
TRY_S, RETRY_S = 10.0, 0.5
MOST_BYTES = 2**20
EXCERPT = 200  # characters
_CONTRACT = "the contract is in docs/load.md, Send tasks to an agent"


def require_agent(url: str, agent: Endpoint, subject: Subject, note: Callable[[str], None]) -> None:
    """Send a task without steps, read its state and an unknown one, and cancel it.

    An agent that does not answer yet has `startup_s` of the subject for it.

    Args:
        url: address of the agent.
        agent: the agent.
        subject: the stack.
        note: takes a line for the task.

    Raises:
        NotReady: an answer breaks the contract. The message has the request,
            the answer and what was expected.
    """
    name = f"llmchaos-first-{secrets.token_hex(4)}"
    deadline = time.monotonic() + subject.startup_s
    sent = subject.requests.for_tasks().resolve(os.environ)
    hidden = subject.requests.secrets(os.environ)
    note(f"first task of {agent.service}: without steps, to check its contract")

    def ask(method: str, path: str, body: object = None) -> Reply:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Host": authority(url), **head_of(sent.headers), "Content-Length": str(len(content))}
        while True:
            try:
                reply = exchange(
                    method,
                    url.rstrip("/") + path,
                    tls="",
                    name="",
                    timeout_s=TRY_S,
                    most_bytes=MOST_BYTES,
                    headers=headers,
                    content=content,
                )
                if reply.status not in (429, 502, 503, 504):
                    return reply
                why = f"it answered {reply.status}"
            except ConnectionError as error:
                why = str(error)
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the first task of {agent.service} failed: {method} {path} got no answer within {subject.startup_s:g} s "
                    f"({redact(why, hidden)}): check the port in llmchaos_agent"
                )
            time.sleep(RETRY_S)

    def require(method: str, path: str, reply: Reply, statuses: Iterable[int], *, is_state: bool) -> None:
        wrong = _wrong_in(reply) if is_state else ""
        if reply.status in statuses and not wrong:
            return
        expected = " or ".join(map(str, statuses))
        if is_state:
            expected += f" with a status of {', '.join(STATUSES)} and whole numbers as counts{wrong and f' ({wrong})'}"
        words = redact(reply.body.decode(errors="replace"), hidden)[:EXCERPT]
        raise NotReady(
            f"the first task of {agent.service} failed: {method} {path} got {reply.status}, {words!r}, expected {expected}: "
            f"{_CONTRACT}"
        )

    task, unknown = f"{TASKS_PATH}/{name}", f"{TASKS_PATH}/{name}-unknown"
    for method, path, body, statuses, is_state in (
        ("POST", TASKS_PATH, {"id": name, "input": PLAN}, (200, 201, 202), False),
        ("POST", TASKS_PATH, {"id": name, "input": PLAN}, (200,), False),
        ("GET", f"{task}?wait_s=0", None, (200,), True),
        ("GET", f"{unknown}?wait_s=0", None, (404,), False),
        ("DELETE", task, None, (200, 202, 204), False),
    ):
        require(method, path, ask(method, path, body), statuses, is_state=is_state)


def _wrong_in(reply: Reply) -> str:
    """The field of a state that a load could not read. Empty for a good state."""
    try:
        read_state(reply.body)
    except ValueError as error:
        return str(error)
    return ""
