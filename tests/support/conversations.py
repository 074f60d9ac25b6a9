"""Drawn conversations of HTTP/1, tunnels and plain TCP.

Strategies of hypothesis. A message is drawn as units: a head with its CRLFs, a part of
a body, a chunk, a last chunk with its trailers. A proxy may hold an incomplete unit and
nothing else, so a flight ends only where a unit ends. Pieces of a flight are cut
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st
from support.wire import CLIENT, SERVICE, Flight

TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ"
TEXT = bytes([*range(0x21, 0x7F), 0x09, 0x20, *range(0x80, 0x100)])
BODIES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"\r\n\r\n",
            b"0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
            bytes(range(256)) * 300,
            b"x" * 200_000,
        ]
    ),
)
SOME_BYTES = BODIES.filter(bool)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """The units of a request and of its answer."""

    request: tuple[bytes, ...]
    continued: tuple[bytes, ...] = ()  # what the service sends before the request's body
    body: tuple[bytes, ...] = ()
    answer: tuple[bytes, ...]
    raw: tuple[tuple[str, bytes], ...] = ()  # both ways after a tunnel has opened
    last: bool = False  # the service ends the connection with this answer
    has_body: bool = False  # the answer has one by its head, even if it is empty


def _of(letters: bytes, drawn: bytes) -> bytes:
    return bytes(letters[byte % len(letters)] for byte in drawn)


NAMES = st.binary(max_size=12).map(lambda drawn: b"X" + _of(TOKEN_BYTES, drawn) + b"x")
VALUES = st.binary(max_size=30).map(lambda drawn: _of(TEXT, drawn).strip(b" \t"))
SPACES = st.sampled_from([(b" ", b""), (b"", b""), (b" \t ", b" \t")])
LINES = st.tuples(NAMES, SPACES, VALUES).map(lambda drawn: drawn[0] + b":" + drawn[1][0] + drawn[2] + drawn[1][1])
LONG_LINES = st.sampled_from([b"X-Long: " + b"v" * size for size in (9_000, 70_000)])
# Lines that do not change the framing. One list in 16 has a long one.
HEADERS = st.integers(0, 15).flatmap(
    lambda drawn: st.lists(LINES, max_size=3) if drawn else st.tuples(LINES, LONG_LINES, LINES).map(list)
)


def spelt(draw: st.DrawFn, name: bytes) -> bytes:
    return draw(st.sampled_from([name, name.lower(), name.upper(), name.swapcase()]))


def parts(draw: st.DrawFn, body: bytes) -> tuple[bytes, ...]:
    """A body in one, two or three parts."""
    return _cut(body, draw(st.lists(st.integers(0, len(body)), max_size=2)))


def _cut(data: bytes, cuts: list[int]) -> tuple[bytes, ...]:
    return tuple(data[a:b] for a, b in pairwise([0, *sorted(cuts), len(data)]) if a < b)


def chunks(draw: st.DrawFn) -> tuple[bytes, ...]:
    """Chunks with extensions, leading zeros and trailers."""
    units = []
    for _ in range(draw(st.integers(0, 4))):
        data = draw(SOME_BYTES)
        size = draw(st.sampled_from(["%x", "%X", "0%x", "0000%X"])) % len(data)
        units.append(size.encode() + draw(EXTENSIONS) + b"\r\n" + data + b"\r\n")
    trailers = [draw(NAMES) + b": " + draw(VALUES) + b"\r\n" for _ in range(draw(st.integers(0, 2)))]
    last = draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSIONS) + b"\r\n"
    return (*units, last + b"".join(trailers) + b"\r\n")


EXTENSIONS = st.sampled_from(
    [b"", b"", b";a", b";a=b", b' ; name="va;l\\"ue\t"', b';sig="0\xc3\xa9";x=y', b"  ", b";a=" + b"e" * 5000]
)


def framed(draw: st.DrawFn) -> tuple[list[bytes], tuple[bytes, ...]]:
    """Header lines that frame a body, and the body's units."""
    how = draw(st.sampled_from(["nothing", "length", "length", "chunked", "chunked", "coded"]))
    if how == "nothing":
        return [], ()
    if how == "length":
        body = draw(BODIES)
        digits = draw(st.sampled_from([b"%d", b"0%d", b"000%d"])) % len(body)
        space = draw(st.sampled_from([b" ", b"", b"\t"]))
        return [spelt(draw, b"Content-Length") + b":" + space + digits], parts(draw, body)
    value = spelt(draw, b"chunked") if how == "chunked" else b"gzip, " + spelt(draw, b"chunked")
    return [spelt(draw, b"Transfer-Encoding") + b": " + value], chunks(draw)


def head(draw: st.DrawFn, first: bytes, *lines: bytes) -> bytes:
    """A head with the lines among drawn ones."""
    every = draw(HEADERS)
    for line in lines:
        every.insert(draw(st.integers(0, len(every))), line)
    return b"".join(line + b"\r\n" for line in [first, *every]) + b"\r\n"


TARGETS = st.sampled_from(
    [
        b"/", b"/v1/chat/completions", b"*", b"http://host:1/a?b=c", b"/?q=%00&r=\xc3\xa0\x85", b"/" + b"p" * 9000,
        b"//a//..;/?", b"/a:b@[c]!$&'()*+,;=",
    ]
)  # fmt: skip
INTERIM = st.sampled_from(
    [
        (),
        (),
        (),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n",),
        (b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\n\r\n"),
        (b"HTTP/1.1 199 \r\n\r\n",),
    ]
)
REASONS = st.sampled_from([b" OK", b" ", b"", b" R\xe9ason: with\ttab", b" Not Found"])


def answers(draw: st.DrawFn, method: bytes, *, old: bool) -> tuple[tuple[bytes, ...], bool, bool]:
    """Units of an answer, `last` and `has_body` of its exchange."""
    interim = () if old else draw(INTERIM)
    version = draw(st.sampled_from([b"HTTP/1.0", b"HTTP/1.1"])) if old else b"HTTP/1.1"
    shape = draw(st.sampled_from(["framed", "framed", "framed", "204", "304", "close", "error"]))
    if shape in {"204", "304"} or method == b"HEAD":
        status = shape.encode() if shape in {"204", "304"} else b"200"
        lies = [[], [b"Content-Length: 1234"], [b"Transfer-Encoding: chunked"]] if status != b"204" else [[]]
        first = version + b" " + status + draw(REASONS)
        return (*interim, head(draw, first, *draw(st.sampled_from(lies)))), False, False
    if shape == "close":
        line = draw(st.sampled_from([b"Connection: close", b"Content-Type: text/event-stream"]))
        body = parts(draw, draw(BODIES))
        return (*interim, head(draw, version + b" 200" + draw(REASONS), line), *body), True, True
    lines, units = framed(draw)
    if not lines or (old and not lines[0].lower().startswith(b"content-length")):
        lines, units = [b"Content-Length: 2"], (b"ok",)
    status = b"500" if shape == "error" else draw(st.sampled_from([b"200", b"206", b"404", b"200"]))
    return (*interim, head(draw, version + b" " + status + draw(REASONS), *lines), *units), False, bool(units)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """A request with its answer."""
    method = draw(st.sampled_from([b"GET", b"POST", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"M-SEARCH", b"x!custom"]))
    old = draw(st.integers(0, 5)) == 0
    first = method + b" " + draw(TARGETS) + (b" HTTP/1.0" if old else b" HTTP/1.1")
    lines, body = ([], ()) if method in {b"GET", b"HEAD", b"OPTIONS"} else framed(draw)
    if old and lines and not lines[0].lower().startswith(b"content-length"):
        lines, body = [], ()
    waits = bool(body) and not old and draw(st.integers(0, 3)) == 0
    expected = [draw(st.sampled_from([b"Expect: 100-continue", b"expect:100-Continue"]))] if waits else []
    request = head(draw, first, b"Host: x", *lines, *expected)
    if draw(st.integers(0, 9)) == 0:
        request = b"\r\n" + request  # RFC 9112, 2.2: a server ignores an empty line before a request
    answer, last, has_body = answers(draw, method, old=old)
    continued = (b"HTTP/1.1 100 Continue\r\n\r\n",) if waits else ()
    return Exchange(request=(request,), continued=continued, body=body, answer=answer, last=last, has_body=has_body)


@st.composite
def tunnels(draw: st.DrawFn) -> Exchange:
    """An upgrade or a CONNECT, accepted or refused."""
    raw = tuple(draw(st.lists(st.tuples(st.sampled_from([CLIENT, SERVICE]), SOME_BYTES), min_size=1, max_size=4)))
    accepted = draw(st.booleans())
    if draw(st.booleans()):
        request = head(draw, b"CONNECT host:443 HTTP/1.1", b"Host: host:443")
        opened = head(
            draw, draw(st.sampled_from([b"HTTP/1.1 200 Connection Established", b"HTTP/1.1 204", b"HTTP/1.0 200 OK"]))
        )
    else:
        request = head(draw, b"GET /chat HTTP/1.1", b"Host: x", b"Connection: Upgrade", b"Upgrade: websocket")
        opened = head(draw, b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade")
    if accepted:
        return Exchange(request=(request,), answer=(opened,), raw=raw, last=True)
    refused = head(draw, b"HTTP/1.1 403 Forbidden", b"Content-Length: 4")
    return Exchange(request=(request,), answer=(refused, b"nope"), has_body=True)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Flights, with the numbers of requests and of answers with a body."""

    flights: list[Flight]
    requests: int = 0
    bodies: int = 0


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Exchanges on one connection: in turn or pipelined, with an end of any side."""
    requests = bodies = 0
    units: list[tuple[str, bytes]] = []
    for _ in range(draw(st.integers(1, 3))):
        piped = [draw(exchanges()) for _ in range(draw(st.sampled_from([1, 1, 2, 3])))]
        if len(piped) > 1:
            until_last = next((i + 1 for i, one in enumerate(piped) if one.last), len(piped))
            piped = [one for one in piped[:until_last] if not one.continued] or piped[:1]
        if draw(st.integers(0, 5)) == 0 and not any(one.last for one in piped):
            piped.append(draw(tunnels()))
        units += _in_order(piped)
        requests += len(piped)
        bodies += sum(one.has_body for one in piped)
        if piped[-1].last:
            break
    flights = _flights(draw, units, SERVICE if piped[-1].last and not piped[-1].raw else None)
    return Conversation(flights=flights, requests=requests, bodies=bodies)


def _in_order(piped: list[Exchange]) -> list[tuple[str, bytes]]:
    """All requests, then all answers: a service may read ahead."""
    units: list[tuple[str, bytes]] = []
    for one in piped:
        units += [(CLIENT, unit) for unit in one.request]
        units += [(SERVICE, unit) for unit in one.continued]
        units += [(CLIENT, unit) for unit in one.body]
    for one in piped:
        units += [(SERVICE, unit) for unit in one.answer]
        units += one.raw
    return units


FIRST_BYTES = st.one_of(
    st.binary(min_size=1, max_size=50).map(lambda rest: b"\x16\x03\x01" + rest),  # TLS
    st.binary(max_size=50).map(lambda rest: b"\x00" + rest),
    st.sampled_from(
        [
            b"*1\r\n$4\r\nPING\r\n",
            b"PING\r\n",
            b"SSH-2.0-x\r\n",
            b'{"jsonrpc": "2.0"}\n',
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            b"GET /0.9\r\n",
            b"\r\n\r\nNOT HTTP\r\n",
            b"HELO HTTP/1.1 friend of mine\r\n",
        ]
    ),
)


@st.composite
def plain_tcp(draw: st.DrawFn) -> Conversation:
    """Bytes that are not HTTP, both ways, with either side first."""
    first = [(SERVICE, draw(SOME_BYTES))] if draw(st.booleans()) else []
    rest = draw(st.lists(st.tuples(st.sampled_from([CLIENT, SERVICE]), SOME_BYTES), max_size=5))
    return Conversation(flights=_flights(draw, [*first, (CLIENT, draw(FIRST_BYTES)), *rest], None))


def _flights(draw: st.DrawFn, units: list[tuple[str, bytes]], ending: str | None) -> list[Flight]:
    """Merge units of one side into flights and cut those into pieces."""
    merged: list[tuple[str, bytes]] = []
    for side, data in units:
        if merged and merged[-1][0] == side and draw(st.booleans()):
            merged[-1] = (side, merged[-1][1] + data)
        else:
            merged.append((side, data))
    first = ending or draw(st.sampled_from([CLIENT, SERVICE]))
    second = SERVICE if first == CLIENT else CLIENT
    last_of_first = max((i for i, (side, _) in enumerate(merged) if side == first), default=None)
    early = first == CLIENT and draw(st.booleans())  # a half-close: the answer is still to come
    flights = []
    for number, (side, data) in enumerate(merged):
        ends = number == last_of_first and (early or number == len(merged) - 1)
        pieces = cut(draw, data)
        pause_s = draw(st.sampled_from([0.0, 0.0, 0.001, 0.003])) if len(pieces) < 40 else 0.0
        flights.append(
            Flight(
                client=pieces if side == CLIENT else (),
                service=pieces if side == SERVICE else (),
                pause_s=pause_s,
                client_ends=ends and side == CLIENT,
                service_ends=ends and side == SERVICE,
            )
        )
    ended = {CLIENT for f in flights if f.client_ends} | {SERVICE for f in flights if f.service_ends}
    ends_now = [side for side in (first, second) if side not in ended]
    return flights + [Flight(client_ends=side == CLIENT, service_ends=side == SERVICE) for side in ends_now]


def cut(draw: st.DrawFn, data: bytes) -> tuple[bytes, ...]:
    """Pieces of any sizes, now and then of one byte each."""
    if len(data) <= 200 and draw(st.integers(0, 7)) == 0:
        return tuple(data[i : i + 1] for i in range(len(data)))
    return _cut(data, draw(st.lists(st.integers(0, min(len(data), 2000)), max_size=4)))
