"""Time to first token against load, simulated engine and real llama.cpp.

llama.cpp is timed alone first (prompts of two lengths, one stream and four). These four
numbers are the only input of the simulation. Then both serve the same Poisson arrivals
at rising load. `--svg FILE` draws the two curves. Needs `xllamacpp` and weights, and
takes about 75 s of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from figures import figure, publish

SERVICES = Path(__file__).parents[1] / "stack" / "services"
sys.path.insert(0, str(SERVICES))

from lab_engine import virtual  # noqa: E402 - the path above comes first
from lab_engine.scheduler import Scheduler  # noqa: E402
from lab_engine.speed import Speed  # noqa: E402
from lab_engine.work import Limits, Sequence  # noqa: E402

SLOTS, ANSWER_TOKENS, SECONDS = 4, 8, 15.0
LOADS = (0.3, 0.5, 0.7, 0.9)  # shares of the capacity that the simulation predicts
FETCHED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-llmchaos" / "weights"
WORDS = ["river", "stone", "light", "garden", "winter", "music", "letter", "window", "silver", "morning"]


def prompt(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """Times of one answer, in seconds."""

    first_token_s: float
    mean_gap_s: float
    prompt_tokens: int


async def ask(http: aiohttp.ClientSession, url: str, text: str, tokens: int) -> Timed:
    body = {
        "model": "smollm2:135m", "messages": [{"role": "user", "content": text}], "max_tokens": tokens,
        "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True, "cache_prompt": False,
    }  # fmt: skip
    start_s, times, used = time.perf_counter(), [], 0
    async with http.post(f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("usage"):
                used = event["usage"]["prompt_tokens"]
            if event["choices"] and event["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter())
    gap_s = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    return Timed(first_token_s=times[0] - start_s, mean_gap_s=gap_s, prompt_tokens=used)


async def calibrated(http: aiohttp.ClientSession, url: str) -> Speed:
    rng = random.Random(0)
    await ask(http, url, prompt(rng, 20), 4)
    short = [await ask(http, url, prompt(rng, 20), 1) for _ in range(8)]
    long = [await ask(http, url, prompt(rng, 200), 1) for _ in range(8)]
    alone = [await ask(http, url, prompt(rng, 20), 32) for _ in range(4)]
    together: list[Timed] = []
    for _ in range(3):
        together += await asyncio.gather(*(ask(http, url, prompt(rng, 20), 32) for _ in range(SLOTS)))
    short_s, long_s = (statistics.median(each.first_token_s for each in some) for some in (short, long))
    token_s = (long_s - short_s) / (long[0].prompt_tokens - short[0].prompt_tokens)
    gap_s, shared_gap_s = (statistics.median(each.mean_gap_s for each in some) for some in (alone, together))
    per_sequence_s = max(token_s, (shared_gap_s - gap_s) / (SLOTS - 1))
    step_s = max(0.0, gap_s - per_sequence_s)
    frontend_s = max(0.0, short_s - step_s - per_sequence_s - short[0].prompt_tokens * token_s)
    return Speed(frontend_s=frontend_s, step_s=step_s, sequence_s=per_sequence_s - token_s, token_s=token_s)


def simulated(speed: Speed, arrivals: list[tuple[float, int]]) -> list[float]:
    limits = Limits(slots=SLOTS, batch_tokens=512, max_model_tokens=1024, blocks=1024)
    sequences = [
        Sequence(name=str(index), arrived_s=at_s, prompt_tokens=tokens, answer_tokens=ANSWER_TOKENS)
        for index, (at_s, tokens) in enumerate(arrivals)
    ]
    virtual.run(Scheduler(speed=speed, limits=limits), sequences)
    return [each.first_token_s - each.arrived_s for each in sequences]


def capacity_rps(speed: Speed, prompt_tokens: int) -> float:
    count = 200
    limits = Limits(slots=SLOTS, batch_tokens=512, max_model_tokens=1024, blocks=1024)
    crowd = [
        Sequence(name=str(index), arrived_s=0.0, prompt_tokens=prompt_tokens, answer_tokens=ANSWER_TOKENS)
        for index in range(count)
    ]
    return count / virtual.run(Scheduler(speed=speed, limits=limits), crowd)


async def served(http: aiohttp.ClientSession, url: str, rate_rps: float, seed: int) -> list[tuple[float, Timed]]:
    """Open loop: every request leaves when it is due, whatever the others do."""
    rng, due_s = random.Random(seed), 0.0
    schedule: list[tuple[float, str]] = []
    while (due_s := due_s + rng.expovariate(rate_rps)) < SECONDS:
        schedule.append((due_s, prompt(rng, rng.randint(20, 60))))
    start_s = time.perf_counter()

    async def one(due_s: float, text: str) -> tuple[float, Timed]:
        await asyncio.sleep(start_s + due_s - time.perf_counter())
        return due_s, await ask(http, url, text, ANSWER_TOKENS)

    return await asyncio.gather(*(one(due_s, text) for due_s, text in schedule))


async def compared(url: str) -> dict[str, Any]:
    # llama.cpp's server closes idle connections without notice, so none is used twice.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300), connector=connector) as http:
        speed = await calibrated(http, url)
        print(f"llama.cpp alone: {speed}")
        most_rps = capacity_rps(speed, 60)
        rows = []
        for index, load in enumerate(LOADS):
            answers = await served(http, url, load * most_rps, seed=index)
            real = sorted(each.first_token_s for _, each in answers)
            ours = sorted(simulated(speed, [(due_s, each.prompt_tokens) for due_s, each in answers]))
            row = {"load": load, "rate_rps": round(load * most_rps, 3), "requests": len(answers)}
            for name, times in (("llamacpp", real), ("simulated", ours)):
                row[f"{name}_mean_s"] = round(statistics.mean(times), 4)
                row[f"{name}_p50_s"] = round(times[len(times) // 2], 4)
                row[f"{name}_p90_s"] = round(times[len(times) * 9 // 10], 4)
            rows.append(row)
            print(row)
    return {"calibration": {name: getattr(speed, name) for name in speed.__slots__}, "rows": rows}


def drawn(rows: list[dict[str, Any]]) -> str:
    """Mean time to first token against load as a small picture."""
    width, height, left, top, right, bottom = 640, 360, 64, 40, 150, 48
    highest = 1.15 * max(max(row["llamacpp_mean_s"], row["simulated_mean_s"]) for row in rows)

    def at(load: float, value_s: float) -> str:
        x = left + (width - left - right) * load
        return f"{x:.1f},{height - bottom - (height - top - bottom) * value_s / highest:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="22" font-size="14">Mean time to first token against load, llama.cpp on one core</text>',
        f'<polyline points="{at(0, highest)} {at(0, 0)} {at(1, 0)}" fill="none" stroke="black"/>',
        f'<text x="{left + 100}" y="{height - 12}">load, as share of the predicted capacity</text>',
    ]
    for tick in range(5):
        value_s = highest * tick / 4
        x, y = at(0, value_s).split(",")
        parts.append(f'<text x="{float(x) - 6}" y="{y}" text-anchor="end">{value_s:.2f} s</text>')
    for load in LOADS:
        x, y = at(load, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 16}" text-anchor="middle">{load:g}</text>')
    for row, (name, colour, label) in enumerate(
        (("llamacpp", "#1b6ca8", "llama.cpp, measured"), ("simulated", "#c8553d", "simulated"))
    ):
        points = [at(each["load"], each[f"{name}_mean_s"]) for each in rows]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3.5" fill="{colour}"/>' for p in points]
        parts.append(f'<text x="{width - right + 12}" y="{top + 20 + 20 * row}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="a .gguf file; without it the one that the set-up has fetched")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--busy", action="store_true", help="other work runs: take real-time priority (root)")
    arguments = parser.parse_args()
    weights = arguments.weights or next(iter(sorted(FETCHED.glob("*/model.gguf"))), None)
    if weights is None:
        print(f"no weights under {FETCHED}: run `make setup`, or name a file with --weights", file=sys.stderr)
        return 2
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cores = sorted(os.sched_getaffinity(0))
    settings = {"LAB_MODEL_FILE": str(weights), "LAB_THREADS": "1", "LAB_PARALLEL": str(SLOTS)}
    server = subprocess.Popen(
        [sys.executable, "-m", "lab_llamacpp"],
        env={
            **os.environ,
            "PYTHONPATH": str(SERVICES),
            "LAB_PORT": str(port),
            "LAB_CONTEXT_TOKENS": "4096",
            **settings,
        },
        stdout=subprocess.PIPE,
    )
    try:
        os.sched_setaffinity(server.pid, {cores[-1]})
        os.sched_setaffinity(0, {cores[0]})
        if arguments.busy:
            for pid in (server.pid, 0):
                os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(10))
        if server.stdout is None or b"listening" not in server.stdout.readline():
            print("llama.cpp did not start: give the weights with --weights and install xllamacpp", file=sys.stderr)
            return 2
        result = asyncio.run(compared(f"http://127.0.0.1:{port}"))
    finally:
        server.terminate()
        server.wait(10)
    if arguments.svg:
        arguments.svg.write_text(drawn(result["rows"]), encoding="utf-8")
    figures = {}
    for row in result["rows"]:
        ratio = row["simulated_mean_s"] / row["llamacpp_mean_s"]
        figures[f"simulated_over_real_at_{row['load']:g}"] = figure(ratio, "ratio of means", peer=1.0)
    publish("engine_ttft", figures, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
