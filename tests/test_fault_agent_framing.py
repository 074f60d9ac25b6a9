"""Ends of heads and bodies of HTTP/1 messages."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fault_agent import framing
from fault_agent.framing import Body, HeadReader, HeadTooLargeError, NotHttpError
from fault_agent.messages import AnswerHead, RequestHead

GET = RequestHead(method="GET", path="/", version="1.1", headers=())
CHUNKED = b"4;name=x\r\nabcd\r\n0A\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def answer(status: int = 200, method: str = "GET", **headers: str) -> AnswerHead:
    request = RequestHead(method=method, path="/", version="1.1", headers=())
    return AnswerHead(
        status=status,
        headers=tuple((name.replace("_", "-"), value) for name, value in headers.items()),
        request=request,
    )


@given(st.lists(st.integers(0, 100)))
def test_a_head_is_found_wherever_it_is_cut(cuts: list[int]) -> None:
    data = b"\r\nGET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nrest"
    reader, found, after = HeadReader(), None, b""
    for piece in pieces(data, cuts):
        if found is not None:
            after += piece
        elif (done := reader.feed(piece)) is not None:
            found, after = done
    assert found == data[:-4]
    assert after == b"rest"


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"])
def test_a_head_may_end_with_bare_newlines(end: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a" + end
    assert HeadReader().feed(head + b"x") == (head, b"x")
    assert framing.request_head(head).header("host") == "a"


def test_a_head_above_one_megabyte_is_refused() -> None:
    reader = HeadReader()
    for _ in range(15):
        assert reader.feed(b"X: " + b"y" * (64 << 10) + b"\r\n") is None
    with pytest.raises(HeadTooLargeError):
        reader.feed(b"y" * (64 << 10))
    with pytest.raises(HeadTooLargeError):
        HeadReader().feed(b"X: " + b"y" * (1 << 20) + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("held", "may"),
    [
        (b"", True),
        (b"\r\n", True),
        (b"GE", True),
        (b"GET /pa", True),
        (b"GET / HTTP/1.1\r\nHos", True),
        (b"M-SEARCH * HTTP/1.1\r\n", True),
        (b"\x16\x03\x01", False),
        (b"PRI * HTTP/2.0\r\n", False),
        (b"GET /\r\n", False),
        (b"HELO there\r\n", False),
        (b"A" * 33, False),
    ],
)
def test_other_protocols_are_recognised_by_their_first_bytes(held: bytes, may: bool) -> None:
    assert framing.may_be_request(held) is may


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/2\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\nna me: x\r\n\r\n"]
)
def test_a_malformed_request_is_no_http(head: bytes) -> None:
    with pytest.raises(NotHttpError):
        framing.request_head(head)


def test_folded_lines_and_repeated_headers_are_read() -> None:
    head = framing.request_head(b"GET / HTTP/1.1\r\nA: 1\r\n  2\r\na: 3\r\n\r\n")
    assert head.headers == (("a", "1 2"), ("a", "3"))


@given(st.lists(st.integers(0, 100)))
def test_a_chunked_body_is_followed_wherever_it_is_cut(cuts: list[int]) -> None:
    body, decoded, taken = Body(chunked=True), [], b""
    for piece in pieces(CHUNKED + b"next", cuts):
        start = body.advance(piece, 0, decoded) if not body.done else 0
        taken += piece[:start]
    assert taken == CHUNKED
    assert b"".join(decoded) == b"abcd0123456789"
    assert body.done


@pytest.mark.parametrize("data", [b"x\r\n", b"\r\n", b"-1\r\n", b"4\r\nabcdef\r\n", b"5" * (70 << 10)])
def test_a_malformed_chunk_is_no_http(data: bytes) -> None:
    with pytest.raises(NotHttpError):
        Body(chunked=True).advance(data, 0)


def test_a_body_of_known_length_ends_there() -> None:
    body, decoded = Body(length=5), []
    assert body.advance(b"abc", 0, decoded) == 3
    assert not body.done
    assert body.advance(b"defgh", 0, decoded) == 2
    assert body.done
    assert b"".join(decoded) == b"abcde"


@pytest.mark.parametrize(
    ("head", "done", "until_close"),
    [
        (answer(content_length="3"), False, False),
        (answer(content_length="0"), True, False),
        (answer(204), True, False),
        (answer(304, content_length="9"), True, False),
        (answer(100), True, False),
        (answer(method="HEAD", content_length="9"), True, False),
        (answer(transfer_encoding="gzip, chunked", content_length="9"), False, False),
        (answer(transfer_encoding="gzip"), False, True),
        (answer(), False, True),
    ],
)
def test_bodies_of_answers_end_as_rfc_9112_has_it(head: AnswerHead, done: bool, until_close: bool) -> None:
    body = framing.body_of_answer(head)
    assert (body.done, body.until_close) == (done, until_close)


@pytest.mark.parametrize(
    "headers",
    [
        (("content-length", "3"), ("content-length", "4")),
        (("content-length", "+3"),),
        (("content-length", "3, 4"),),
        (("transfer-encoding", "gzip"),),
    ],
)
def test_an_ambiguous_length_is_no_http(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(NotHttpError):
        framing.body_of_request(RequestHead(method="POST", path="/", version="1.1", headers=headers))


def test_a_repeated_length_that_agrees_is_one() -> None:
    head = RequestHead(method="POST", path="/", version="1.1", headers=(("content-length", "3, 3"),))
    assert not framing.body_of_request(head).done
    assert framing.body_of_request(GET).done


def test_upgrades_and_connects_become_tunnels() -> None:
    assert framing.is_tunnel(answer(101))
    assert framing.is_tunnel(answer(200, method="CONNECT"))
    assert not framing.is_tunnel(answer(403, method="CONNECT"))
    assert not framing.is_tunnel(answer())


def test_an_answer_needs_a_status_line() -> None:
    assert framing.answer_head(b"HTTP/1.0 404\r\n\r\n", GET).status == 404
    with pytest.raises(NotHttpError):
        framing.answer_head(b"ICY 200 OK\r\n\r\n", GET)


@pytest.mark.parametrize("line", [b"Content-Length:\r\n 2\r\n", b"transfer-encoding: gzip,\r\n\tchunked\r\n"])
def test_a_length_that_is_removed_leaves_no_folded_line(line: bytes) -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-A: a\r\n" + line + b"\r\n"

    assert (
        framing.without_length(raw, chunked=True) == b"HTTP/1.1 200 OK\r\nX-A: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
