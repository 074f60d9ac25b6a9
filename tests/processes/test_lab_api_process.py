"""The gateway as a process: how it starts, how it drains, and how it ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Self

import aiohttp
import uvloop
from aiohttp import web
from support.lab_api_world import MODEL, Model, World, ask, chunk, in_world, sends
from support.waiting import until_async

SERVICES = Path(__file__).parents[2] / "stack" / "services"


class Process:
    """The gateway as its container runs it."""

    def __init__(self, **env: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "lab_api"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICES), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        """Its address, read from its log."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if (said := json.loads(line))["event"] == "listening":
                return f"http://{said['host']}:{said['port']}"
        raise AssertionError(f"it never listened: {self.child.communicate()[1]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.communicate()


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _drained(behaviour, **env: str) -> tuple[bytes, int, int, float]:
    """A stream during SIGTERM: answer, readiness, exit status, seconds to exit."""

    async def story() -> tuple[bytes, int, int, float]:
        model = Model(name="model-1", behaviour=behaviour)
        await model.start()
        loop = asyncio.get_running_loop()
        settings = {"LAB_PORT": "0", "LAB_MODEL": MODEL, "LAB_REPLICAS": f"model-1={model.url}", **env}
        with Process(**settings) as process:
            url = await loop.run_in_executor(None, process.url)
            async with (
                aiohttp.ClientSession() as session,
                session.post(url + "/v1/chat/completions", json=ask()) as response,
            ):
                body = await response.content.readany()
                process.child.send_signal(signal.SIGTERM)
                began_s = time.monotonic()
                readiness = 200
                while readiness == 200 and env.get("LAB_DRAIN") != "off":
                    assert time.monotonic() < began_s + 5, "readiness is not lost"
                    readiness = await loop.run_in_executor(None, _status, url + "/readyz")
                with suppress(aiohttp.ClientPayloadError):
                    async for piece in response.content.iter_any():
                        body += piece
            status = await loop.run_in_executor(None, process.child.wait, 10)
            took_s = time.monotonic() - began_s
        await model.stop()
        return body, readiness, status, took_s

    return uvloop.run(story())


async def _slow_but_good(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(10):
        await response.write(chunk("t ", finish="stop" if number == 9 else None))
        await asyncio.sleep(0.05)
    await response.write(b"data: [DONE]\n\n")
    return response


def test_a_stream_in_flight_finishes_during_a_drain() -> None:
    body, readiness, status, took_s = _drained(_slow_but_good, LAB_DRAIN_S="5")

    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in body
    assert (readiness, status) == (503, 0)
    assert took_s < 3


def test_a_stream_longer_than_the_drain_ends_with_an_error_and_the_process_within_two_seconds() -> None:
    body, readiness, status, took_s = _drained(sends(chunk("a "), then="hang"))

    assert json.loads(body.rstrip().split(b"\n\n")[-1][6:])["error"]["code"] == "draining"
    assert b"[DONE]" not in body
    assert (readiness, status) == (503, 0)
    assert took_s <= 2


def test_without_a_drain_a_stream_is_cut() -> None:
    body, _, status, took_s = _drained(_slow_but_good, LAB_DRAIN="off", LAB_DRAIN_S="5")

    assert body.startswith(b"data: ")
    assert b"[DONE]" not in body
    assert b'"error"' not in body
    assert status == 0
    assert took_s < 3


def test_wrong_settings_end_the_process_with_status_2_and_name_them_all() -> None:
    wrong = {"LAB_REPLICAS": "model-1=ftp://x", "LAB_PORT": "99999", "LAB_QUEUE_MAX": "many", "LAB_GAP_TIMEOUT_S": "0"}
    with Process(**wrong) as process:
        _, said = process.child.communicate(timeout=20)

    assert process.child.returncode == 2
    assert "Traceback" not in said
    for part in (
        "LAB_MODEL",
        "'ftp://x'",
        "'99999'",
        "'many'",
        "LAB_GAP_TIMEOUT_S: expected a number from 0.01 to 600, got '0'",
    ):
        assert part in said


@in_world(replicas=1)
async def test_an_address_in_use_ends_the_process_with_status_2(it: World) -> None:
    port = it.url.rsplit(":", 1)[1]
    with Process(LAB_MODEL=MODEL, LAB_PORT=port, LAB_REPLICAS=f"model-1={it.models[0].url}") as process:
        await until_async(lambda: process.child.poll() is not None, "the process ends", 20)
        said, _ = process.child.communicate()

    assert process.child.returncode == 2
    assert "address already in use" in json.loads(said.splitlines()[-1])["detail"]
