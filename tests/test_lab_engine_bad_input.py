"""Wrong settings, requests and admin calls: one clear error each."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from support.lab_engine_world import MODEL, World, world
from support.waiting import until_async

from lab_common.settings import SettingsError
from lab_engine.boot import BootFaults
from lab_engine.faults.crash_on_boot import CrashOnBoot
from lab_engine.settings import Settings

SETTINGS = {
    "a port that is no number": ({"LAB_PORT": "http"}, "LAB_PORT: expected a whole number from 1 to 65535, got 'http'"),
    "a port out of range": ({"LAB_PORT": "70000"}, "LAB_PORT: expected a whole number from 1 to 65535, got '70000'"),
    "an admin port that clients can reach": (
        {"LAB_PORT": "90", "LAB_ADMIN_PORT": "90"},
        "LAB_ADMIN_PORT: expected a port that clients cannot reach, got 90, which is also LAB_PORT",
    ),
    "an empty model name": (
        {"LAB_MODEL": " "},
        "LAB_MODEL: expected the name of the model in clients' requests, got ' '",
    ),
    "an unknown server": ({"LAB_METRICS": "ollama"}, "LAB_METRICS: expected one of vllm, vllm-0.8, sglang"),
    "an unknown profile": ({"LAB_PROFILE": "h100"}, "LAB_PROFILE: expected one of fast, gpt-oss-120b"),
    "a shape for a real machine": (
        {"LAB_PROFILE": "gpt-oss-120b-h200", "LAB_TOKEN_GAP_S": "0.1"},
        "LAB_TOKEN_GAP_S: expected LAB_PROFILE=fast, the only one shaped by it",
    ),
    "a token gap of nothing": (
        {"LAB_TOKEN_GAP_S": "0"},
        "LAB_TOKEN_GAP_S: expected a number from 1e-06 to 1e+06, got '0'",
    ),
    "a speed that is no number": (
        {"LAB_TOKENS_PER_S": "fast"},
        "LAB_TOKENS_PER_S: expected a number from 1e-06 to 1e+06, got 'fast'",
    ),
    "an infinite speed": (
        {"LAB_TOKENS_PER_S": "inf"},
        "LAB_TOKENS_PER_S: expected a number from 1e-06 to 1e+06, got 'inf'",
    ),
    "a latency that is not a number": (
        {"LAB_FIRST_TOKEN_S": "nan"},
        "LAB_FIRST_TOKEN_S: expected a number from 1e-06 to 1e+06, got 'nan'",
    ),
    "no slots": ({"LAB_SLOTS": "0"}, "LAB_SLOTS: expected a whole number from 1 to 1000000000, got '0'"),
    "half a slot": ({"LAB_SLOTS": "0.5"}, "LAB_SLOTS: expected a whole number from 1 to 1000000000, got '0.5'"),
    "a cache smaller than one request": ({"LAB_KV_BLOCKS": "10"}, "LAB_KV_BLOCKS: the KV cache holds 160 tokens"),
    "a model longer than the cache": ({"LAB_MAX_MODEL_TOKENS": "999999"}, "fewer than max_model_tokens 999999"),
    "jitter beyond belief": ({"LAB_JITTER": "2"}, "LAB_JITTER: expected a number from 0 to 0.5, got '2'"),
    "a negative queue": ({"LAB_QUEUE_MAX": "-1"}, "LAB_QUEUE_MAX: expected a whole number from 0 to 100000, got '-1'"),
    "a load time of days": ({"LAB_LOAD_S": "1e9"}, "LAB_LOAD_S: expected a number from 0 to 3600, got '1e9'"),
    "a state folder that is not there": (
        {"LAB_STATE_DIR": "/nowhere/at/all"},
        "LAB_STATE_DIR: expected a folder that can be written to, got '/nowhere/at/all'",
    ),
}

MESSAGES = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, tuple[Any, int, str]] = {
    "not JSON": (b"{nope", 400, "the body is not JSON"),
    "no UTF-8": (b'"\xff\xfe"', 400, "the body is not JSON"),
    "nested a thousand times too deep": (b"[" * 100_000, 400, "the body is not JSON"),
    "a list": ([], 400, "the body must be a JSON object, got []"),
    "no model": ({"messages": MESSAGES}, 400, "'model' must be a string, got null"),
    "another model": ({"model": "gpt-9", "messages": MESSAGES}, 404, "The model `gpt-9` does not exist"),
    "no messages": ({}, 400, "'messages' must be a list with at least one message, got null"),
    "empty messages": ({"messages": []}, 400, "got []"),
    "a message that is text": ({"messages": ["hi"]}, 400, "'messages[0]' must be an object"),
    "an unknown role": ({"messages": [{"role": "robot", "content": ""}]}, 400, "must be one of system, developer"),
    "content that is a number": ({"messages": [{"role": "user", "content": 5}]}, 400, "'messages[0].content'"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "parts of type text only"),
    "no message of a user": ({"messages": [{"role": "system", "content": "x"}]}, 400, "no message of role user"),
    "half a character": (
        b'{"model":"smollm2:135m","messages":[{"role":"user","content":"\\ud800"}]}', 400, "lone surrogate",
    ),
    "no tokens": ({"messages": MESSAGES, "max_tokens": 0}, 400, "'max_tokens' must be a whole number of at least 1"),
    "tokens beyond all models": (
        {"messages": MESSAGES, "max_tokens": 10**4299},
        400,
        "a whole number of at least 1 and at most 1000000000",
    ),
    "tokens in words": ({"messages": MESSAGES, "max_tokens": "ten"}, 400, "got \"ten\""),
    "more than fits": ({"messages": MESSAGES, "max_tokens": 9000}, 400, "maximum context length is 8192 tokens"),
    "a prompt too long": ({"messages": [{"role": "user", "content": "x" * 40_000}]}, 400, "maximum context length"),
    "a stop of nothing": ({"messages": MESSAGES, "stop": ""}, 400, "'stop' must be a string or up to 4 strings"),
    "a stop longer than any answer": ({"messages": MESSAGES, "stop": "x" * 2000}, 400, "of 1 to 1000 characters"),
    "five stops": ({"messages": MESSAGES, "stop": list("abcde")}, 400, "up to 4 strings"),
    "too hot": ({"messages": MESSAGES, "temperature": 3}, 400, "'temperature' must be a number from 0 to 2, got 3"),
    "a seed in words": ({"messages": MESSAGES, "seed": "x"}, 400, "'seed' must be a whole number"),
    "stream perhaps": ({"messages": MESSAGES, "stream": "yes"}, 400, "'stream' must be true or false"),
    "stream options without a stream": (
        {"messages": MESSAGES, "stream_options": {"include_usage": True}}, 400, "only allowed when 'stream' is true",
    ),
    "two answers": ({"messages": MESSAGES, "n": 2}, 400, "'n' is not modelled"),
    "tools": ({"messages": MESSAGES, "tools": [{"type": "function"}]}, 400, "'tools[0]' must be an object of type function"),
    "an answer both continued and begun": (
        {"messages": [*MESSAGES, {"role": "assistant", "content": "x"}], "continue_final_message": True},
        400,
        "'continue_final_message' needs 'add_generation_prompt' false",
    ),
    "a question continued": (
        {"messages": MESSAGES, "continue_final_message": True, "add_generation_prompt": False},
        400,
        "needs a last message of role assistant, got \"user\"",
    ),
    "an answer continued perhaps": (
        {"messages": MESSAGES, "continue_final_message": 1}, 400, "'continue_final_message' must be true or false",
    ),
    "an answer begun perhaps": (
        {"messages": MESSAGES, "add_generation_prompt": "no"}, 400, "'add_generation_prompt' must be true or false",
    ),
    "a body too large": (b'"' + b"x" * (5 << 20) + b'"', 413, "larger than 4194304 bytes"),
}  # fmt: skip

ADMIN_CALLS: dict[str, tuple[str, str, Any, int, str]] = {
    "no body": ("POST", "/faults", b"", 400, "the body is not JSON"),
    "a list": ("POST", "/faults", [], 400, "a fault must be a JSON object"),
    "no kind": ("POST", "/faults", {"lease_s": 1}, 400, "kind must be one of corrupted_output"),
    "an unknown kind": ("POST", "/faults", {"kind": "flood", "lease_s": 1}, 400, "got 'flood'"),
    "a kind that is a list": ("POST", "/faults", {"kind": ["hang"], "lease_s": 1}, 400, "got ['hang']"),
    "no lease": ("POST", "/faults", {"kind": "hang"}, 400, "lease_s is missing"),
    "a lease of no time": ("POST", "/faults", {"kind": "hang", "lease_s": 0}, 400, "lease_s must be greater than 0"),
    "a lease for ever": ("POST", "/faults", {"kind": "hang", "lease_s": 1e9}, 400, "lease_s must be at most 3600"),
    "a lease in words": ("POST", "/faults", {"kind": "hang", "lease_s": "10"}, 400, "must be a finite number, got '10'"),
    "a lease that is true": ("POST", "/faults", {"kind": "hang", "lease_s": True}, 400, "must be a finite number"),
    "an unknown option": ("POST", "/faults", {"kind": "hang", "lease_s": 1, "why": 1}, 400, "has no option 'why'"),
    "a misspelt option": (
        "POST", "/faults", {"kind": "gpu_saturation", "lease_s": 1, "ratio": 1}, 400, "'ratio'; it takes share",
    ),
    "a neighbour that takes all": (
        "POST", "/faults", {"kind": "gpu_saturation", "lease_s": 1, "share": 1}, 400, "share must be at most 0.99",
    ),
    "a share in words": (
        "POST", "/faults", {"kind": "gpu_saturation", "lease_s": 1, "share": "all"}, 400, "share must be a finite number",
    ),
    "memory of nothing known": (
        "POST", "/faults", {"kind": "gpu_exhaustion", "lease_s": 1, "what": "disk"}, 400, "kv_cache, device_memory",
    ),
    "half an XID": ("POST", "/faults", {"kind": "xid", "lease_s": 1, "code": 7.5}, 400, "code must be a whole number"),
    "an engine's unknown fate": (
        "POST", "/faults", {"kind": "xid", "lease_s": 1, "engine": "maybe"}, 400, "survives, dies, errors",
    ),
    "a slowdown that speeds up": (
        "POST", "/faults", {"kind": "cpu_fallback", "lease_s": 1, "slowdown": 0.5}, 400, "slowdown must be greater than 1",
    ),
    "clocks that rise": (
        "POST", "/faults", {"kind": "thermal_throttling", "lease_s": 1, "clock_ratio": 2}, 400, "at most 0.99",
    ),
    "corruption of an unknown form": (
        "POST", "/faults", {"kind": "corrupted_output", "lease_s": 1, "how": []}, 400, "garbage, wrong, swapped, got []",
    ),
    "a leak of nothing": (
        "POST", "/faults", {"kind": "memory_leak", "lease_s": 1, "bytes_per_s": 0}, 400, "bytes_per_s must be at least 1",
    ),
    "a crash at a start that nothing remembers": (
        "POST", "/faults", {"kind": "crash_on_boot", "lease_s": 1}, 409, "set LAB_STATE_DIR",
    ),
    "an end of nothing": ("DELETE", "/faults/f99", None, 404, "no fault 'f99'"),
    "a look at nothing": ("GET", "/faults/f99", None, 404, "no fault 'f99'"),
    "a method that is not there": ("PUT", "/faults", {}, 405, "this port serves POST /faults"),
    "a path that is not there": ("GET", "/fault", None, 404, "this port serves POST /faults"),
    "a body too large": ("POST", "/faults", b"x" * (1 << 20), 413, "this port serves POST /faults"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_a_wrong_setting_is_one_error_that_names_variable_and_value(case: str) -> None:
    variables, message = SETTINGS[case]

    with pytest.raises(SettingsError) as caught:
        Settings.from_env(variables)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


async def works(lab: World) -> bool:
    status, _ = await lab.chat(max_tokens=1)
    return status == 200


def test_a_wrong_request_is_one_4xx_in_openais_form_and_the_next_one_works() -> None:
    async def scenario() -> None:
        async with world() as lab:
            for case, (body, status, message) in REQUESTS.items():
                data = io.BytesIO(body) if isinstance(body, bytes) else None
                asked = {"model": MODEL, **body} if isinstance(body, dict) and case != "no model" else body
                url = f"{lab.url}/v1/chat/completions"
                async with lab.http.post(url, data=data, json=None if data is not None else asked) as response:
                    told = (await response.json())["error"]
                    assert (response.status, told["code"]) == (status, status), case
                assert message in told["message"], case
                assert len(told["message"]) < 400, case
                assert set(told) == {"message", "type", "param", "code"}, case
            assert lab.engine.scheduler.unfinished == 0
            assert await works(lab)

    asyncio.run(scenario())


def test_a_wrong_admin_call_is_one_4xx_and_starts_nothing_and_stops_nothing() -> None:
    async def scenario() -> None:
        async with world() as lab:
            for case, (method, path, body, status, message) in ADMIN_CALLS.items():
                sent = {"data": body} if isinstance(body, bytes) else {"json": body}
                async with lab.http.request(method, lab.admin_url + path, **sent) as response:
                    told = (await response.json())["error"]
                    assert (response.status, told["code"]) == (status, status), case
                assert message in told["message"], case
            assert lab.engine.faults.all() == []
            assert await works(lab)

    asyncio.run(scenario())


BROWSERS = [{"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "shop.example:8081"}]


def test_a_page_in_a_web_browser_starts_no_fault() -> None:
    async def scenario() -> None:
        async with world() as lab:
            for headers in BROWSERS:
                body = io.BytesIO(b'{"kind": "hang", "lease_s": 1}')
                async with lab.http.post(f"{lab.admin_url}/faults", data=body, headers=headers) as response:
                    assert response.status == 403
                    assert (await response.json())["error"]["message"].startswith("expected a ")
            assert lab.engine.faults.all() == []

    asyncio.run(scenario())


def test_the_same_fault_twice_is_a_conflict_that_names_the_first() -> None:
    async def scenario() -> None:
        async with world() as lab:
            first = await lab.fault("gpu_saturation")
            body = {"kind": "gpu_saturation", "lease_s": 1}
            async with lab.http.post(f"{lab.admin_url}/faults", json=body) as response:
                assert response.status == 409
                assert first["id"] in (await response.json())["error"]["message"]

    asyncio.run(scenario())


def test_faults_are_not_to_be_had_on_the_port_of_the_clients() -> None:
    async def scenario() -> None:
        async with world() as lab:
            async with lab.http.post(f"{lab.url}/faults", json={"kind": "hang", "lease_s": 1}) as response:
                assert response.status == 404
            assert lab.engine.faults.all() == []

    asyncio.run(scenario())


def test_a_full_queue_refuses_with_503_and_when_to_come_back() -> None:
    async def scenario() -> None:
        async with world(LAB_QUEUE_MAX="0", LAB_SLOTS="1", LAB_FIRST_TOKEN_S="5", LAB_TOKEN_GAP_S="0.01") as lab:
            first = asyncio.create_task(lab.chat())
            await until_async(lambda: lab.engine.scheduler.unfinished == 1, "the first request waits")
            async with lab.http.post(f"{lab.url}/v1/chat/completions", json=lab.ask()) as response:
                assert response.status == 503
                assert response.headers["Retry-After"] == "1"
                assert "the engine's queue is full" in await response.text()
            first.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"fault":{"kind":"x"},"ends_at":9e9}]', '[{"ends_at":1}]', "{}"])
def test_a_broken_file_of_boot_faults_never_stops_a_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "boot-faults.json").write_text(text, encoding="utf-8")

    assert BootFaults(tmp_path).due() == []

    BootFaults(tmp_path).add(CrashOnBoot(), 30)

    assert BootFaults(tmp_path).due() == [CrashOnBoot()]
