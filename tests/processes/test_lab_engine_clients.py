"""A plan of two tools with a real client and a real engine."""

import os
import subprocess
import sys

from support.agents_packages import agents_path
from support.lab_engine_process import START_S, Process
from support.waiting import until

# Both ways of the client: whole answers, and streams.
AGENT = """
import asyncio, sys
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

client = AsyncOpenAI(base_url=sys.argv[1], api_key="x", max_retries=0)
agent = Agent(OpenAIChatModel("smollm2:135m", provider=OpenAIProvider(openai_client=client)))

@agent.tool_plain
def find_order(order: int) -> str:
    print("find_order", order)
    return "paid"

@agent.tool_plain
def refund(order: int) -> str:
    print("refund", order)
    return "refunded"

async def main():
    result = await agent.run("plan: find_order 17; refund 17")
    print(result.output, result.usage.output_tokens)
    async with agent.run_stream("plan: refund 18; find_order 18") as streamed:
        print(await streamed.get_output())

asyncio.run(main())
"""


def test_an_agents_client_runs_a_plan_of_two_tools_to_its_end() -> None:
    engine = Process(LAB_TOKEN_GAP_S="0.001")
    try:
        until(engine.answers, "the engine answers")
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": agents_path()}
        command = [sys.executable, "-c", AGENT, f"http://127.0.0.1:{engine.port}/v1"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=4 * START_S
        )
    finally:
        engine.popen.kill()
        engine.popen.communicate()

    lines = ["find_order 17", "refund 17", "done: 2 steps 8", "refund 18", "find_order 18", "done: 2 steps"]
    assert (done.stdout.splitlines(), done.returncode) == (lines, 0), done.stderr
