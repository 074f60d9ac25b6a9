"""Base of faults of tool calls, which are requests of MCP over streamable HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from fault_agent.acts import Act, Send
from fault_agent.faults.base import AnswerFault, RequestFault, StreamFault
from fault_agent.faults.dialects import RESULT, Fields, dump, parse, read
from fault_agent.faults.editors import AtMoment, Editor, Whole
from fault_agent.faults.match import Match
from fault_agent.faults.substitute import Substitute
from lab_common.values import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.editors import Moment
    from fault_agent.faults.events import Stream
    from fault_agent.messages import RequestHead

JSON = (("content-type", "application/json"),)


class Answer(NamedTuple):
    """A JSON-RPC answer of the service.

    Attributes:
        raw: its bytes, a JSON body or an event of a stream.
        fields: the decoded answer.
        form: puts other data into the same form.
    """

    raw: bytes
    fields: Fields
    form: Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolFault(RequestFault):
    """A fault of calls of the tools that `match` selects, by default all."""

    match: Match = field(default_factory=lambda: Match(tool="*"))

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        if self.match.tool is None:
            raise InvalidValueError(f"match.tool is missing: {self.kind} acts on calls of a tool, of any with '*'")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolAnswer(ToolFault, AnswerFault):
    """A fault that answers a call, which does not reach the service."""

    def answer(self, head: RequestHead, body: bytes) -> Substitute:  # noqa: ARG002 - the base's
        """The answer to one call, as JSON, which all clients of MCP accept."""
        return Substitute(status=200, headers=JSON, body=dump(self.reply(parse(body))))

    def reply(self, call: Fields) -> Fields:
        """The JSON-RPC answer to a call."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerEdit(StreamFault):
    """A fault of JSON-RPC answers, which keep the form that the service gives them.

    Attributes:
        wanted: answers that it changes, as bits of their meaning.
    """

    takes_head: ClassVar[bool] = True
    wanted: ClassVar[int] = RESULT

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""

        def act(moment: Moment) -> list[Act]:
            return self.acts(Answer(moment.raw, moment.fields, lambda data: stream.with_data(moment.raw, data)))

        return AtMoment(stream, act, hit, wanted=self.wanted)

    def edit_whole(self, hit: Callable[[], None]) -> Editor:
        """An editor for a JSON body."""

        def change(body: bytes) -> list[Act] | None:
            meaning, fields = read(body)
            return self.acts(Answer(body, fields, lambda data: data)) if meaning & self.wanted else None

        return Whole(change, hit)

    def acts(self, answer: Answer) -> list[Act]:
        """Acts in the place of an answer, by default one with another result."""
        return [Send(answer.form(dump(answer.fields | {"result": self.changed(answer.fields["result"])})))]

    def changed(self, result: Fields) -> Fields:
        """Another result in the place of this one."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolEdit(ToolFault, AnswerEdit):
    """A fault of the service's answer to a call."""
