"""Loads: checked arguments, and schedules as functions of a seed."""

import gzip
import hashlib
import json
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmchaos import loads
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads import agent_tasks, files, traces
from pytest_llmchaos.loads import arrivals as schedules
from pytest_llmchaos.loads.shapes import Sine
from pytest_llmchaos.stats.windows import LatencyTargets

DATA = Path(__file__).parent / "data"

# No deadline, since machines are busy. Fifty examples find what thousands do here.
quick = settings(deadline=None, max_examples=50)
rates = st.floats(min_value=0.5, max_value=200)
seconds = st.floats(min_value=0.1, max_value=20)
spacings = st.sampled_from(["constant", "poisson"])
shaped_loads = st.one_of(
    st.builds(loads.open_loop, rate_rps=rates, arrivals=spacings),
    st.builds(loads.ramp, from_rps=st.floats(0, 100), to_rps=rates, over_s=seconds, arrivals=spacings),
    st.builds(
        loads.burst, base_rps=rates, burst_rps=rates, after_s=st.floats(0, 10), burst_s=seconds, arrivals=spacings
    ),
    st.builds(
        lambda mean, share, **more: loads.sine(mean_rps=mean, amplitude_rps=mean * share, **more),
        mean=rates,
        share=st.floats(0, 1),
        period_s=seconds,
        arrivals=spacings,
    ),
)


def digest(arrivals):
    return hashlib.sha256(json.dumps(arrivals).encode()).hexdigest()


def due(load, duration_s, seed=1):
    return [arrival.due_s for arrival in load.schedule(Random(seed), duration_s)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others():
    load = loads.poisson(rate_rps=50)

    assert load.schedule(Random(42), 10) == load.schedule(Random(42), 10)
    assert load.schedule(Random(42), 10) != load.schedule(Random(43), 10)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (loads.open_loop(), "0eaec9a5"),
        (loads.poisson(rate_rps=20, prompts="long-prompt"), "0701144a"),
        (loads.ramp(from_rps=0, to_rps=30, over_s=10), "fa2c551e"),
        (loads.sine(mean_rps=10, amplitude_rps=10, period_s=7, arrivals="poisson"), "7e4f6f82"),
        (loads.trace(DATA / "azure-2023.csv", speed=0.5), "3d4ab825"),
    ],
    ids=["constant", "poisson with long prompts", "ramp", "poisson around a sine", "trace"],
)
def test_a_schedule_has_these_bytes_in_every_python_and_on_every_platform(load, expected):
    assert digest(load.schedule(Random(42), 20))[:8] == expected


def drawn(load, seed, duration_s):
    """The schedule, empty if it was refused as such.

    A short stretch of random arrivals may be.
    """
    try:
        return load.schedule(Random(seed), duration_s)
    except BadScenario as error:
        if "sends no request" not in str(error):  # expected of a slow load in a short time
            raise
        return ()


@quick
@given(load=shaped_loads, seed=st.integers(0, 2**63), duration_s=seconds)
def test_arrivals_are_in_order_inside_the_duration_and_whole_microseconds(load, seed, duration_s):
    arrivals = drawn(load, seed, duration_s)

    times = [arrival.due_s for arrival in arrivals]
    assert times == sorted(times)
    assert all(0 <= time_s < duration_s and round(time_s, 6) == time_s for time_s in times)
    assert all(8 <= arrival.max_tokens <= 16 and arrival.prompt for arrival in arrivals)


@quick
@given(load=shaped_loads, seed=st.integers(0, 2**63), duration_s=seconds)
def test_a_longer_duration_only_adds_requests_at_the_end(load, seed, duration_s):
    def sent(length_s):
        try:
            return load.schedule(Random(seed), length_s)
        except BadScenario as error:
            if "sends no request" not in str(error):  # expected of a slow load in a short time
                raise
            return ()

    shorter = sent(duration_s)

    assert sent(duration_s * 2 + 5)[: len(shorter)] == shorter


@quick
@given(load=shaped_loads)
def test_no_stretch_of_even_arrivals_is_faster_than_the_peak(load):
    if load.spacing == "poisson":
        return
    times = due(load, 30)

    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(gap >= 1 / load.peak_rps - 2e-6 for gap in gaps)


def test_a_constant_load_is_evenly_spaced_from_second_0():
    assert due(loads.open_loop(rate_rps=4), 1) == [0.0, 0.25, 0.5, 0.75]


def test_a_poisson_load_has_the_mean_and_the_spread_of_one():
    times = due(loads.poisson(rate_rps=100), 200)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))

    assert mean == pytest.approx(0.01, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_a_ramp_offers_the_area_under_its_line_and_then_stays():
    load = loads.ramp(from_rps=0, to_rps=20, over_s=10)
    times = due(load, 20)

    assert sum(1 for time_s in times if time_s < 10) == 100
    assert sum(1 for time_s in times if 10 <= time_s < 20) == 200
    assert (load.peak_rps, load.mean_rps) == (20, 20)


def test_a_ramp_can_lead_downwards():
    times = due(loads.ramp(from_rps=20, to_rps=10, over_s=10), 20)

    assert sum(1 for time_s in times if time_s < 10) == 150
    assert sum(1 for time_s in times if time_s >= 10) == 100


def test_a_burst_is_a_burst_only_where_it_was_requested():
    load = loads.burst(base_rps=2, burst_rps=50, after_s=3, burst_s=2)
    times = due(load, 10)

    assert sum(1 for time_s in times if time_s < 3) == 6
    assert sum(1 for time_s in times if 3 <= time_s < 5) == 100
    assert sum(1 for time_s in times if time_s >= 5) == 10
    assert (load.peak_rps, load.mean_rps) == (50, 2)


def test_a_sine_swings_around_its_mean():
    load = loads.sine(mean_rps=20, amplitude_rps=20, period_s=4)
    times = due(load, 4)

    first_half = sum(1 for time_s in times if time_s < 2)
    assert len(times) == 80
    assert first_half == pytest.approx(40 + 20 * 4 / math.pi, abs=1)
    assert (load.peak_rps, load.mean_rps) == (40, 20)


@quick
@given(mean=rates, share=st.floats(0, 1), period_s=seconds, count=st.floats(0, 1000))
def test_the_inverse_of_a_sine_is_its_inverse(mean, share, period_s, count):
    sine = Sine(mean_rps=mean, amplitude_rps=mean * share, period_s=period_s)

    assert sine.offered(sine.when(count, 0.0)) == pytest.approx(count, abs=1e-5)


def test_tokens_per_second_are_what_the_backend_must_write_in_the_long_run():
    assert loads.open_loop(rate_rps=8).tokens_per_s == 96
    assert loads.open_loop(rate_rps=8, max_tokens=32).tokens_per_s == 256
    assert loads.burst(base_rps=2, burst_rps=50, after_s=3, burst_s=2, max_tokens=10).tokens_per_s == 20
    assert loads.trace(DATA / "mooncake.jsonl", max_tokens=9).tokens_per_s == pytest.approx(4 / 9 * 9)
    assert loads.trace(DATA / "mooncake.jsonl").tokens_per_s == pytest.approx(2100 / 9)


@pytest.mark.parametrize(
    ("load", "identity"),
    [
        (
            loads.open_loop(rate_rps=3, first_token="content"),
            "constant 3/s short-chat, first token of content",
        ),
        (loads.open_loop(patience_s=1.5), "constant 8/s short-chat, clients wait 1.5 s for the end"),
        (
            loads.poisson(patience_s=1, patient_from="first_token", impatient_ratio=0.5),
            "poisson 8/s short-chat, 0.5 of the clients wait 1 s for a first token",
        ),
        (loads.open_loop(idle_timeout_s=0.5), "constant 8/s short-chat, idle timeout 0.5 s"),
        (
            loads.poisson(headers={"x-priority": "high", "X-Team": " a b "}),
            "poisson 8/s short-chat, x-priority: high, X-Team: a b",
        ),
        (loads.open_loop(), "constant 8/s short-chat"),
        (loads.tasks(), "constant 2/s tasks find_order; refund; mail within 20 s"),
        (
            loads.tasks(plan="refund", task_s=9, cancel_share=0.1, cancel_after_s=2, arrivals="poisson"),
            "poisson 2/s tasks refund within 9 s, 0.1 of them cancelled after 2 s",
        ),
        (loads.poisson(rate_rps=0.5, max_tokens=4), "poisson 0.5/s short-chat, 4 tokens"),
        (loads.ramp(from_rps=1, to_rps=9, over_s=5), "constant ramp 1-9/s over 5 s short-chat"),
        (
            loads.burst(base_rps=2, burst_rps=40, after_s=8, burst_s=5, prompts="long-prompt"),
            "constant 2/s with 40/s from 8 s for 5 s long-prompt",
        ),
        (loads.sine(mean_rps=5, amplitude_rps=2, period_s=60), "constant 5+-2/s every 60 s short-chat"),
        (
            loads.trace(DATA / "burstgpt.csv", speed=10),
            "trace burstgpt.csv:166a4f97 (times in s: 4 rows over 113 s, mean 0.0354/s, peak 1/s) at speed 10",
        ),
    ],
)
def test_a_load_names_itself(load, identity):
    assert str(load) == identity


def test_bounds_and_timeout_belong_to_the_load():
    load = loads.open_loop(latency_targets=loads.LatencyTargets(ttft_s=0.5, e2e_s=3), timeout_s=4, beyond_capacity=True)

    assert load.latency_targets == LatencyTargets(ttft_s=0.5, e2e_s=3)
    assert (load.timeout_s, load.beyond_capacity) == (4, True)
    assert loads.open_loop().latency_targets == LatencyTargets(ttft_s=2, e2e_s=10)


def test_a_refused_header_is_named_without_its_value():
    with pytest.raises(BadScenario) as refused:
        loads.open_loop(headers={"Authorization": "Bearer planted-value"})

    assert "Authorization" in str(refused.value)
    assert "planted" not in str(refused.value)


def test_every_load_takes_headers():
    makers = (
        loads.open_loop(headers={"x-a": "b"}),
        loads.poisson(headers={"x-a": "b"}),
        loads.ramp(from_rps=1, to_rps=2, over_s=3, headers={"x-a": "b"}),
        loads.burst(base_rps=1, burst_rps=2, after_s=1, burst_s=1, headers={"x-a": "b"}),
        loads.sine(mean_rps=5, amplitude_rps=1, period_s=1, headers={"x-a": "b"}),
        loads.trace(DATA / "burstgpt.csv", headers={"x-a": "b"}),
        loads.tasks(headers={"x-a": "b"}),
    )

    assert {load.headers for load in makers} == {(("x-a", "b"),)}
    assert loads.open_loop().headers == ()


def test_a_load_of_tasks_has_a_deadline_and_no_first_token():
    load = loads.tasks(rate_rps=10, plan="find_order; refund", task_s=9, good_s=4)

    assert load.latency_targets == LatencyTargets(ttft_s=math.inf, e2e_s=4)
    assert (load.timeout_s, load.tasks.task_s, load.tokens_per_s) == (9, 9, 480)
    assert loads.tasks().latency_targets.e2e_s == 20


def test_a_plan_names_its_tools_without_an_effect():
    cases = {
        (None, "find_order; refund; mail"): ("find_order",),
        (None, "refund; mail"): (),
        ((), "find_order; refund"): (),
        (("mail", "mail"), "find_order; mail"): ("mail",),
        (("find_order",), "find_order; find_order"): ("find_order",),
    }

    assert {(reads, plan): loads.tasks(plan=plan, reads=reads).tasks.reads for reads, plan in cases} == cases


def test_orders_are_the_same_for_all_arms_until_each_load_gets_numbers_of_its_own():
    load = loads.tasks(rate_rps=4)
    planned = load.schedule(Random(1), 5)
    sent = [load.with_orders(planned, Random(seed), set()) for seed in (1, 1, 2)]
    taken = {int(sent[0][0].prompt.rpartition(" ")[2])}
    sent.append(load.with_orders(planned, Random(1), taken))
    orders = [[int(one.prompt.rpartition(" ")[2]) for one in arrivals] for arrivals in sent]

    assert planned == load.schedule(Random(2), 5)
    assert [one.prompt for one in planned[:2]] == [f"plan: find_order {n}; refund {n}; mail {n}" for n in (1, 2)]
    assert agent_tasks.steps_of(planned[0].prompt) == ("find_order 1", "refund 1", "mail 1")
    assert orders[0] == orders[1] == list(range(orders[0][0], orders[0][0] + 20))
    assert len({*orders[0], *orders[2], *orders[3]}) == 60
    assert len(taken) == 2
    assert {agent_tasks.range_of(order) for order in orders[3]} == {orders[3][0]} < taken
    assert max(map(max, orders)) < 10**12
    assert [one.due_s for one in sent[0]] == [one.due_s for one in planned]
    chats = loads.open_loop().schedule(Random(1), 1)
    assert loads.open_loop().with_orders(chats, Random(1), taken) == chats


def test_orders_of_no_task_are_the_agent_s_unless_another_may_have_called_for_them():
    own, near, other = 300_001, 300_999, 700_001
    alone = agent_tasks.Orders(own=frozenset({own}), taken=frozenset({700_000}))
    shared = agent_tasks.Orders(own=frozenset({own}), is_shared=True)

    assert [alone.is_of_earlier(order) for order in (own, near, other, 1)] == [False, False, True, False]
    assert [alone.is_doubtful(order) for order in (own, near, other, 1)] == [False] * 4
    assert [shared.is_doubtful(order) for order in (own, near, other, 1)] == [False, False, True, True]


def test_callers_that_cancel_are_spread_evenly_over_the_schedule():
    third = loads.tasks(cancel_share=1 / 3, cancel_after_s=1).tasks

    assert [third.cancels(i) for i in range(6)] == [False, False, True] * 2
    assert not any(loads.tasks().tasks.cancels(i) for i in range(100))


def test_impatient_clients_are_spread_evenly_over_the_schedule():
    third = loads.open_loop(patience_s=1, impatient_ratio=1 / 3).impatience
    every = loads.open_loop(patience_s=1).impatience

    assert [third.takes(i) for i in range(6)] == [False, False, True] * 2
    assert all(every.takes(i) for i in range(100))


def test_prompts_come_from_a_file_of_lines_whose_content_is_part_of_the_identity(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("one\n\n  two \n")
    load = loads.open_loop(prompts=file)
    before = str(load)
    file.write_text("one\nthree\n")

    assert {arrival.prompt for arrival in load.schedule(Random(1), 10)} == {"one", "two"}
    assert before.startswith("constant 8/s mine.txt:")
    assert str(loads.open_loop(prompts=str(file))) != before


def test_long_prompts_are_long():
    (arrival,) = loads.open_loop(rate_rps=1, prompts="long-prompt").schedule(Random(1), 1)

    assert len(arrival.prompt.split()) > 400


@pytest.mark.parametrize(
    ("name", "times_s", "tokens"),
    [
        ("azure-2023.csv", [0.0, 4.25, 4.312345, 4.5, 5.5, 7.75, 8.4, 9.5], 40),
        ("azure-2024.csv", [0.0, 0.0075, 0.132, 0.99], 5),
        ("burstgpt.csv", [0.0, 40.0, 41.5, 113.0], 20),
        ("burstgpt-2.csv", [0.0, 4.0], 15),
        ("mooncake.jsonl", [0.0, 0.0, 3.0, 9.0], 500),
    ],
)
def test_a_trace_is_replayed_at_its_own_times(name, times_s, tokens):
    arrivals = loads.trace(DATA / name).schedule(Random(1), 1000)

    assert [arrival.due_s for arrival in arrivals] == times_s
    assert arrivals[0].max_tokens == tokens


def test_speed_squeezes_a_trace():
    load = loads.trace(DATA / "burstgpt.csv", speed=10)

    assert due(load, 1000) == [0.0, 4.0, 4.15, 11.3]
    assert (load.peak_rps, load.mean_rps) == (10, pytest.approx(4 / 113 * 10))


def test_a_trace_gives_prompts_of_the_recorded_length_but_not_beyond_the_cut():
    prompts = [arrival.prompt for arrival in loads.trace(DATA / "azure-2023.csv").schedule(Random(1), 100)]

    assert [len(prompt.split()) for prompt in prompts] == [310, 402, 777, 90, 90, 365, 1024, 350]


def test_a_recorded_failure_is_sent_again_for_one_token():
    assert loads.trace(DATA / "burstgpt.csv").schedule(Random(1), 100)[2].max_tokens == 1


def test_a_trace_that_was_cut_does_not_pass_for_a_quiet_service():
    cut = traces.parse("big.csv", (DATA / "azure-2023.csv").read_text().splitlines(), max_rows=3)
    load = schedules.Load(shape=cut, prompts=loads.open_loop().prompts)

    assert len(load.schedule(Random(1), 4.3)) == 2
    with pytest.raises(BadScenario, match=r"the first 3 requests of the trace last .* s, 60 s are needed"):
        load.schedule(Random(1), 60)


def test_rows_out_of_order_are_sorted():
    rows = traces.parse(
        "t", ["TIMESTAMP,ContextTokens,GeneratedTokens", "2024-01-01 00:00:02,1,2", "2024-01-01 00:00:01,3,4"]
    )

    assert [(row.at_s, row.answer_tokens) for row in rows.rows] == [(0.0, 4), (1.0, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "trace 't' is empty"),
        ("\n\n", "trace 't' is empty"),
        ("a,b,c\n1,2,3\n", "expected the columns TIMESTAMP"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "has a header and no request"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "line 2: cannot read 'yesterday,1,2'"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,1\n", "line 2: cannot read"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,-1,2\n", "line 2: expected a finite time"),
        ("Timestamp,Request tokens,Response tokens\nnan,1,2\n", "line 2: expected a finite time"),
        ("Timestamp,Request tokens,Response tokens\n1e300,1,2\n", "line 2: expected a finite time"),
        ("Timestamp,Request tokens,Response tokens\n1,inf,2\n", "line 2: cannot read"),
        ('{"timestamp": 1}\n', "input_length/output_length (Mooncake), got timestamp: name them as columns="),
        ('{"timestamp": "x", "input_length": 1, "output_length": 1}\n', "line 1: cannot read"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1}\n{"timesta', "line 2: cannot read"),
    ],
)
def test_what_is_not_a_trace_is_refused_with_its_line(tmp_path, text, message):
    file = tmp_path / "t"
    file.write_text(text)

    with pytest.raises(BadScenario) as refused:
        loads.trace(file)
    assert message in str(refused.value)


MOONCAKE_ROW = '{{"timestamp": {0}, "input_length": 1, "output_length": 1, "hash_ids": [0]}}'
QWEN_ROW = (
    '{{"chat_id": 1, "parent_chat_id": -1, "timestamp": {0}, "input_length": 52, "output_length": 6, "type": "text",'
    ' "turn": 1, "hash_ids": [1, 2]}}'
)
LENGTHS_ROW = '{{"timestamp": {0}, "input_length": 1, "output_length": 1}}'


def written(tmp_path, text, name="t.csv"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_whole_numbers_of_mooncakes_columns_are_milliseconds():
    trace = loads.trace(DATA / "mooncake.jsonl").shape

    assert (trace.times, trace.length_s, trace.mean_rps(), trace.peak_rps()) == ("ms", 9, 4 / 9, 2)


@pytest.mark.parametrize("times", [[0.0, 1.25, 120.0], [0, 60, 120], [0, 0.001, 120]])
def test_mooncakes_names_with_the_chats_of_qwen_bailian_are_seconds(tmp_path, times):
    load = loads.trace(written(tmp_path, "\n".join(QWEN_ROW.format(at) for at in times), "q.jsonl"))

    assert (load.shape.length_s, load.mean_rps) == (120, 3 / 120)
    assert "times in s: 3 rows over 120 s, mean 0.025/s" in str(load)


@pytest.mark.parametrize(
    ("row", "times"),
    [
        (MOONCAKE_ROW, [0.0, 0.2, 0.4]),  # seconds of a program that writes Mooncake's names
        (MOONCAKE_ROW, [0.0, 1.0, 2.0]),
        (MOONCAKE_ROW, ['"0"', '"0.5"']),
        (MOONCAKE_ROW, [0, 1, 2]),  # 1,500 requests a second as milliseconds
        (LENGTHS_ROW, [0, 3000, 9000]),
    ],
)
def test_times_of_an_uncertain_unit_are_refused_with_every_reading(tmp_path, row, times):
    file = written(tmp_path, "\n".join(row.format(at) for at in times))
    last = float(str(times[-1]).strip('"'))

    with pytest.raises(BadScenario) as refused:
        loads.trace(file)

    assert f"the unit of its times is not certain. It lasts {last:,.6g} s for unit='s', " in str(refused.value)
    assert f"{last / 1000:,.6g} s for unit='ms'" in str(refused.value)
    assert loads.trace(file, unit="s").shape.length_s == last
    assert loads.trace(file, unit="ms").shape.length_s == pytest.approx(last / 1000)


@quick
@given(
    factor=st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]),
    start=st.integers(1_000_000_000, 2_500_000_000),
    gaps=st.lists(st.integers(0, 10_000), min_size=1, max_size=5),
    shape=st.sampled_from(["mooncake", "burstgpt", "columns"]),
)
def test_absolute_times_have_the_unit_of_their_size(factor, start, gaps, shape):
    times = [start * factor, *(start * factor + sum(gaps[: i + 1]) * factor for i in range(len(gaps)))]
    if shape == "mooncake":
        trace = traces.parse("t", [MOONCAKE_ROW.format(at) for at in times])
    elif shape == "burstgpt":
        rows = [f"{at},1,1" for at in times]
        trace = traces.parse("t", ["Timestamp,Request tokens,Response tokens", *rows])
    else:
        names = {"time": "t", "prompt": "i", "answer": "o"}
        trace = traces.parse("t", ["t,i,o", *(f"{at},1,1" for at in times)], columns=names)

    assert trace.length_s == pytest.approx(sum(gaps), abs=1e-3)


@quick
@given(
    times=st.lists(st.one_of(st.integers(0, 10_000_000), st.floats(0, 1e7)), min_size=2, max_size=6, unique=True),
    row=st.sampled_from([MOONCAKE_ROW, LENGTHS_ROW, QWEN_ROW]),
)
def test_seconds_are_never_read_as_milliseconds_unless_they_are_rarer_than_mooncakes(times, row):
    try:
        trace = traces.parse("t", [row.format(at) for at in times])
    except BadScenario:
        return
    if trace.times == "ms":
        assert all(isinstance(at, int) for at in times)
        assert len(times) / trace.length_s <= traces.MOONCAKE_RPS
    else:
        assert trace.length_s == pytest.approx(max(times) - min(times))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
        lambda text: b"\n\n" + text,
        gzip.compress,
        lambda text: text.decode().encode("utf-16"),
    ],
    ids=["mark", "CRLF", "mark and CRLF", "blank lines", "gzip", "UTF-16"],
)
@pytest.mark.parametrize(
    "name", ["azure-2023.csv", "azure-2024.csv", "burstgpt.csv", "burstgpt-2.csv", "mooncake.jsonl"]
)
def test_the_bytes_around_a_trace_do_not_matter(tmp_path, name, change):
    plain = (DATA / name).read_bytes()

    assert loads.trace(written(tmp_path, change(plain), name)).shape == loads.trace(DATA / name).shape


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("Timestamp;Request tokens;Response tokens", "{0};1;2"),
        ("Timestamp\tRequest tokens\tResponse tokens", "{0}\t1\t2"),
        ('"Timestamp","Request tokens","Response tokens"', '"{0}","1","2"'),
        ("timestamp, request_tokens, response_tokens", "{0}, 1, 2"),
        (
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
            "{0},,1.5,GPT-4,1,2,3,API log",
        ),
        ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", "{0},GPT-4,1,2,3,API log"),
        ("Log Type,Timestamp,Session ID,Model,Request tokens,Response tokens,Total tokens", "API log,{0},,GPT-4,1,2,3"),
    ],
)
def test_columns_are_found_by_name_however_they_are_separated(head, row):
    trace = traces.parse("t", [head, row.format(5), row.format("65.5")])

    assert (trace.times, trace.rows[1]) == ("s", traces.Row(60.5, 1, 2))


@pytest.mark.parametrize(
    "second",
    [
        "2024-05-10 00:00:01.5000000",
        "2024-05-10T00:00:01.5Z",
        "2024-05-10 00:00:01.500000+00:00",
        "2024-05-10 02:00:01.5+0200",
        "2024-05-10 00:00:01.5 UTC",
        "2024-05-10 00:00:01,5",
    ],
)
def test_dates_are_read_with_and_without_zone_and_fraction(second):
    rows = ["2024-05-10 00:00:00,1,2", f'"{second}",1,2']
    trace = traces.parse("t", ["TIMESTAMP,ContextTokens,GeneratedTokens", *rows])

    assert (trace.times, trace.length_s) == ("dates", 1.5)


def test_the_columns_and_the_unit_of_another_format_can_be_given(tmp_path):
    names = {"time": "t", "prompt": "in", "answer": "out"}
    file = written(tmp_path, '[{"t": 3, "in": 1, "out": 2}, {"t": 1.5, "in": 3, "out": 4}]', "weka.json")

    load = loads.trace(file, columns=names, unit="s")

    assert load.shape.rows == (traces.Row(0.0, 3, 4), traces.Row(1.5, 1, 2))
    assert loads.trace(file, columns=names, unit="us").shape.length_s == pytest.approx(1.5e-6)
    with pytest.raises(BadScenario, match=r"not certain\. It lasts 1\.5 s for unit='s', 0\.0015 s for unit='ms', "):
        loads.trace(file, columns=names)


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("t,i,o\n1,1,1", {}, "(Mooncake), got t, i, o: name them as columns="),
        ("t,i,o\n1,1,1", {"columns": {"time": "t"}}, "columns must name time, prompt, answer, got {'time': 't'}"),
        ("t,i,o\n1,1,1", {"columns": 3}, "columns must be such as"),
        (
            "t,i,o\n1,1,1",
            {"columns": {"time": "t", "prompt": "in", "answer": "o"}},
            "trace 't.csv' lacks the column 'in': it has t, i, o",
        ),
        ("t,i,o\n1,1,1", {"unit": "min"}, "unit must be one of s, ms, us, ns, got 'min'"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,1,1",
            {"unit": "ms"},
            "has dates, which need no unit: drop unit='ms'",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,1,1\n17,1,1",
            {},
            "line 3: dates and numbers are mixed",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-13-01 00:00:00,1,1", {}, "line 2: cannot read"),
        ("2024-01-01 00:00:00,1,1\n", {}, "lacks a header, its first line is the row '2024-01-01 00:00:00,1,1'"),
        ("Timestamp,Request tokens,Response tokens\n1," + "x" * 200_000 + ",1", {}, "line 2: cannot read"),
        ('[{"timestamp": 1', {}, "is not valid JSON"),
        ("[3]", {}, "entry 1: expected an object, got '3'"),
        ("{}\n", {}, "expected the columns"),
        (LENGTHS_ROW.format(1) + "\n3", {}, "line 2: cannot read '3' (expected an object)"),
        (LENGTHS_ROW.format("null"), {}, "line 1: cannot read 'None,1,1' (it lacks timestamp)"),
        ('[{"id": "x", "conversations": []}]', {}, "write loads.poisson(rate_rps=..., prompts='t.csv')"),
        ('{"prompt": "x"}', {}, "has conversations without times"),
        (b"PAR1\0\0\0", {}, "is not a text file (it begins with b'PAR1"),
        (b"\x1f\x8bxx", {}, "cannot read"),
        (gzip.compress(b"hello", mtime=0)[:-9], {}, "cannot read"),
    ],
)
def test_a_trace_that_is_not_understood_is_refused_with_what_to_write(tmp_path, text, more, message):
    with pytest.raises(BadScenario) as refused:
        loads.trace(written(tmp_path, text), **more)

    assert message in str(refused.value)


def test_a_file_too_large_for_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 10)

    with pytest.raises(BadScenario, match="cut it to the part you need"):
        loads.trace(written(tmp_path, "x" * 11))


def test_a_relative_path_counts_from_the_file_that_names_it(tmp_path, monkeypatch):
    scenario = written(tmp_path, (DATA / "burstgpt.csv").read_bytes(), "b.csv").parent / "test_x.py"
    code = compile("from pytest_llmchaos import loads\nload = loads.trace('b.csv')", scenario, "exec")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    found = {"__name__": "test_x", "__file__": str(scenario)}
    exec(code, found)
    assert len(found["load"].shape.rows) == 4

    with pytest.raises(BadScenario, match=re.escape(f"there is no file '{tmp_path}/elsewhere/b.csv'")):
        exec(code, {"__name__": "a console"})


SHAREGPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "three four five"}]},
    {"id": "b", "conversations": [{"from": "gpt", "value": "goes on"}, {"from": "human", "value": "  "}, 7]},
    {"id": "c", "messages": [
        {"role": "system", "content": "be kind"}, {"role": "user", "content": "long " * 2000},
        {"role": "assistant", "content": "abcdefgh" * 4},
    ]},
    {"id": "d", "conversations": []},
    3,
]  # fmt: skip


@pytest.mark.parametrize("lines", [False, True])
def test_conversations_give_prompts_and_the_recorded_lengths_of_their_answers(tmp_path, lines):
    text = "\n".join(map(json.dumps, SHAREGPT)) if lines else json.dumps(SHAREGPT)
    load = loads.open_loop(rate_rps=20, prompts=written(tmp_path, text, "s.json"))

    arrivals = load.schedule(Random(1), 1)

    assert {(arrival.prompt[:7], arrival.max_tokens) for arrival in arrivals} == {("one two", 3), ("long lo", 8)}
    assert max(len(arrival.prompt.split()) for arrival in arrivals) == 1024
    assert load.tokens_per_s == 20 * 5.5
    assert loads.open_loop(prompts=tmp_path / "s.json", max_tokens=9).schedule(Random(1), 1)[0].max_tokens == 9


def test_prompts_without_an_answer_draw_its_length(tmp_path):
    load = loads.open_loop(prompts=written(tmp_path, '{"prompt": "why"}\n{"prompt": "how"}', "p.jsonl"))

    assert {arrival.prompt for arrival in load.schedule(Random(1), 2)} == {"why", "how"}
    assert load.tokens_per_s == 8 * 12


@pytest.mark.parametrize(
    ("text", "message"), [("[", "not valid JSON"), ('{"a": 1}', "have no conversation"), ("", "have no conversation")]
)
def test_json_without_conversations_is_no_prompt_file(tmp_path, text, message):
    with pytest.raises(BadScenario, match=message):
        loads.open_loop(prompts=written(tmp_path, text, "p.json"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: loads.open_loop(rate_rps=0),
            "loads.open_loop: rate_rps must be a number above 0 and at most 100000, got 0",
        ),
        (lambda: loads.open_loop(rate_rps=-1), "got -1"),
        (lambda: loads.open_loop(rate_rps="8"), "got '8'"),
        (lambda: loads.open_loop(rate_rps=True), "got True"),
        (lambda: loads.open_loop(rate_rps=math.nan), "got nan"),
        (lambda: loads.open_loop(rate_rps=math.inf), "got inf"),
        (lambda: loads.open_loop(rate_rps=1e6), "got 1000000.0"),
        (
            lambda: loads.open_loop(rate_rps=10**400),
            f"rate_rps must be a number above 0 and at most 100000, got {10**400}",
        ),
        (lambda: loads.open_loop(timeout_s=10**400), "timeout_s must be a number above 0 and at most 3600"),
        (lambda: loads.ramp(from_rps=1, to_rps=2, over_s=10**400), "over_s must be a number above 0, got 1000"),
        (
            lambda: loads.burst(base_rps=1, burst_rps=2, after_s=-(10**400), burst_s=1),
            "after_s must be a number of at least",
        ),
        (lambda: loads.LatencyTargets(e2e_s=10**400), "e2e_s must be a number of seconds above 0, got 1000"),
        (lambda: loads.poisson(rate_rps=0), "loads.poisson: rate_rps"),
        (lambda: loads.open_loop(max_tokens=0), "max_tokens must be a whole number from 1"),
        (lambda: loads.open_loop(max_tokens=1.5), "got 1.5"),
        (lambda: loads.open_loop(max_tokens=True), "got True"),
        (
            lambda: loads.open_loop(arrivals="gamma"),
            'loads.open_loop: arrivals must be "constant" or "poisson", got \'gamma\'',
        ),
        (
            lambda: loads.open_loop(prompts="short"),
            "prompts must be a file or one of short-chat, long-prompt; there is no file",
        ),
        (lambda: loads.open_loop(prompts=7), "prompts must be a file or one of short-chat, long-prompt, got 7"),
        (
            lambda: loads.open_loop(latency_targets=3),
            "latency_targets must be bounds such as loads.LatencyTargets(ttft_s=2, e2e_s=10), got 3",
        ),
        (lambda: loads.open_loop(timeout_s=0), "timeout_s must be a number above 0"),
        (lambda: loads.open_loop(first_token="text"), 'first_token must be "any" or "content", got \'text\''),
        (
            lambda: loads.open_loop(idle_timeout_s=0),
            "loads.open_loop: idle_timeout_s must be a number above 0 and at most 10, got 0",
        ),
        (
            lambda: loads.poisson(idle_timeout_s=6, timeout_s=5),
            "loads.poisson: idle_timeout_s must be a number above 0 and at most 5, got 6",
        ),
        (lambda: loads.open_loop(patience_s=0), "patience_s must be a number above 0 and at most 10, got 0"),
        (
            lambda: loads.open_loop(patience_s=9, timeout_s=5),
            "patience_s must be a number above 0 and at most 5, got 9",
        ),
        (
            lambda: loads.open_loop(patience_s=1, patient_from="token"),
            'patient_from must be "end" or "first_token", got \'token\'',
        ),
        (
            lambda: loads.open_loop(patience_s=1, impatient_ratio=2),
            "impatient_ratio must be a number above 0 and at most 1",
        ),
        (lambda: loads.open_loop(impatient_ratio=0.5), "patient_from and impatient_ratio need patience_s"),
        (lambda: loads.open_loop(beyond_capacity="yes"), "beyond_capacity must be True or False, got 'yes'"),
        (
            lambda: loads.sine(mean_rps=5, amplitude_rps=1, period_s=9, headers=["x-priority: high"]),
            'loads.sine: headers must be such as {"x-priority": "high"}, got list',
        ),
        (
            lambda: loads.open_loop(headers={"x priority": "high"}),
            "headers must have names such as x-priority, got 'x ",
        ),
        (lambda: loads.open_loop(headers={3: "high"}), "headers must have names such as x-priority, got 3"),
        (lambda: loads.open_loop(headers={"x-a": "1", "X-A": "2"}), "headers: X-A is given twice"),
        (lambda: loads.open_loop(headers={"X-Request-Id": "7"}), "headers: X-Request-Id is set by the run itself"),
        (lambda: loads.open_loop(headers={"Host": "web"}), "headers: Host belongs to the stack"),
        (lambda: loads.open_loop(headers={"X-Api-Key": "abc"}), "headers: X-Api-Key belongs to the stack"),
        *(
            (
                lambda value=value: loads.open_loop(headers={"x-a": value}),
                "headers: the value of x-a must be plain ASCII",
            )
            for value in (7, " ", "a\r\nb", "ü", "$HOME")
        ),
        (lambda: loads.LatencyTargets(ttft_s=0), "ttft_s must be a number of seconds above 0, got 0"),
        (lambda: loads.LatencyTargets(e2e_s=True), "e2e_s must be a number of seconds above 0, got True"),
        (lambda: loads.ramp(from_rps=-1, to_rps=2, over_s=3), "from_rps must be a number of at least 0"),
        (lambda: loads.ramp(from_rps=1, to_rps=0, over_s=3), "to_rps must be a number above 0"),
        (lambda: loads.ramp(from_rps=1, to_rps=2, over_s=0), "over_s must be a number above 0, got 0"),
        (lambda: loads.burst(base_rps=0, burst_rps=2, after_s=1, burst_s=1), "base_rps"),
        (lambda: loads.burst(base_rps=1, burst_rps=0, after_s=1, burst_s=1), "burst_rps"),
        (lambda: loads.burst(base_rps=1, burst_rps=2, after_s=-1, burst_s=1), "after_s"),
        (lambda: loads.burst(base_rps=1, burst_rps=2, after_s=1, burst_s=0), "burst_s"),
        (
            lambda: loads.sine(mean_rps=5, amplitude_rps=6, period_s=1),
            "amplitude_rps must be a number of at least 0 and at most 5",
        ),
        (lambda: loads.sine(mean_rps=5, amplitude_rps=1, period_s=0), "period_s"),
        *(
            (
                lambda plan=plan: loads.tasks(plan=plan),
                f"whose argument is the task's own order number, got {plan!r}",
            )
            for plan in ("", "refund;", "refund 17", 7, "a; " * 100 + "a")
        ),
        *(
            (
                lambda reads=reads: loads.tasks(plan="refund; mail", reads=reads),
                f"of the plan 'refund; mail' that have no effect, such as ['refund'], got {reads!r}",
            )
            for reads in (["find_order"], "refund", [1], 5, {"refund"})
        ),
        (lambda: loads.tasks(rate_rps=0), "loads.tasks: rate_rps must be a number above 0 and at most 100000, got 0"),
        (lambda: loads.tasks(task_s=0), "loads.tasks: task_s must be a number above 0 and at most 3600, got 0"),
        (lambda: loads.tasks(task_s=5, good_s=6), "loads.tasks: good_s must be a number above 0 and at most 5, got 6"),
        (lambda: loads.tasks(cancel_share=2), "cancel_share must be a number of at least 0 and at most 1, got 2"),
        (lambda: loads.tasks(cancel_share=0.5), "cancel_share and cancel_after_s need each other, got 0.5 and None"),
        (lambda: loads.tasks(cancel_after_s=1), "cancel_share and cancel_after_s need each other, got 0 and 1"),
        (
            lambda: loads.tasks(task_s=5, cancel_share=1, cancel_after_s=5),
            "loads.tasks: cancel_after_s must be below task_s=5, got 5: lower it",
        ),
        (lambda: loads.tasks(arrivals="gamma"), "loads.tasks: arrivals must be"),
        (lambda: loads.trace("no/such/file.csv"), "there is no file"),
        (lambda: loads.trace(3), "path must be a file, got 3"),
        (lambda: loads.trace(DATA / "burstgpt.csv", speed=0), "speed must be a number above 0, got 0"),
        (lambda: loads.open_loop().schedule(Random(1), 0), "duration_s must be a number above 0, got 0"),
        (lambda: loads.open_loop().schedule(Random(1), math.inf), "got inf"),
        (
            lambda: loads.ramp(from_rps=0, to_rps=1e-9, over_s=1, arrivals="poisson").schedule(Random(1), 1),
            "sends no request in 1 s",
        ),
    ],
)
def test_a_wrong_argument_is_refused_with_its_value_before_anything_starts(make, message):
    with pytest.raises(BadScenario) as refused:
        make()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: loads.open_loop(rps=3), "rps"),
        (lambda: loads.ramp(from_rps=1, to_rps=2, over_s=3, good=3), "good"),
        (lambda: loads.trace(DATA / "burstgpt.csv", prompts="short-chat"), "prompts"),
    ],
)
def test_an_unknown_argument_is_the_type_error_of_python(make, name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        make()


def test_an_empty_prompt_file_is_refused(tmp_path):
    file = tmp_path / "empty.txt"
    file.write_text("\n \n")

    with pytest.raises(BadScenario, match="is empty: write one prompt per line"):
        loads.open_loop(prompts=file)


def test_a_schedule_too_large_to_hold_is_refused(monkeypatch):
    monkeypatch.setattr(schedules, "MAX_ARRIVALS", 10)

    with pytest.raises(BadScenario, match="sends more than 10 requests in 2 s: lower its rate"):
        loads.open_loop(rate_rps=8).schedule(Random(1), 2)
    with pytest.raises(BadScenario, match="sends more than 100,000 requests in 2 s: lower its rate"):
        loads.tasks(rate_rps=60_000).schedule(Random(1), 2)


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    text = (Path(__file__).parent.parent / "docs" / "load.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    monkeypatch.chdir(tmp_path)
    assert len(examples) == 4
    for example in examples:
        exec(example, {})


def test_importing_loads_stays_light():
    heavy = ["locust", "gevent", "geventhttpclient", "httpx", "docker", "testcontainers", "prometheus_client", "yaml"]
    code = f"import sys, pytest_llmchaos.loads, pytest_llmchaos.loadgen.process; print([m for m in {heavy!r} if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout

    assert seen.strip() == "[]"
