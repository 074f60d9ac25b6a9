"""Loads as text and as lengths, for `llmchaos autoscale`."""

from pathlib import Path
from random import Random

import pytest

from pytest_llmchaos import loads
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads import traces
from pytest_llmchaos.loads.traces import Row
from pytest_llmchaos.loads.written import load_of, requests_of

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,3000,44\n2023-11-16 18:17:05,12,0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trace.csv").write_text(TRACE)
    (tmp_path / "prompts.txt").write_text("one two three\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("poisson(rate_rps=8)", loads.poisson(rate_rps=8)),
        (" loads.poisson( rate_rps = 8 ) ", loads.poisson(rate_rps=8)),
        ("open_loop()", loads.open_loop()),
        ("ramp(from_rps=1, to_rps=20, over_s=300)", loads.ramp(from_rps=1, to_rps=20, over_s=300)),
        ("sine(mean_rps=5, amplitude_rps=4, period_s=60)", loads.sine(mean_rps=5, amplitude_rps=4, period_s=60)),
        (
            "burst(base_rps=1, burst_rps=9, after_s=5, burst_s=6, max_tokens=64)",
            loads.burst(base_rps=1, burst_rps=9, after_s=5, burst_s=6, max_tokens=64),
        ),
        ("open_loop(prompts='long-prompt')", loads.open_loop(prompts="long-prompt")),
    ],
)
def test_a_call_is_the_load_of_a_scenario(text: str, load: loads.Load, folder: Path) -> None:
    assert load_of(text, folder) == load


@pytest.mark.parametrize("text", ["trace.csv", "trace('trace.csv')", "loads.trace(path='trace.csv')"])
def test_a_path_is_relative_to_the_folder(text: str, folder: Path) -> None:
    assert load_of(text, folder) == loads.trace(folder / "trace.csv")


def test_a_second_download_is_a_path(folder: Path) -> None:
    (folder / "trace(1).csv").write_text(TRACE)

    assert load_of("trace(1).csv", folder) == loads.trace(folder / "trace(1).csv")


def test_a_prompt_file_is_relative_to_the_folder(folder: Path) -> None:
    assert load_of("open_loop(prompts='prompts.txt')", folder) == loads.open_loop(prompts=folder / "prompts.txt")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("__import__('os').system('false')", r"is unknown: expected the path of a trace, or a call such as poisson"),
        ("tasks(rate_rps=1)", "is unknown: .* of burst, open_loop, "),
        ("poisson(rate_rps=open('x'))", "cannot be read"),
        ("poisson(rate_rps=8)(", "there is no file"),
        ("poisson(rate_rps=)", "cannot be read"),
        ("trace('t.csv', foo=1)", "unexpected keyword argument 'foo'"),
        ("trace('t.csv', path='b', foo=1)", "unexpected keyword argument 'foo'"),
        ("poisson(8)", r"expected named arguments, got 8: write poisson\(NAME=8\)"),
        ("trace(1)", "expected named arguments, got 1"),
        ("poisson(**{'rate_rps': 8})", "is unknown"),
        ("poisson(rate=8)", "unexpected keyword argument 'rate': see `loads.poisson`"),
        ("poisson(rate_rps=0)", "rate_rps must be a number above 0"),
        ("missing.csv", "there is no file .*missing.csv"),
        ("(" * 9000 + ")" * 9000, r"load '\({100}\.\.\.' cannot be read"),
    ],
)
def test_another_text_is_one_error(text: str, seen: str, folder: Path) -> None:
    with pytest.raises(BadScenario, match=seen):
        load_of(text, folder)


def test_a_drawn_request_has_the_words_of_its_prompt_and_comes_from_the_seed() -> None:
    load = loads.poisson(rate_rps=20, max_tokens=7)

    rows = requests_of(load, Random(1), 30)

    assert rows == requests_of(load, Random(1), 30) != requests_of(load, Random(2), 30)
    schedule = load.schedule(Random(1), 30)
    assert rows == tuple(Row(one.due_s, len(one.prompt.split()), 7) for one in schedule)


def test_a_recorded_request_has_its_own_lengths_and_the_speed_of_the_replay(folder: Path) -> None:
    load = loads.trace(folder / "trace.csv", speed=4)

    assert requests_of(load, Random(1), 60) == (Row(0.0, 3000, 44), Row(0.5, 12, 1))
    assert requests_of(load, Random(1), 0.5) == (Row(0.0, 3000, 44),)


def test_an_answer_can_have_a_length_of_its_own(folder: Path) -> None:
    rows = requests_of(loads.trace(folder / "trace.csv", max_tokens=5), Random(1), 60)

    assert [row.answer_tokens for row in rows] == [5, 5]


def test_a_cut_trace_is_not_replayed_beyond_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces.parse, "__kwdefaults__", {**traces.parse.__kwdefaults__, "max_rows": 1})
    load = loads.trace(folder / "trace.csv")

    with pytest.raises(BadScenario, match="only the first 1 requests were read, which end at 0 s, 60 s are needed"):
        requests_of(load, Random(1), 60)


def test_a_duration_without_a_request_is_an_error(folder: Path) -> None:
    with pytest.raises(BadScenario, match="sends no request in 0 s"):
        requests_of(loads.trace(folder / "trace.csv"), Random(1), 0)
