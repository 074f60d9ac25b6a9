"""HTTP answers of any shape: read, or reported as unusable."""

import asyncio
import copy
import json
import time
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from lab_remediator.clients import AskError, Docker, Prober, Prometheus, readings_of
from lab_remediator.model import Container, Reading
from lab_remediator.rules import Signal
from lab_remediator.settings import Settings

PROJECT, SERVICES = "llmchaos-1-abcd", ("api", "model-1")
SIGNAL = Signal(name="health", query="up", by="service", fires_at="< 1")
LABELS = {"com.docker.compose.project": PROJECT, "com.docker.compose.service": "api"}
INSPECTED = {
    "Id": "abc",
    "State": {
        "Status": "running",
        "StartedAt": "2026-01-01T00:00:00.5Z",
        "ExitCode": 0,
        "Health": {"Status": "healthy"},
    },
    "RestartCount": 0,
    "Config": {"Labels": LABELS},
}
VECTOR = {"resultType": "vector", "result": [{"metric": {"service": "api"}, "value": [5.0, "1"]}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """The path of every value within a value, itself included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def with_odd(value, path, odd):
    """A copy in which another value stands at the path."""
    if not path:
        return odd
    changed = copy.deepcopy(value)
    where = changed
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = odd
    return changed


def odd_forms(value):
    return st.builds(with_odd, st.just(value), st.sampled_from(list(places(value))), JSON)


@given(odd_forms(VECTOR))
def test_any_answer_of_prometheus_is_readings_or_of_no_use(data):
    with suppress(AskError):
        found = readings_of(data, SIGNAL, SERVICES)

        assert set(found) <= set(SERVICES)
        assert all(isinstance(one, Reading) and one.at == one.at for one in found.values())


@given(odd_forms(INSPECTED))
def test_any_container_is_read_or_of_no_use(body):
    class Answers(Docker):
        async def _call(self, *_):
            return 200, body

    with suppress(AskError):
        seen = asyncio.run(Answers(None, "", PROJECT).inspect("api"))

        assert isinstance(seen, Container)
        assert isinstance(seen.id, str)
        assert isinstance(seen.restart_count, int)


@asynccontextmanager
async def served(handler):
    """Address of a server that passes every request to the handler, and a session."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", http
    finally:
        await runner.cleanup()


class Policy:
    services = SERVICES


BODIES = {
    "empty": "",
    "a page": "<html>sign in</html>",
    "nested too deep": "[" * 100_000,
    "a number too long": "1" * 5000,
    "null": "null",
    "a list": "[]",
    "an object": "{}",
    "a text": '"ok"',
    "success without data": '{"status": "success"}',
    "success with odd data": '{"status": "success", "data": {"resultType": "vector", "result": [{}]}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_200_with_an_odd_body_is_of_no_use_and_ends_nothing(body):
    async def answer(_):
        return web.Response(text=body, content_type="application/json")

    async def scenario():
        async with served(answer) as (url, http):
            with pytest.raises(AskError, match="health"):
                await Prometheus(http, url).readings(SIGNAL, Policy)
            with pytest.raises(AskError, match="api"):
                await Docker(http, url, PROJECT).inspect("api")

    asyncio.run(scenario())


def test_redirects_are_not_followed():
    asked = []

    async def answer(request):
        asked.append(request.path)
        if request.path == "/elsewhere":
            return web.Response(text=json.dumps({"status": "success", "data": VECTOR}))
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async def scenario():
        async with served(answer) as (url, http):
            port = url.rpartition(":")[2]
            prober = Prober(http, "/health", {"api:8000": f"127.0.0.1:{port}"})
            probe = Signal(name="p", probe="http://{service}:8000{health_path}", fires_at="< 1")
            before = time.time()
            reading = await prober.reading(probe, "api")
            assert reading is not None
            assert reading.at >= before
            with pytest.raises(AskError):
                await Prometheus(http, url).readings(SIGNAL, Policy)
            with pytest.raises(AskError, match="HTTP 307"):
                await Docker(http, url, PROJECT).inspect("api")

    asyncio.run(scenario())

    assert "/elsewhere" not in asked


CANARY = Signal(name="c", probe="http://{service}:8000/", fires_at="< 1", post={"q": 1}, canary=True)


@pytest.mark.parametrize(
    ("right", "status", "body", "value"),
    [
        ("tweet", 200, '{"choices": [{"message": {"content": "tweet "}}]}', 1.0),
        ("tweet", 200, '{"choices": [{"message": {"content": "!!!!!"}}]}', 0.0),
        ("tweet", 200, '{"choices": [{"message": {"content": ""}}]}', 0.0),
        ("tweet", 200, '{"choices": []}', None),
        ("tweet", 200, "no JSON", None),
        ("tweet", 500, '{"choices": [{"message": {"content": "!!!!!"}}]}', None),
        ("", 200, '{"choices": [{"message": {"content": "!!!!!"}}]}', None),
    ],
)
def test_a_canary_is_about_the_text_of_an_answer_alone(right, status, body, value):
    """Other rules read a status. Without a known answer there is no canary."""

    async def answer(_):
        return web.Response(status=status, text=body)

    async def scenario():
        async with served(answer) as (url, http):
            address = {"api:8000": f"127.0.0.1:{url.rpartition(':')[2]}"}
            reading = await Prober(http, "/health", address, canary=right).reading(CANARY, "api")
            assert (reading and reading.value) == value

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("busy_is_bad", "status", "value"),
    [(False, 503, None), (True, 503, 0.0), (True, 404, None), (True, 200, 1.0), (True, 500, 0.0)],
)
def test_a_503_is_no_evidence_unless_busy_is_bad(busy_is_bad, status, value):
    async def answer(_):
        return web.Response(status=status)

    async def scenario():
        async with served(answer) as (url, http):
            address = {"api:8000": f"127.0.0.1:{url.rpartition(':')[2]}"}
            signal = Signal(name="p", probe="http://{service}:8000/", fires_at="< 1", busy_is_bad=busy_is_bad)
            reading = await Prober(http, "/health", address).reading(signal, "api")
            assert (reading and reading.value) == value

    asyncio.run(scenario())


def test_a_probe_goes_to_the_address_of_its_service():
    given = Settings.from_env(
        {"LAB_PROJECT": "p", "LAB_REPAIRS": "api", "LAB_ADDRESSES": "api:8000=[::1]:21000,m:80=m:81"}
    )
    prober = Prober(None, "/health", given.addresses)
    probe = Signal(name="p", probe="http://{service}:8000{health_path}", fires_at="< 1")

    assert str(prober._url(probe, "api")) == "http://[::1]:21000/health"
    assert str(prober._url(probe, "model-1")) == "http://model-1:8000/health"
