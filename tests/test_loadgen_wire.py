"""Outcomes of answers by their bytes, received in any pieces."""

import gc
import weakref

import pytest

from pytest_llmchaos.loadgen.wire import UNPARSABLE, Answer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
END = b""

# Received bytes, then the end, status, body, and True if the connection can be reused.
ANSWERS = {
    "length": ([OK + b"Content-Length: 2\r\n\r\nok"], ("complete", 200, b"ok", True)),
    "no body": ([OK + b"Content-Length: 0\r\n\r\n"], ("complete", 200, b"", True)),
    "chunks with trailers": ([CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"], ("complete", 200, b"ok", True)),
    "100, then 200": (
        [b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok"],
        ("complete", 200, b"ok", True),
    ),
    "103 with headers": (
        [b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n", OK + b"\r\nok", END],
        ("complete", 200, b"ok", False),
    ),
    "until the connection closes": ([OK + b"\r\nok", b"more", END], ("complete", 200, b"okmore", False)),
    "a coding without chunks": ([OK + b"Transfer-Encoding: gzip\r\n\r\nok", END], ("complete", 200, b"ok", False)),
    "HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n\r\nok", END], ("complete", 200, b"ok", False)),
    "HTTP/1.0 kept alive": (
        [b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"],
        ("complete", 200, b"ok", True),
    ),
    "connection: close": ([OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"], ("complete", 200, b"ok", False)),
    "204": ([b"HTTP/1.1 204 No Content\r\n\r\n"], ("complete", 204, b"", True)),
    "304 with a length": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"], ("complete", 304, b"", True)),
    "a header of 100 kB": (
        [OK + b"X: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n"],
        ("complete", 200, b"", True),
    ),
    "a header in Latin-1": ([OK + b"X: caf\xe9\r\nContent-Length: 2\r\n\r\nok"], ("complete", 200, b"ok", True)),
    "a header in UTF-8": ([OK + "X: \u00e9\r\nContent-Length: 2\r\n\r\nok".encode()], ("complete", 200, b"ok", True)),
    "a reason that is no ASCII": (
        [b"HTTP/1.1 200 O\xe9K\r\nContent-Length: 2\r\n\r\nok"],
        ("complete", 200, b"ok", True),
    ),
    "nothing": ([END], ("refused", 0, b"", False)),
    "cut in the status": ([b"HTTP/1.", END], ("garbled", 0, b"", False)),
    "cut in the headers": ([OK + b"X: 1\r\n", END], ("cut", 200, b"", False)),
    "cut in a body": ([OK + b"Content-Length: 5\r\n\r\nok", END], ("cut", 200, b"ok", False)),
    "cut in a closing body": (
        [OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nok", END],
        ("cut", 200, b"ok", False),
    ),
    "cut in a chunk": ([CHUNKED + b"5\r\nok", END], ("cut", 200, b"ok", False)),
    "cut before the last chunk": ([CHUNKED + b"2\r\nok\r\n", END], ("cut", 200, b"ok", False)),
    "an interim answer alone": ([b"HTTP/1.1 100 Continue\r\n\r\n", END], ("cut", 100, b"", False)),
}
UNPARSED = {
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n", 0),
    "a broken chunk": (CHUNKED + b"zz\r\nok\r\n", 200),
    "two lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", 200),
    "a length and chunks": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
    "more than its length": (OK + b"Content-Length: 2\r\n\r\nokXXXX", 200),
    "more after connection: close": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nokXXXX", 200),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc", 101),
}


def in_single_bytes(received):
    return [piece[i : i + 1] for piece in received for i in range(max(1, len(piece)))]


@pytest.mark.parametrize("split", [list, in_single_bytes], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_classified_by_its_bytes(name, split):
    received, expected = ANSWERS[name]
    answer = Answer()
    over = [answer.take(piece, 7.0, stream=False) for piece in split(received)]

    assert over == [False] * (len(over) - 1) + [True]
    assert (answer.ended, answer.status, bytes(answer.body), answer.keep_alive) == expected
    assert answer.end_s == 7.0


@pytest.mark.parametrize("name", UNPARSED)
def test_what_breaks_the_protocol_is_an_error_and_its_status_is_known(name):
    received, status = UNPARSED[name]
    answer = Answer()

    with pytest.raises(UNPARSABLE):
        answer.take(received, 0.0, stream=False)
    assert answer.status == status


@pytest.mark.parametrize("split", [list, in_single_bytes], ids=["at once", "byte by byte"])
def test_the_replica_is_named_by_a_header(split):
    answer = Answer(b"x-replica")
    for piece in split([OK + b"X-Replica: model-\xe9\r\nContent-Length: 0\r\n\r\n"]):
        answer.take(piece, 0.0, stream=False)

    assert answer.replica == "model-é"


def test_the_headers_of_an_interim_answer_are_not_the_answer_s_own():
    answer = Answer(b"x-replica")
    answer.take(b"HTTP/1.1 103 Early Hints\r\nX-Replica: model-1\r\nRetry-After: 3\r\n\r\n", 0.0, stream=False)
    answer.take(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 0.0, stream=False)

    assert (answer.status, answer.replica, answer.retry_after) == (503, "", b"")


def test_a_body_that_is_too_long_ends_the_reading():
    answer = Answer(max_bytes=100)

    assert not answer.take(CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n", 1.0, stream=True)
    assert answer.take(b"1\r\nx\r\n", 2.0, stream=True)
    assert (answer.ended, answer.keep_alive, answer.end_s) == ("endless", False, 2.0)


def test_a_stream_can_be_read_to_its_end_after_done():
    answer = Answer()
    assert answer.take(CHUNKED + b"e\r\ndata: [DONE]\n\n\r\n", 0.0, stream=True)
    assert (answer.ended, answer.complete) == ("complete", False)

    answer.feed(b"0\r\n\r\n")
    assert (answer.complete, answer.keep_alive) == (True, True)


def test_a_released_answer_keeps_its_status_and_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        answer = Answer()
        answer.take(OK + b"Content-Length: 0\r\n\r\n", 0.0, stream=False)
        answer.release()
        assert answer.status == 200
        gone = weakref.ref(answer)
        del answer
        assert gone() is None
    finally:
        gc.enable()
