"""Settings and tasks of the lab's agents."""

import asyncio
from dataclasses import replace

import httpx2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import generate_latest

from lab_agents import chat as chats
from lab_agents import service as services
from lab_agents.chat import Asked, Chat, seconds, tokens_of
from lab_agents.desk import note_refused
from lab_agents.metrics import Metrics
from lab_agents.service import Service
from lab_agents.settings import FLAWS, Settings
from lab_agents.steps import Steps
from lab_agents.store import Disk, Memory, NotSavedError, owned
from lab_agents.tasks import BudgetExceeded, Task, TaskFailed
from lab_agents.tools import NoAnswer, ToolAnswer, ToolCall, Tools
from lab_agents.web import MAX_BODY_BYTES, application
from lab_common.settings import SettingsError

SETTINGS = Settings.from_env({})


class FakeAgent:
    """Ends each task by its input."""

    def __init__(self):
        self.forgotten = []
        self.let_go = asyncio.Event()

    async def start(self, unfinished):
        self.unfinished = {task.id for task in unfinished}

    async def close(self):
        pass

    async def forget(self, task_id):
        self.forgotten.append(task_id)

    async def run(self, task):
        task.steps += 1
        if task.input == "wait":
            await self.let_go.wait()
        if task.input == "fail":
            raise TaskFailed("a tool has failed")
        if task.input == "spend":
            raise BudgetExceeded("tokens", "all are used")
        if task.input == "break":
            raise KeyError("x")
        if task.input == "half":
            raise TaskFailed("half of a character: \ud800")
        if task.input == "huge":
            task.tokens = 2**63


def service_of(agent, store=None, *, flaws=(), now_s=lambda: 100.0, **budgets):
    settings = replace(SETTINGS, flaws=frozenset(flaws), budgets=replace(SETTINGS.budgets, **budgets))
    metrics = Metrics()
    service = Service(
        settings=settings,
        agent=agent,
        store=store or Memory(),
        metrics=metrics,
        log=lambda *_, **__: None,
        clock=now_s,
    )
    return service, metrics


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"LAB_AGENT": "crew"}, "LAB_AGENT: expected one of naive, checkpointed, durable, got 'crew'"),
        ({"LAB_FLAWS": "no_key,lazy"}, "LAB_FLAWS: expected names separated by commas, of checkpoint_after"),
        (
            {"LAB_AGENT": "durable", "LAB_FLAWS": "repeats_model_calls"},
            "LAB_FLAWS: expected flaws of the agent durable, got 'repeats_model_calls', which only naive can show",
        ),
        (
            {"LAB_AGENT": "durable", "LAB_WORKERS": "2"},
            "LAB_WORKERS: expected 1 for the agent durable, got 2, which only naive can have",
        ),
        ({"LAB_DESK_URL": "desk:8100"}, "LAB_DESK_URL: expected http://HOST:PORT/PATH, got 'desk:8100'"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_the_start(env, words):
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(env)

    assert words in str(refused.value)


def test_the_naive_agent_has_every_flaw():
    settings = Settings.from_env({"LAB_AGENT": "naive", "LAB_FLAWS": ",".join(FLAWS)})

    assert settings.flaws == set(FLAWS)


def test_a_task_ends_with_the_reason():
    async def play():
        agent = FakeAgent()
        service, metrics = service_of(agent)
        seen = {}
        for text in ("do", "fail", "spend", "break"):
            task, _ = service.accept(text, text)
            await task.ended.wait()
            seen[text] = (task.status, task.error)
        late, _ = service_of(agent, now_s=iter([100.0, 161.0, 161.0]).__next__)[0].accept("late", "wait")
        await late.ended.wait()
        seen["late"] = (late.status, late.error)
        await asyncio.sleep(0)
        return seen, agent.forgotten, value(metrics, "llmlab_agent_budget_exceeded_total", budget="tokens")

    seen, forgotten, exceeded = asyncio.run(play())

    assert seen == {
        "do": ("completed", None),
        "fail": ("failed", "a tool has failed"),
        "spend": ("failed", "budget tokens exceeded: all are used"),
        "break": ("failed", "KeyError: 'x'"),
        "late": ("failed", "budget seconds exceeded: LAB_TASK_S allows 60 s from acceptance"),
    }
    assert forgotten == ["do", "fail", "spend", "break", "late"]
    assert exceeded == 1


def test_a_task_on_disk_is_resumed_and_one_in_memory_is_lost(tmp_path):
    async def play(make):
        first, _ = service_of(FakeAgent(), make())
        first.accept("t", "wait")
        await asyncio.sleep(0)
        agent = FakeAgent()
        second, metrics = service_of(agent, make())
        await second.start()
        agent.let_go.set()
        task = second.find("t")
        if task is not None:
            await task.ended.wait()
        return task and task.status, agent.unfinished, value(metrics, "llmlab_agent_resumed_total")

    assert asyncio.run(play(lambda: Disk(tmp_path / "tasks.sqlite"))) == ("completed", {"t"}, 1)
    assert asyncio.run(play(Memory)) == (None, set(), 0)


def test_a_folder_of_tasks_belongs_to_one_process(tmp_path):
    folder = tmp_path / "new"
    with owned(folder), pytest.raises(OSError, match="another agent works on LAB_STATE_DIR"), owned(folder):
        pass
    with owned(folder):
        pass


def test_a_folder_that_cannot_be_used_is_named_with_its_variable(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "lock").mkdir()
    reasons = {
        tmp_path / "file": "File exists",
        tmp_path / "file" / "under": "Not a directory",
        tmp_path: "Is a directory",
    }
    seen = {}
    for folder in reasons:
        with pytest.raises(OSError, match="choose another folder") as refused, owned(folder):
            pass
        seen[folder] = str(refused.value)

    assert seen == {
        folder: f"cannot use LAB_STATE_DIR {folder}: {why}; choose another folder" for folder, why in reasons.items()
    }


def test_the_http_contract(tmp_path):
    async def play():
        agent = FakeAgent()
        service, metrics = service_of(agent, Disk(tmp_path / "tasks.sqlite"))
        seen = []
        async with TestClient(TestServer(application(service, metrics))) as client:

            async def ask(method, path, **more):
                async with client.request(method, path, **more) as answer:
                    body = await answer.json() if answer.content_type == "application/json" else await answer.text()
                    seen.append(
                        (answer.status, body["status"] if isinstance(body, dict) and "status" in body else body)
                    )
                    return answer

            await ask("POST", "/tasks", json={"id": "t", "input": "wait"})
            await ask("POST", "/tasks", json={"id": "t", "input": "wait"})
            await ask("GET", "/tasks/t?wait_s=0.01")
            polled = asyncio.create_task(ask("GET", "/tasks/t?wait_s=5"))
            await asyncio.sleep(0)
            agent.let_go.set()
            await polled
            await ask("GET", "/tasks/u")
            await ask("DELETE", "/tasks/u")
            await ask("POST", "/tasks", json={"id": "../t", "input": "x"})
            await ask("POST", "/tasks", data="{")
            await ask("GET", "/tasks/t?wait_s=x")
            agent.let_go.clear()
            await ask("POST", "/tasks", json={"id": "c", "input": "wait"})
            await ask("DELETE", "/tasks/c")
            await ask("DELETE", "/tasks/t")
            begun, late = asyncio.Event(), asyncio.Event()

            async def body():
                yield b'{"id": "v", '
                begun.set()
                await late.wait()
                yield b'"input": "x"}'

            refusing = asyncio.create_task(ask("POST", "/tasks", data=body()))
            await begun.wait()
            await ask("GET", "/tasks/t")  # by now the service has read the head of the POST
            await service.drain(1)
            late.set()
            refused = await refusing
            await ask("GET", "/healthz")
            async with client.get("/metrics") as page:
                text = await page.text()
        assert agent.forgotten == ["t", "c"]
        return seen, refused.headers["Retry-After"], text

    seen, retry_after, page = asyncio.run(play())

    expected = (
        'expected {"id": ID, "input": TEXT}, where an ID has 1 to 128 letters, digits, dots, dashes or underscores'
    )
    assert seen == [
        (202, "running"),
        (200, "running"),
        (200, "running"),
        (200, "completed"),
        (404, {"error": "no task 'u'"}),
        (404, {"error": "no task 'u'"}),
        (400, f"{expected}, got {{'id': '../t', 'input': 'x'}}"),
        (400, f"{expected}, got no JSON"),
        (400, "wait_s: expected seconds from 0 to 60, got 'x'"),
        (202, "running"),
        (202, "cancelled"),
        (202, "completed"),
        (200, "completed"),
        (503, {"error": "draining: retry later"}),
        (200, "draining"),
    ]
    assert retry_after == "1"
    assert 'llmlab_agent_tasks_total{status="cancelled"} 1.0' in page
    assert "llmlab_agent_tasks_running 0.0" in page


def test_a_drain_leaves_what_still_runs_on_disk_unless_it_has_the_flaw(tmp_path):
    async def play(name, flaws=(), *, ends=False):
        agent = FakeAgent()
        store = Disk(tmp_path / name)
        service, _ = service_of(agent, store, flaws=flaws)
        service.accept("t", "wait")
        await asyncio.sleep(0)
        if ends:
            asyncio.get_running_loop().call_later(0.01, agent.let_go.set)
        await service.drain(10 if ends else 0.01)
        task = store.find("t")
        return task and task.status

    assert asyncio.run(play("left")) == "running"
    assert asyncio.run(play("ends", ends=True)) == "completed"
    assert asyncio.run(play("flawed", ("loses_on_sigterm",))) is None


def test_a_drain_leaves_a_task_whose_agent_answers_the_cut_with_an_error(tmp_path):
    class Breaking(FakeAgent):
        async def run(self, task):
            try:
                await super().run(task)
            except asyncio.CancelledError:
                raise RuntimeError("the session broke") from None

    async def play():
        store = Disk(tmp_path / "tasks.sqlite")
        service, metrics = service_of(Breaking(), store)
        service.accept("t", "wait")
        await asyncio.sleep(0)
        await service.drain(0.01)
        return store.find("t").status, value(metrics, "llmlab_agent_tasks_total", status="failed")

    assert asyncio.run(play()) == ("running", 0)


class FillingDisk(Disk):
    """A disk that takes no write while `full`."""

    full = False

    def _write(self, *given):
        self._rows.execute(f"PRAGMA query_only = {int(self.full)}")
        super()._write(*given)


def test_what_cannot_be_saved_is_not_accepted_and_what_has_ended_stays_ended(tmp_path):
    async def play():
        agent, store = FakeAgent(), FillingDisk(tmp_path / "tasks.sqlite")
        service, metrics = service_of(agent, store)
        async with TestClient(TestServer(application(service, metrics))) as client:
            service.accept("t", "wait")
            await asyncio.sleep(0)
            store.full = True
            refused = await client.post("/tasks", json={"id": "u", "input": "x"})
            seen = [(refused.status, refused.headers.get("Retry-After"), await refused.text())]
            seen.append((await client.get("/tasks/u")).status)
            agent.let_go.set()
            seen.append((await (await client.get("/tasks/t?wait_s=5")).json())["status"])
        # What the agent has kept of it stays, so that the next process finds its end.
        return seen, agent.forgotten, [task.id for task in store.unfinished()]

    assert asyncio.run(play()) == (
        [
            (503, "1", '{"error": "tasks cannot be saved: attempt to write a readonly database"}'),
            404,
            "completed",
        ],
        [],
        ["t"],
    )


def test_an_end_that_could_not_be_saved_is_saved_later(tmp_path):
    async def play(how):
        agent, store = FakeAgent(), FillingDisk(tmp_path / how)
        service, _ = service_of(agent, store)
        cancelled, completed = (service.accept(task_id, "wait")[0] for task_id in ("a", "b"))
        await asyncio.sleep(0)
        store.full = True
        await service.cancel(cancelled)
        agent.let_go.set()
        await completed.ended.wait()
        lacking = sorted(task.id for task in store.unfinished()), list(agent.forgotten)
        store.full = False
        if how == "accept":
            service.accept("c", "do")
        await service.drain(1)
        ends = [store.find(task_id).status for task_id in ("a", "b")]
        return lacking, ends, sorted({"a", "b"} & set(agent.forgotten)), service.find("a").status

    expected = (["a", "b"], []), ["cancelled", "completed"], ["a", "b"], "cancelled"
    assert {how: asyncio.run(play(how)) for how in ("accept", "drain")} == {"accept": expected, "drain": expected}


def test_the_new_end_is_saved_before_an_old_one_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(services, "KEPT", 1)

    class Undeleting(Disk):
        stuck = True

        def forget(self, task_id):
            if self.stuck:
                raise NotSavedError("disk full")
            super().forget(task_id)

    async def play():
        store = Undeleting(tmp_path / "tasks.sqlite")
        service, _ = service_of(FakeAgent(), store)
        for task_id in ("a", "b"):
            await service.accept(task_id, "do")[0].ended.wait()
        saved = store.ended()
        store.stuck = False
        await service.accept("c", "do")[0].ended.wait()
        return saved, store.ended()

    assert asyncio.run(play()) == (["a", "b"], ["c"])


def test_foreign_texts_and_counts_do_not_keep_a_task_from_its_end(tmp_path):
    async def play():
        service, _ = service_of(FakeAgent(), Disk(tmp_path / "tasks.sqlite"))
        for text in ("half", "huge"):
            await asyncio.wait_for(service.accept(text, text)[0].ended.wait(), 5)
        return [(service.find(text).status, service.find(text).error) for text in ("half", "huge")]

    assert asyncio.run(play()) == [("failed", "half of a character: \\ud800"), ("completed", None)]


def test_hostile_requests_are_refused():
    cases = {
        "half of a character": {"data": b'{"id": "t", "input": "\\ud800"}'},
        "half of a character in an id": {"data": b'{"id": "\\ud800", "input": "x"}'},
        "no UTF-8": {"data": b'{"id": "t", "input": "\xff"}'},
        "unknown charset": {"data": b"{}", "headers": {"Content-Type": "application/json; charset=x"}},
        "deep": {"data": b"[" * 100_000},
        "number": {"data": b'{"id": 1, "input": "x"}'},
        "large": {"data": b'{"id": "t", "input": "' + b"x" * MAX_BODY_BYTES + b'"}'},
    }

    async def play(tmp):
        service, metrics = service_of(FakeAgent(), tmp)
        async with TestClient(TestServer(application(service, metrics))) as client:
            return {name: (await client.post("/tasks", **case)).status for name, case in cases.items()}

    assert asyncio.run(play(None)) == dict.fromkeys(cases, 400) | {"large": 413}


def test_a_drain_waits_until_the_agent_has_forgotten_what_has_ended():
    class SlowAgent(FakeAgent):
        async def forget(self, task_id):
            for _ in range(5):
                await asyncio.sleep(0)
            await super().forget(task_id)

    async def play():
        agent = SlowAgent()
        service, _ = service_of(agent)
        await service.accept("t", "do")[0].ended.wait()
        await service.drain(5)
        return agent.forgotten

    assert asyncio.run(play()) == ["t"]


def test_a_page_in_a_browser_neither_starts_nor_cancels_a_task():
    cases = [
        ("POST", "/tasks", {"Origin": "http://shop.example"}, 403),
        ("DELETE", "/tasks/t", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/tasks/t", {"Sec-Fetch-Site": "none"}, 200),
    ]

    async def play():
        service, metrics = service_of(FakeAgent())
        service.accept("t", "wait")
        async with TestClient(TestServer(application(service, metrics))) as client:
            seen = [
                (method, path, headers, (await client.request(method, path, headers=headers, data=BODY)).status)
                for method, path, headers, _ in cases
            ]
        return seen, service.find("u"), service.find("t").status

    assert asyncio.run(play()) == (cases, None, "running")


BODY = b'{"id": "u", "input": "x"}'


def test_two_cancels_of_a_task_count_once():
    async def play():
        agent = FakeAgent()
        service, metrics = service_of(agent)
        task, _ = service.accept("t", "wait")
        await asyncio.sleep(0)
        await asyncio.gather(service.cancel(task), service.cancel(task))
        return (
            task.status,
            value(metrics, "llmlab_agent_tasks_total", status="cancelled"),
            value(metrics, "llmlab_agent_task_seconds_count"),
            agent.forgotten,
        )

    assert asyncio.run(play()) == ("cancelled", 1, 1, ["t"])


def test_a_task_that_is_cancelled_before_its_first_step_leaves_nothing():
    async def play():
        agent = FakeAgent()
        service, metrics = service_of(agent)
        task, _ = service.accept("t", "do")
        await service.cancel(task)
        await asyncio.wait_for(service.drain(1), 5)
        return task.status, task.steps, value(metrics, "llmlab_agent_tasks_running"), agent.forgotten

    assert asyncio.run(play()) == ("cancelled", 0, 0, ["t"])


def test_the_newest_ended_tasks_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(services, "KEPT", 2)

    async def play(make):
        async def end(service, *ids):
            for task_id in ids:
                await service.accept(task_id, "do")[0].ended.wait()
            return [task_id for task_id in "abcdef" if service.find(task_id)]

        first, _ = service_of(FakeAgent(), make())
        kept = await end(first, "a", "c", "b")
        second, _ = service_of(FakeAgent(), make())
        await second.start()
        return kept, await end(second, "e", "d")

    assert asyncio.run(play(lambda: Disk(tmp_path / "tasks.sqlite"))) == (["b", "c"], ["d", "e"])
    assert asyncio.run(play(Memory)) == (["b", "c"], ["d", "e"])


def test_a_malformed_call_is_a_step_of_the_budget():
    async def play():
        settings = replace(SETTINGS, budgets=replace(SETTINGS.budgets, max_steps=2))
        steps = Steps(settings, Metrics(), None)
        task = Task(id="t", input="x", accepted_unix_s=0.0)
        call = Asked(id="c", tool="refund", text="{", arguments=None)
        messages = [await steps.call(task, index, call, []) for index in (0, 1)]
        with pytest.raises(BudgetExceeded):
            await steps.call(task, 2, call, [])
        return task.steps, {message["content"] for message in messages}

    assert asyncio.run(play()) == (2, {"error: the arguments are not a JSON object"})


class FakeDesk:
    """Has the tool `refund`, and no connection for another one."""

    async def call(self, tool, *_):
        if tool != "refund":
            raise NoAnswer("no connection")
        return ToolAnswer(text="{}")


def test_tools_that_the_model_invents_share_one_label():
    async def play():
        metrics = Metrics()
        settings = replace(SETTINGS, calls=replace(SETTINGS.calls, tool_retries=0))
        steps = Steps(settings, metrics, FakeDesk())
        task = Task(id="t", input="x", accepted_unix_s=0.0)
        tools = [{"type": "function", "function": {"name": "refund"}}]
        await steps.call(task, 0, asked_for("refund"), tools)
        for name in ("refund_17", "refund_18", "\ud800"):
            with pytest.raises(TaskFailed):
                await steps.call(task, 1, asked_for(name), tools)
        lines = generate_latest(metrics.registry).decode().splitlines()
        return [line for line in lines if line.startswith("llmlab_agent_tool_calls_total{")]

    assert asyncio.run(play()) == [
        'llmlab_agent_tool_calls_total{result="ok",tool="refund"} 1.0',
        'llmlab_agent_tool_calls_total{result="failed",tool="other"} 3.0',
    ]


def test_a_report_of_tokens_neither_gives_budget_back_nor_exceeds_a_row():
    cases = [(7, 7), (-7, 0), (True, 0), (7.0, 0), ("7", 0), (None, 0), (2**70, 2**53)]
    seen = [(total, tokens_of({"usage": {"total_tokens": total}})) for total, _ in cases]

    assert seen == cases
    assert [tokens_of({}), tokens_of({"usage": [7]})] == [0, 0]


def test_the_text_of_a_task_that_has_ended_is_dropped(tmp_path):
    async def play(store):
        service, _ = service_of(FakeAgent(), store)
        await service.accept("t", "do")[0].ended.wait()
        await service.drain(5)
        return service.find("t").input

    assert [asyncio.run(play(store)) for store in (Memory(), Disk(tmp_path / "tasks.sqlite"))] == ["", ""]


def test_a_server_without_a_standing_stream_does_not_hide_its_refusal_of_a_call():
    async def send(_):
        for method, status in (("POST", 429), ("GET", 405)):
            request = httpx2.Request(method, "http://desk/mcp")
            await note_refused(httpx2.Response(status, headers={"Retry-After": "7"}, request=request))
        raise NoAnswer("the session ended")

    async def play():
        metrics = Metrics()
        tools = Tools(replace(SETTINGS, calls=replace(SETTINGS.calls, tool_retries=0)), metrics)
        with pytest.raises(TaskFailed, match="HTTP 429"):
            await tools.call(Task(id="t", input="x", accepted_unix_s=0.0), ToolCall(index=0, tool="refund"), send)
        return value(metrics, "llmlab_agent_tool_calls_total", tool="refund", result="rate_limited")

    assert asyncio.run(play()) == 1


def test_corrupted_answers_of_the_model_are_requested_again(monkeypatch):
    monkeypatch.setattr(chats, "_BACKOFF_S", 0.0)
    whole = b'{"choices": []}'
    answers = [
        {"body": b'{"choices": "\xff"}', "content_type": "application/json"},
        {"status": 429, "headers": {"Retry-After": "\u00b2"}},
        {"body": whole, "content_type": "application/json", "charset": "utf-16"},
    ]

    async def answer(_):
        return web.Response(**answers.pop(0))

    async def play():
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        async with TestServer(app) as server:
            chat = Chat(replace(SETTINGS, model_url=str(server.make_url("/v1"))), Metrics())
            try:
                return await chat.completion([], [])
            finally:
                await chat.close()

    assert [seconds("7"), seconds("\u00b2"), seconds("-7"), seconds(None)] == [7.0, None, None, None]
    assert (asyncio.run(play()), answers) == ({"choices": []}, [])


def asked_for(tool):
    return Asked(id="c", tool=tool, text="{}", arguments={})
