"""The first request to a user's stack: good answers, and one line for each cause."""

from __future__ import annotations

import gzip
import json
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.api_server import GOOD, Asked, Reply, api, certificate
from support.stream_shapes import SHAPES

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.loadgen import first_request
from pytest_llmchaos.loadgen.first_request import check_requests, require_answer
from pytest_llmchaos.subject.headers import Header, headers_of
from pytest_llmchaos.subject.requests import PATHS, Requests

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

SECRET = "Zx9-planted-secret"
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits, and a secret is in the environment."""
    monkeypatch.setattr(first_request, "RETRY_S", 0.01)
    monkeypatch.setattr(first_request, "REFUSED_S", 0.2)
    monkeypatch.setenv("LLM_CREDENTIAL", SECRET)


def require(url: str, startup_s: float = 5.0, model: str = "m", **requests: Any) -> list[str]:
    """The lines on problems that were printed before a good answer came."""
    lines: list[str] = []
    subject: Any = SimpleNamespace(api="web", model=model, requests=Requests(**requests), startup_s=startup_s)
    require_answer(url, subject, lines.append)
    assert lines[0] == f"first request to web: its answer may take {startup_s:g} s"
    return lines[1:]


def refusal(
    answer: Callable[[Asked], Reply | None],
    certified: ssl.SSLContext | None = None,
    startup_s: float = 5.0,
    **about: Any,
) -> str:
    """The one line of an error, which has no secret."""
    with api(answer, certified) as (url, _), pytest.raises(NotReady) as refused:
        require(url, startup_s, **about)
    told = str(refused.value)
    assert told.startswith("the first request to web failed")
    assert "\n" not in told
    assert SECRET not in told
    return told


def only(path: str, reply: Reply | None = None, status: int = 404) -> Callable[[Asked], Reply]:
    """A service with this one path."""
    return lambda asked: (
        (reply or Reply()) if asked.path == path else Reply(b"404 page not found\n", status, "text/plain")
    )


def always(*about: Any, **more: Any) -> Callable[[Asked], Reply]:
    return lambda _: Reply(*about, **more)


def test_the_request_is_like_the_loads() -> None:
    headers = headers_of(["Authorization: Bearer $LLM_CREDENTIAL", "Host: llm.localhost"])
    with api(always()) as (url, asked):
        assert require(url, model="theirs", headers=headers, path="/api?k=$LLM_CREDENTIAL") == []

    (one,) = asked
    assert (one.method, one.path) == ("POST", f"/api?k={SECRET}")
    assert {name: one.headers[name] for name in ("host", "authorization", "content-type")} == {
        "host": "llm.localhost",
        "authorization": f"Bearer {SECRET}",
        "content-type": "application/json",
    }
    assert "accept-encoding" not in one.headers
    assert json.loads(one.body) == {
        "model": "theirs",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "Count to ten."}],
    }


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.outcome == "ok"])
def test_a_good_answer_of_each_dialect_is_enough(name: str) -> None:
    shape = SHAPES[name]
    with api(always(shape.body)) as (url, _):
        assert require(url, dialect=shape.dialect, path=PATHS[shape.dialect]) == []


def test_a_service_that_loads_is_waited_for_and_the_wait_is_printed_once() -> None:
    statuses = [503, 503, 429, 502]
    with api(lambda _: Reply(b"busy", statuses.pop(0), "text/plain") if statuses else Reply()) as (url, _):
        said = require(url)

    assert said == [
        f"waiting for web: POST {CHAT} got {status}, 'busy': it may still be loading" for status in (503, 429, 502)
    ]


def test_a_service_that_does_not_listen_yet_is_waited_for() -> None:
    closed = [None, None]
    with api(lambda asked: closed.pop() if asked.method == "POST" and closed else Reply()) as (url, _):
        said = require(url)

    assert len(said) == 1
    assert "got no answer (RemoteProtocolError: Server disconnected" in said[0]


def test_a_wait_ends_at_its_deadline() -> None:
    told = refusal(always(b"loading model", 503, "text/plain"), startup_s=0.1)

    assert f"failed after 0 s: POST {CHAT} got 503, 'loading model': it may still be loading" in told
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(NotReady, match=r"got no answer .*refused.*: check the port in llmchaos_api"):
        require(url)


def test_an_answer_that_does_not_come_is_an_error_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_request, "_PROBE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NotReady, match=r"got no answer in time \(ReadTimeout: timed out\): is its model loaded\?"):
            require(url, startup_s=0.1)


KEYS = [
    (
        always(b'{"error": {"message": "no key"}}', 401, "application/json"),
        (),
        (
            f"""POST {CHAT} got 401, '{{"error": {{"message": "no key"}}}}': """
            'set llmchaos_headers = ["Authorization: Bearer $API_KEY"], and the environment variable API_KEY'
        ),
    ),
    (always(b"", 403), (), 'got 403 without a body: set llmchaos_headers = ["Authorization: Bearer $API_KEY"]'),
    (always(b"missing x-api-key", 401), (), 'set llmchaos_headers = ["x-api-key: $API_KEY"]'),
    (always(b"use the api-key header", 401), (), 'set llmchaos_headers = ["api-key: $API_KEY"]'),
    (
        always(b"no", 401, more={"WWW-Authenticate": 'Basic realm="x"'}),
        (),
        'set llmchaos_headers = ["Authorization: Basic $API_KEY"]',
    ),
    (
        always(b"your key " + SECRET.encode() + b" is unknown", 401),
        ("X-Team: $LLM_CREDENTIAL", "Host: web"),
        "'your key *** is unknown': it does not accept X-Team of llmchaos_headers: check the values",
    ),
]


@pytest.mark.parametrize(("answer", "headers", "message"), KEYS)
def test_a_missing_or_wrong_key_names_the_header_to_set(answer: Any, headers: Any, message: str) -> None:
    assert message in refusal(answer, headers=headers_of(headers))


def test_a_secret_on_the_edge_of_an_excerpt_is_hidden_whole() -> None:
    body = b"x" * 195 + b" " + SECRET.encode() + b" y"

    told = refusal(always(body, 422, "text/plain"), headers=(Header("X-Team", "$LLM_CREDENTIAL"),))

    assert "Zx9" not in told
    assert "***" in told


PATHS_FOUND = [
    (
        only("/api/chat/completions"),
        {},
        'POST /api/chat/completions got 200: set llmchaos_path = "/api/chat/completions"',
    ),
    (
        only("/api/chat/completions", Reply(b"", 401)),
        {},
        'POST /api/chat/completions got 401: set llmchaos_path = "/api/chat/completions"',
    ),
    (only("/api/chat"), {}, 'POST /api/chat got 200: set llmchaos_dialect = "ollama"'),
    (only("/generate_stream", status=405), {}, "got 405, '404 page not found': POST /generate_stream got 200: set"),
    (only(CHAT), {"path": "/v2/chat"}, f'POST {CHAT} got 200: set llmchaos_path = "{CHAT}"'),
    (
        only(CHAT),
        {"dialect": "ollama", "path": "/api/x"},
        f'POST {CHAT} got 200: set llmchaos_dialect = "chat" and llmchaos_path = "{CHAT}"',
    ),
    (only("/nowhere"), {}, "no other usual path answers: set llmchaos_path, or Host in llmchaos_headers"),
    (
        lambda asked: Reply(b"<html>\n<title>Chat</title>", kind="text/html; charset=utf-8"),
        {},
        f"POST {CHAT} got 200, '<html> <title>Chat</title>', a web page (text/html): no other usual path answers",
    ),
    (
        lambda asked: Reply() if asked.path == "/api/chat/completions" else Reply(b"<html>", kind="text/html"),
        {},
        'a web page (text/html): POST /api/chat/completions got 200: set llmchaos_path = "/api/chat/completions"',
    ),
    (lambda asked: Reply(b"", 404) if asked.path == CHAT else None, {}, "no other usual path answers"),
]


@pytest.mark.parametrize(("answer", "requests", "message"), PATHS_FOUND)
def test_another_path_that_answers_is_named(answer: Any, requests: Any, message: str) -> None:
    assert message in refusal(answer, **requests)


REDIRECTS = [
    (
        "https://localhost/v1/chat/completions",
        "it redirects to https://localhost/v1/chat/completions: set llmchaos_tls to",
    ),
    ("/v1/chat/completions/", "it redirects to /v1/chat/completions/: set llmchaos_path if the API is there"),
    ("/login", "set llmchaos_path if the API is there, or llmchaos_headers if it is a login"),
    ("http://other/v1/chat/completions", "and clients do not follow: set Host in llmchaos_headers"),
    ("", "it redirects to no address, and clients do not follow"),
]


@pytest.mark.parametrize(("to", "message"), REDIRECTS)
def test_a_redirect_is_not_followed_but_named(to: str, message: str) -> None:
    told = refusal(always(b"", 308, more={"Location": to}))

    assert "got 308 without a body: it redirects to" in told
    assert message in told


MODELS = b'{"object":"list","data":[{"id":"llama3"},{"id":"qwen"}]}'
UNKNOWN = [
    b'{"error":{"message":"The model `m` does not exist.","type":"NotFoundError","code":404}}',  # vLLM
    b'{"error":{"message":"litellm.BadRequestError: Invalid model name passed in model=m"}}',  # LiteLLM
    b'{"error":{"message":"The model \'m\' does not exist","code":"model_not_found"}}',  # OpenAI
    b'{"error":"model \'m\' not found, try pulling it first"}',  # Ollama
]


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize("body", UNKNOWN, ids=["vllm", "litellm", "openai", "ollama"])
def test_an_unknown_model_is_named_with_those_that_the_service_has(body: bytes, status: int) -> None:
    told = refusal(lambda asked: Reply(MODELS) if asked.path == "/v1/models" else Reply(body, status))

    assert "set llmchaos_model, which is 'm'; its models are llama3, qwen" in told
    assert f"got {status}, " in told


def behind_a_key(asked: Asked) -> Reply:
    """A service on another path, which wants a key and lists its models to anyone."""
    answers = {"/v1/models": Reply(MODELS), "/api/chat/completions": Reply(b"no key", 401)}
    return answers.get(asked.path, Reply(b"no such page", 404))


SEVERAL_CAUSES = {
    "path and key": (
        behind_a_key,
        'set llmchaos_path = "/api/chat/completions"; set llmchaos_headers = ["Authorization: Bearer $API_KEY"]',
    ),
    "path and model": (
        only("/api/chat/completions", Reply(UNKNOWN[0], 404)),
        "POST /api/chat/completions got 404: set llmchaos_path = \"/api/chat/completions\"; set llmchaos_model, which is 'm'",
    ),
    "key and model": (
        lambda asked: Reply(MODELS) if asked.path == "/v1/models" else Reply(b"no key", 401),
        "and the environment variable API_KEY; llmchaos_model is 'm', and its models are llama3, qwen",
    ),
}


@pytest.mark.parametrize(("answer", "message"), SEVERAL_CAUSES.values(), ids=SEVERAL_CAUSES)
def test_all_that_an_answer_shows_is_in_one_message(answer: Any, message: str) -> None:
    assert message in refusal(answer)


def test_a_model_that_is_listed_needs_no_remark() -> None:
    told = refusal(lambda asked: Reply(b'{"data":[{"id":"m"}]}') if asked.path == "/v1/models" else Reply(b"no", 401))

    assert told.endswith("and the environment variable API_KEY")


@pytest.mark.parametrize(
    ("path", "dialect", "listed", "message"),
    [
        ("/v1/models", "chat", b'{"data":[]}', "which is 'm'; its list of models is empty"),
        ("/v1/models", "chat", b"no JSON", "set llmchaos_model, which is 'm'"),
        ("/api/tags", "ollama", b'{"models":[{"name":"smollm2:135m"}]}', "its models are smollm2:135m"),
    ],
)
def test_the_list_of_models_is_that_of_the_dialect(path: str, dialect: Any, listed: bytes, message: str) -> None:
    told = refusal(
        lambda asked: Reply(listed) if asked.path == path else Reply(UNKNOWN[3], 404),
        dialect=dialect,
        path=PATHS[dialect],
    )

    assert told.endswith(message)


REFUSED = [
    (
        Reply(b'{"detail":[{"loc":["body","stop"],"msg":"field required"}]}', 422),
        'got 422, \'{"detail":[{"loc":["body","stop"],"msg":"field required"}]}\': change the request with llmchaos_request',
    ),
    (
        Reply(b"'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", 400),
        'write {"max_completion_tokens": 0} into the file of llmchaos_request',
    ),
    (Reply(b"Unsupported value: 'temperature' does not support 0", 400), 'write {"temperature": null} into'),
    (
        Reply(b"Unrecognized request argument supplied: stream_options.", 400),
        'write {"stream_options": null} into the file of llmchaos_request; costs then lack the prompts',
    ),
    (Reply(b'{"detail":[{"loc":["body","stream_options","include_usage"]}]}', 422), 'write {"stream_options": null}'),
    (
        Reply(b"Client sent an HTTP request to an HTTPS server.", 400),
        "the service expects TLS: set llmchaos_tls to its CA file",
    ),
    (Reply(b"<h1>400</h1> The plain HTTP request was sent to HTTPS port", 400), "the service expects TLS"),
    (Reply(b"boom", 500), "got 500, 'boom': change the request with llmchaos_request, or repair the service"),
]


@pytest.mark.parametrize(("reply", "message"), REFUSED)
def test_a_refused_request_is_explained_in_the_servers_words(reply: Reply, message: str) -> None:
    assert message in refusal(lambda _: reply)


def shape(name: str) -> bytes:
    return bytes(SHAPES[name].body)


STREAMS = [
    (
        Reply(b'{"choices":[]}', kind="application/json"),
        "with the content type application/json instead of text/event-stream",
    ),
    (
        Reply(shape("Ollama, captured"), kind="application/x-ndjson"),
        'is not the dialect chat: set llmchaos_dialect = "ollama"',
    ),
    (Reply(shape("completions")), 'which is not the dialect chat: set llmchaos_dialect = "completions"'),
    (Reply(shape("TGI")), 'which is not the dialect chat: set llmchaos_dialect = "tgi"'),
    (
        Reply(shape("no end")),
        "a stream without a good finish reason and `[DONE]`: each answer would count as truncated",
    ),
    (Reply(shape("vLLM, error")), "a stream with an error in it: repair the service"),
    (Reply(shape("not JSON")), "a stream with events that are not of the dialect chat"),
    (
        Reply(gzip.compress(GOOD), more={"Content-Encoding": "gzip"}),
        "bytes of text/event-stream', compressed (gzip), which the clients do not accept: switch compression off",
    ),
    (
        Reply(b"\x89PNG\r\n", kind="image/png"),
        "got 200, '6 bytes of image/png', with the content type image/png instead",
    ),
    (Reply(b"a\0b", kind="text/plain"), "got 200, '3 bytes of text/plain', with the content type text/plain instead"),
    (Reply("größer".encode()[:3], kind="text/plain"), "got 200, 'gr\ufffd', with the content type text/plain instead"),
    (Reply(GOOD, more={"Content-Length": "9999"}), "and the answer broke off: peer closed connection"),
]


@pytest.mark.parametrize(("reply", "message"), STREAMS)
def test_an_answer_that_is_no_good_stream_is_explained(reply: Reply, message: str) -> None:
    assert message in refusal(lambda _: reply)


def test_a_stream_of_another_dialect_lacks_its_last_event() -> None:
    told = refusal(
        always(shape("Ollama, not finished"), kind="application/x-ndjson"), dialect="ollama", path="/api/chat"
    )

    assert "without a good finish reason and its last event" in told


def test_an_answer_without_end_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_request, "MOST_BYTES", 10)

    assert "and the answer broke off: it is longer than 10 bytes" in refusal(always())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def localhost(folder: Path) -> ssl.SSLContext:
    return certificate(folder, "DNS:localhost")


class TestTls:
    def test_the_certificate_is_checked_by_the_ca_and_for_localhost(
        self, folder: Path, localhost: ssl.SSLContext
    ) -> None:
        with api(always(), localhost) as (url, asked):
            assert require(url, tls=str(folder / "ca.pem")) == []

        assert asked[0].headers["host"] == f"localhost:{url.rpartition(':')[2]}"

    def test_another_name_is_that_of_host(self, tmp_path: Path) -> None:
        context = certificate(tmp_path, "DNS:llm.localhost")
        host = (Header("Host", "llm.localhost"),)
        with api(always(), context) as (url, _):
            assert require(url, tls=str(tmp_path / "ca.pem"), headers=host) == []

        told = refusal(always(), context, tls=str(tmp_path / "ca.pem"))

        assert "TLS: Hostname mismatch, certificate is not valid for 'localhost'." in told
        assert told.endswith(
            'set Host in llmchaos_headers to a name of the certificate, or llmchaos_tls to "unverified"'
        )

    def test_an_unknown_ca_is_named_and_not_checked_if_unverified(self, localhost: ssl.SSLContext) -> None:
        told = refusal(always(), localhost, tls="system")

        assert "TLS: the CA of the certificate for 'localhost' is unknown (" in told
        assert told.endswith("set llmchaos_tls to its CA file")
        with api(always(), localhost) as (url, _):
            assert require(url, tls="unverified") == []

    def test_plain_http_on_a_port_with_tls_and_the_reverse_are_explained(self, localhost: ssl.SSLContext) -> None:
        assert "the service expects TLS on this port: set llmchaos_tls" in refusal(always(), localhost)
        assert "the service has no TLS on this port: remove llmchaos_tls" in refusal(always(), tls="unverified")

    def test_a_file_that_holds_no_ca_is_an_error_before_anything_starts(self, tmp_path: Path) -> None:
        file = tmp_path / "ca.pem"
        file.write_text("no certificate")

        with pytest.raises(NotReady, match=r"llmchaos_tls: .*ca\.pem must be a PEM file with the certificates of a CA"):
            check_requests(Requests(tls=str(file)))
        for good in ("", "system", "unverified"):
            check_requests(Requests(tls=good))


def test_a_variable_that_is_not_set_is_an_error_before_anything_starts() -> None:
    with pytest.raises(
        NotReady, match="needs the environment variable NOT_SET, which is not set: set it before pytest"
    ):
        check_requests(Requests(headers=headers_of(["Authorization: Bearer $NOT_SET"])))
