"""The load generator's requests to users' stacks: dialects, headers, TLS, secrets."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.api_server import Reply, api, certificate
from support.sessions import PROXIES
from support.stream_shapes import SHAPES
from support.waiting import until

from pytest_llmchaos.evidence import samples_file
from pytest_llmchaos.loadgen.load_plan import LoadPlan
from pytest_llmchaos.loadgen.process import LoadProcess
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.subject.headers import headers_of
from pytest_llmchaos.subject.requests import PATHS, Requests

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmchaos.model import Sample

SECRET = "Zx9/planted+secret="


def perform(folder: Path, url: str, requests: Requests, **more: Any) -> list[Sample]:
    """Perform a load of three requests."""
    arrivals = tuple(Arrival(i / 50, f"prompt {i}", 5) for i in range(3))
    plan = LoadPlan(url=requests.address(url), model="m", arrivals=arrivals, requests=requests, drain_s=5, **more)
    with LoadProcess(plan, folder) as process:
        until(lambda: not process.alive, "the load has ended", 20)
    return samples_file.load(folder / "samples.jsonl")


@pytest.mark.parametrize(
    "name", ["Ollama, captured", "Ollama generate, captured", "Ollama completions, captured", "TGI"]
)
def test_an_answer_of_each_dialect_is_read(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    requests = Requests(dialect=shape.dialect, path=f"{PATHS[shape.dialect]}?a=1")
    with api(lambda _: Reply(shape.body)) as (url, asked):
        samples = perform(tmp_path, url, requests)

    assert [(one.outcome, one.tokens) for one in samples] == [("ok", shape.tokens)] * 3
    assert {one.path for one in asked} == {f"{PATHS[shape.dialect]}?a=1"}


def test_headers_of_the_environment_reach_the_service_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_CREDENTIAL", SECRET)
    (tmp_path / "request.json").write_text('{"messages": [{"role": "system", "content": "Be short."}]}')
    requests = Requests(
        path="/v1/chat?key=$LLM_CREDENTIAL",
        headers=headers_of(["X-Team: Bearer ${LLM_CREDENTIAL}", "Host: llm.localhost", "X-Literal: planted-literal"]),
        template=tmp_path / "request.json",
    )
    echo = f"your key {SECRET} and planted-literal".encode()
    with api(lambda asked: Reply() if asked.method == "GET" else Reply(echo, 401)) as (url, asked):
        samples = perform(tmp_path / "load", url, requests, ready_path="/ready")

    assert [one.outcome for one in samples] == ["http_4xx"] * 3
    posts = [one for one in asked if one.method == "POST"]
    assert {one.path for one in posts} == {f"/v1/chat?key={SECRET}"}
    for one in asked:
        assert one.headers["x-team"] == f"Bearer {SECRET}"
        assert one.headers["host"] == "llm.localhost"
        assert one.headers["x-literal"] == "planted-literal"
    assert [message["role"] for message in json.loads(posts[0].body)["messages"]] == ["system", "user"]
    written = b"".join(path.read_bytes() for path in (tmp_path / "load").rglob("*") if path.is_file())
    assert b"X-Literal" in written
    assert SECRET.encode() not in written
    assert b"planted-literal" not in written


@pytest.mark.parametrize(
    ("tls", "host", "outcome"),
    [
        ("ca.pem", "", "ok"),
        ("unverified", "", "ok"),
        ("system", "", "refused"),
        ("ca.pem", "Host: other.localhost", "refused"),
    ],
)
def test_a_load_over_tls_checks_the_certificate(tmp_path: Path, tls: str, host: str, outcome: str) -> None:
    context = certificate(tmp_path, "DNS:localhost")
    chosen = str(tmp_path / tls) if tls.endswith(".pem") else tls
    with api(lambda _: Reply(), context) as (url, _):
        samples = perform(tmp_path / "load", url, Requests(tls=chosen, headers=headers_of([host] if host else [])))

    assert [one.outcome for one in samples] == [outcome] * 3


def test_an_idle_timeout_ends_a_silence_over_tls(tmp_path: Path) -> None:
    over = threading.Event()
    with api(lambda _: Reply() if over.wait(20) else None, certificate(tmp_path, "DNS:localhost")) as (url, _):
        samples = perform(tmp_path / "load", url, Requests(tls=str(tmp_path / "ca.pem")), idle_timeout_s=0.3)
        over.set()

    assert [one.outcome for one in samples] == ["timeout"] * 3
    assert all(0.3 <= one.e2e_s < 2 for one in samples)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_no_proxy_takes_the_loads_requests_on_either_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
    shape = SHAPES["TGI"]
    requests = Requests(dialect=shape.dialect)
    with api(lambda one: Reply(shape.body if one.method == "POST" else b"{}"), host=host) as (url, asked):
        samples = perform(tmp_path, url, requests, push_url=url, ready_path="/ready")

    assert [one.outcome for one in samples] == ["ok"] * 3
    assert {"GET", "POST", "PUT"} == {one.method for one in asked}
    assert {one.headers["host"] for one in asked} == {url.removeprefix("http://")}
