"""Answers of model servers as lists of events, in their documented formats."""

import json
from dataclasses import dataclass
from pathlib import Path

CAPTURED = Path(__file__).parents[1] / "data"
END = b"data: [DONE]\n\n"


def said(delta=None, finish=None, **more):
    """One chunk whose only choice has this delta, with further fields."""
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return chunk([choice], **more)


def chunk(choices, **more):
    value = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps(value | more, ensure_ascii=False).encode() + b"\n\n"


def line(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One answer.

    `first` and `first_content` are places in `events`: the first token of any channel,
    and of the answer's own text.
    """

    events: list[bytes]
    dialect: str = "chat"
    outcome: str = "ok"
    tokens: int = 2
    first: int | None = 1
    first_content: int | None = -1  # -1: as `first`

    @property
    def body(self):
        return b"".join(self.events)

    def end_of(self, place):
        """Offset of the byte that completes the event at `place`.

        In server-sent events a CR ends a line.
        """
        if place is None:
            return None
        return len(b"".join(self.events[: place + 1])) - (
            self.dialect != "ollama" and self.events[place].endswith(b"\r\n")
        )


ROLE = said({"role": "assistant", "content": ""})
A, B, STOP = said({"content": "a"}), said({"content": "b"}), said(finish="stop")
USAGE = chunk([], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
PLAIN = [ROLE, A, B, STOP, END]


def tool(arguments, **more):
    return said({"tool_calls": [{"index": 0, "function": {"arguments": arguments}, **more}]})


def thinking(field):
    """Two thoughts, then the answer."""
    return [ROLE, said({field: "hm", "content": None}), said({field: " so"}), A, STOP, END]


def ended_by(end):
    return [event.replace(b"\n", end) for event in PLAIN]


SHAPES = {
    "OpenAI": Shape(
        events=[
            said({"role": "assistant", "content": "", "refusal": None}, service_tier="default", usage=None),
            said({"content": "a"}, obfuscation="x1"),
            said({"content": "b"}),
            STOP,
            USAGE,
            END,
        ]
    ),
    "OpenAI, cut by max_tokens": Shape(events=[ROLE, A, B, said(finish="length"), END]),
    "OpenAI, refusal": Shape(
        events=[ROLE, said({"refusal": "I"}), said({"refusal": " won't"}), STOP, END], first_content=None
    ),
    "OpenAI, tool call": Shape(
        events=[
            said({"role": "assistant", "content": None}),
            tool("", id="call_1", type="function"),
            tool('{"x":1}'),
            said(finish="tool_calls"),
            END,
        ],
        first_content=None,
    ),
    "OpenAI, function call": Shape(
        events=[
            said({"role": "assistant", "content": None}),
            said({"function_call": {"name": "f", "arguments": ""}}),
            said({"function_call": {"arguments": "{}"}}),
            said(finish="function_call"),
            END,
        ],
        first_content=None,
    ),
    "OpenAI, filtered": Shape(events=[ROLE, A, B, said(finish="content_filter"), END], outcome="truncated"),
    "Azure": Shape(
        events=[
            chunk([], id="", model="", object="", prompt_filter_results=[{"prompt_index": 0}]),
            said({"role": "assistant", "content": "", "refusal": None}),
            A,
            chunk([{"index": 0, "finish_reason": None, "content_filter_results": {}, "content_filter_offsets": {}}]),
            B,
            chunk([{"index": 0, "delta": None, "finish_reason": None, "content_filter_results": {}}]),
            STOP,
            END,
        ],
        first=2,
    ),
    "vLLM": Shape(
        events=[
            said({"role": "assistant", "content": ""}, usage={"completion_tokens": 0}),
            said({"content": "a", "reasoning": None, "tool_calls": []}),
            B,
            chunk([{"index": 0, "delta": {"content": ""}, "finish_reason": "stop", "stop_reason": None}]),
            USAGE,
            END,
        ]
    ),
    "vLLM, reasoning": Shape(events=thinking("reasoning"), tokens=3, first_content=3),
    "vLLM, only reasoning": Shape(
        events=[ROLE, said({"reasoning": "hm"}), said({"reasoning": "so"}), said(finish="length"), END],
        first_content=None,
    ),
    "vLLM, error": Shape(
        events=[ROLE, A, line({"error": {"message": "EngineDead", "type": "InternalServerError", "code": 500}}), END],
        outcome="inband_error",
        tokens=1,
    ),
    "vLLM, older error": Shape(
        events=[ROLE, A, line({"object": "error", "message": "boom", "type": "ServerError", "code": 500}), END],
        outcome="inband_error",
        tokens=1,
    ),
    "vLLM, abort": Shape(events=[ROLE, A, B, said(finish="abort"), END], outcome="truncated"),
    "vLLM, finish by error": Shape(events=[ROLE, A, B, said(finish="error"), END], outcome="inband_error"),
    "SGLang": Shape(
        events=[
            said({"role": "assistant", "content": "", "reasoning_content": None, "tool_calls": None}, usage=None),
            A,
            B,
            chunk([{"index": 0, "delta": {}, "finish_reason": "stop", "matched_stop": 2}]),
            END,
        ]
    ),
    "SGLang, reasoning": Shape(events=thinking("reasoning_content"), tokens=3, first_content=3),
    "SGLang, error": Shape(
        events=[ROLE, A, line({"error": {"object": "error", "message": "boom", "code": 500}}), END],
        outcome="inband_error",
        tokens=1,
    ),
    "llama.cpp": Shape(
        events=[
            said({"role": "assistant", "content": None}, system_fingerprint="b1"),
            A,
            B,
            said(finish="stop", timings={"predicted_n": 2}),
            END,
        ]
    ),
    "llama.cpp, error line": Shape(
        events=[ROLE, A, b'error: {"code":500,"message":"boom","type":"server_error"}\n\n'],
        outcome="inband_error",
        tokens=1,
    ),
    "llama.cpp, error line after the finish": Shape(
        events=[ROLE, A, B, STOP, b'error: {"code":500,"message":"boom"}\n\n', END], outcome="inband_error"
    ),
    "Ollama": Shape(
        events=[
            said({"role": "assistant", "content": "a"}),
            said({"role": "assistant", "content": "b"}),
            said({"role": "assistant", "content": ""}, "stop"),
            USAGE,
            END,
        ],
        first=0,
    ),
    "Ollama, reasoning": Shape(
        events=[
            said({"role": "assistant", "content": "", "reasoning": "hm"}),
            said({"role": "assistant", "content": "a"}),
            said({"role": "assistant", "content": ""}, "stop"),
            END,
        ],
        first=0,
        first_content=1,
    ),
    "TGI": Shape(
        events=[b":\n\n", *(e.replace(b"data: ", b"data:") for e in (A, B, said(finish="eos_token"), END))],
    ),
    "TGI, error": Shape(
        events=[A, line({"error": "Request failed during generation", "error_type": "generation"})],
        outcome="inband_error",
        tokens=1,
        first=0,
    ),
    "LiteLLM": Shape(
        events=[
            said({"role": "assistant", "content": "a", "provider_specific_fields": None}),
            said({"content": "b", "function_call": None, "tool_calls": None}),
            STOP,
            USAGE,
            END,
        ],
        first=0,
    ),
    "LiteLLM, error after the finish": Shape(
        events=[ROLE, A, B, STOP, line({"error": {"message": "boom", "type": "None", "code": "500"}}), END],
        outcome="inband_error",
    ),
    "OpenRouter": Shape(
        events=[b": OPENROUTER PROCESSING\n\n", said({"content": "", "reasoning": "hm"}), A, STOP, END],
        first_content=2,
    ),
    "OpenRouter, error": Shape(
        events=[ROLE, A, said({"content": ""}, "error", error={"code": 502, "message": "boom"}), END],
        outcome="inband_error",
        tokens=1,
    ),
    "DeepSeek": Shape(events=[b": keep-alive\n\n", *thinking("reasoning_content")], tokens=3, first=2, first_content=4),
    "sse-starlette": Shape(
        events=[b": ping - 2026-01-01 00:00:00\r\n\r\n", *ended_by(b"\r\n")],
        first=2,
    ),
    "an error event": Shape(
        events=[ROLE, A, b'event: error\ndata: {"message": "boom"}\n\n', END], outcome="inband_error", tokens=1
    ),
    "no finish": Shape(events=[ROLE, A, B, END], outcome="truncated"),
    "no end": Shape(events=[ROLE, A, B, STOP], outcome="truncated"),
    "an end before the finish": Shape(events=[ROLE, A, B, END, STOP], outcome="truncated"),
    "an error after the end": Shape(events=[*PLAIN, line({"error": {"message": "late"}})]),
    "an unknown finish": Shape(events=[ROLE, A, B, said(finish="load"), END], outcome="corrupted"),
    "an empty finish reason": Shape(events=[ROLE, said({"content": "a"}, ""), said({"content": "b"}, ""), STOP, END]),
    "two choices of which one failed": Shape(events=[ROLE, A, B, STOP, said(finish="abort"), END], outcome="truncated"),
    "CR line ends": Shape(events=ended_by(b"\r")),
    "mixed line ends": Shape(events=[ROLE, A.replace(b"\n", b"\r\n"), B.replace(b"\n", b"\r"), STOP, END]),
    "byte order mark": Shape(events=[b"\xef\xbb\xbf" + ROLE, *PLAIN[1:]]),
    "several data lines": Shape(events=[ROLE, A.replace(b', "object"', b',\ndata: "object"'), B, STOP, END]),
    "other fields": Shape(
        events=[
            b"retry: 3000\n\n",
            b"id: 1\nevent: message\n" + A,
            b"event: ping\n\n",
            b"data\n\n",
            b"unknown: x\n" + B,
            STOP,
            END,
        ]
    ),
    "no last blank line": Shape(events=[*PLAIN[:-1], b"data: [DONE]\n"]),
    "no last newline": Shape(events=[*PLAIN[:-1], b"data: [DONE]"]),
    "an error without a last newline": Shape(
        events=[ROLE, A, b'data: {"error": {"message": "boom"}}'], outcome="inband_error", tokens=1
    ),
    "a cut event": Shape(events=[ROLE, A, B[:40]], outcome="truncated", tokens=1),
    "text that looks like an end": Shape(
        events=[ROLE, said({"content": "data: [DONE]\n\n"}), said({"content": '"finish_reason":"abort"'}), STOP, END]
    ),
    "half an emoji": Shape(events=[ROLE, line({"choices": [{"delta": {"content": "\ud83d"}}]}), B, STOP, END]),
    "not JSON": Shape(events=[ROLE, A, b'data: {"choices": [\n\n', END], outcome="corrupted", tokens=1),
    "bytes that are no text": Shape(
        events=[ROLE, A, B.replace(b'"b"', b'"\xff"'), STOP, END], outcome="corrupted", tokens=1
    ),
    "one event in two": Shape(
        events=[A, b'data: {"choices":[{"delta":{}},{}\n\n', b'data: {}]},{"choices":[{}]}\n\n', STOP, END],
        outcome="corrupted",
        tokens=1,
        first=0,
    ),
    "an empty answer": Shape(events=[ROLE, STOP, END], tokens=0, first=None),
}


def captured(name):
    """The events of an answer of Ollama, byte for byte as it came."""
    end = b"\n\n" if name.endswith(".sse") else b"\n"
    return [event + end for event in (CAPTURED / name).read_bytes().split(end)[:-1]]


def ndjson(value):
    return json.dumps(value).encode() + b"\n"


def talk(done=False, reason=None, **message):
    """A line of Ollama's `/api/chat`."""
    last = {"done_reason": reason} if reason else {}
    return ndjson(
        {"model": "m", "created_at": "2026", "message": {"role": "assistant", **message}, "done": done, **last}
    )


def tgi(text, whole=None, reason=None, special=False):
    """An event of TGI's `/generate_stream`. It has no blank after the colon."""
    details = {"finish_reason": reason, "generated_tokens": 2, "seed": None} if reason else None
    token = {"id": 1, "text": text, "logprob": -0.5, "special": special}
    value = {"index": 1, "token": token, "generated_text": whole, "details": details}
    return b"data:" + json.dumps(value).encode() + b"\n\n"


def completed(text, finish=None):
    """A chunk of plain completions."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return line({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})


OF_OLLAMA = {"dialect": "ollama"}
OF_TGI = {"dialect": "tgi"}
OF_COMPLETIONS = {"dialect": "completions"}
DIALECTS = {
    "Ollama, captured": Shape(events=captured("ollama-chat.ndjson"), tokens=6, first=0, **OF_OLLAMA),
    "Ollama generate, captured": Shape(
        events=captured("ollama-generate.ndjson"), tokens=6, first=0, dialect="ollama-generate"
    ),
    "Ollama completions, captured": Shape(
        events=captured("ollama-completions.sse"), tokens=6, first=0, **OF_COMPLETIONS
    ),
    "Ollama, thinking": Shape(
        events=[talk(content="", thinking="hm"), talk(content="a"), talk(content="", done=True, reason="stop")],
        first=0,
        first_content=1,
        **OF_OLLAMA,
    ),
    "Ollama, tool call": Shape(
        events=[
            talk(content="", tool_calls=[{"function": {"name": "f", "arguments": {}}}]),
            talk(content="", done=True, reason="stop"),
        ],
        tokens=1,
        first=0,
        first_content=None,
        **OF_OLLAMA,
    ),
    "Ollama, an older version": Shape(events=[talk(content="a"), talk(done=True)], tokens=1, first=0, **OF_OLLAMA),
    "Ollama, not finished": Shape(events=[talk(content="a")], tokens=1, first=0, outcome="truncated", **OF_OLLAMA),
    "Ollama, error": Shape(
        events=[talk(content="a"), ndjson({"error": "an error was encountered while running the model"})],
        tokens=1,
        first=0,
        outcome="inband_error",
        **OF_OLLAMA,
    ),
    "Ollama, unloaded": Shape(
        events=[talk(content="a"), talk(done=True, reason="unload")],
        tokens=1,
        first=0,
        outcome="corrupted",
        **OF_OLLAMA,
    ),
    "Ollama, not JSON": Shape(
        events=[talk(content="a"), b"oops\n", talk(done=True)], tokens=1, first=0, outcome="corrupted", **OF_OLLAMA
    ),
    "Ollama, blank lines and CRLF": Shape(
        events=[talk(content="a")[:-1] + b"\r\n", b"\r\n", talk(done=True, reason="stop")[:-1] + b"\r\n"],
        tokens=1,
        first=0,
        **OF_OLLAMA,
    ),
    "TGI": Shape(events=[tgi("a"), tgi("b", "ab", "length")], first=0, **OF_TGI),
    "TGI, end token": Shape(
        events=[tgi("a"), tgi("b"), tgi("</s>", "ab", "eos_token", special=True)], first=0, **OF_TGI
    ),
    "TGI, special begin": Shape(
        events=[tgi("<s>", special=True), tgi("a"), tgi("b", "ab", "stop_sequence")], first=1, **OF_TGI
    ),
    "TGI, no details": Shape(events=[tgi("a"), tgi("b", "ab")], first=0, **OF_TGI),
    "TGI, not finished": Shape(events=[tgi("a"), tgi("b")], first=0, outcome="truncated", **OF_TGI),
    "TGI, error": Shape(
        events=[
            tgi("a"),
            line({"error": "Request failed during generation: Server error: ", "error_type": "generation"}),
        ],
        tokens=1,
        first=0,
        outcome="inband_error",
        **OF_TGI,
    ),
    "TGI, error event": Shape(
        events=[tgi("a"), b"event:error\ndata:overloaded\n\n"], tokens=1, first=0, outcome="inband_error", **OF_TGI
    ),
    "completions": Shape(
        events=[completed("a"), completed("b"), completed("", "stop"), END], first=0, **OF_COMPLETIONS
    ),
    "completions, usage": Shape(
        events=[completed("a"), completed("b", "length"), chunk([], usage={"completion_tokens": 2}), END],
        first=0,
        **OF_COMPLETIONS,
    ),
    "completions, no end": Shape(
        events=[completed("a"), completed("b", "stop")], first=0, outcome="truncated", **OF_COMPLETIONS
    ),
    "completions, no finish": Shape(
        events=[completed("a"), END], tokens=1, first=0, outcome="truncated", **OF_COMPLETIONS
    ),
    "completions, filtered": Shape(
        events=[completed("a"), completed("", "content_filter"), END],
        tokens=1,
        first=0,
        outcome="truncated",
        **OF_COMPLETIONS,
    ),
    "completions, error": Shape(
        events=[completed("a"), line({"object": "error", "message": "boom"}), END],
        tokens=1,
        first=0,
        outcome="inband_error",
        **OF_COMPLETIONS,
    ),
}
SHAPES |= DIALECTS
