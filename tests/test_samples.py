"""Samples on disk: what is read back is what was written, and what is not a samples file is refused."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.evidence import samples_file
from pytest_llmchaos.loadgen.tail import SamplesTail, merge
from pytest_llmchaos.model import OUTCOMES, Sample
from pytest_llmchaos.stats.recovery import callers_from
from pytest_llmchaos.stats.windows import windows

micro = st.integers(0, 10**9).map(lambda n: n / 1e6)
a_sample = st.builds(
    Sample,
    due_s=micro,
    sent_s=micro,
    first_s=st.one_of(st.none(), micro),
    end_s=micro,
    max_gap_s=micro,
    tokens=st.integers(0, 10**6),
    outcome=st.sampled_from(OUTCOMES),
    replica=st.text(max_size=20),
    request_id=st.from_regex(r"[0-9a-f]{8}-[0-9]{1,6}", fullmatch=True),
    status=st.sampled_from([0, 200, 307, 429, 503]),
    retry_after_s=st.one_of(st.none(), st.integers(0, 10**5).map(float)),
)
TIMES = {
    "due_s": "0.250000",
    "sent_s": "0.250300",
    "first_s": "0.300000",
    "end_s": "0.750000",
    "max_gap_s": "0.020000",
}
ONE = Sample(0.25, 0.2503, 0.3, 0.75, 0.02, 8, "ok", "model-1", "ab12-0")


def written(path, seen, tail=""):
    path.write_text(samples_file.HEADER + "\n" + "".join(map(samples_file.line, seen)) + tail, encoding="utf-8")
    return path


def numbered(count, *, worker=0, workers=1):
    return [
        Sample(i / 10, i / 10, None, i / 10 + 0.5, 0.0, i, "timeout", "", f"w{worker}-{i}")
        for i in range(worker, count, workers)
    ]


@settings(deadline=None, max_examples=50)
@given(seen=st.lists(a_sample, max_size=20))
def test_what_is_read_is_what_was_written(tmp_path_factory, seen):
    path = written(tmp_path_factory.mktemp("s") / "samples.jsonl", seen)
    loaded = samples_file.load(path)

    assert list(samples_file.read(path)) == seen
    assert [loaded[i] for i in range(len(loaded))] == seen
    assert loaded[1:3] == seen[1:3]


def outcomes(window):
    return {name: int(count) for name, count in window.outcomes.items()}


@settings(deadline=None, max_examples=50)
@given(seen=st.lists(a_sample, max_size=30))
def test_columns_and_objects_give_the_same_numbers(tmp_path_factory, seen):
    loaded = samples_file.load(written(tmp_path_factory.mktemp("s") / "samples.jsonl", seen))
    bounds = [("all", 0.0, 1e9), ("early", 0.0, 300.0)]

    assert list(map(repr, windows(loaded, bounds))) == list(map(repr, windows(seen, bounds)))
    assert [outcomes(w) for w in windows(loaded, bounds)] == [outcomes(w) for w in windows(seen, bounds)]
    assert callers_from(loaded, 10, 4) == callers_from(seen, 10, 4)


def test_latencies_of_a_file_count_from_when_a_request_was_due(tmp_path):
    late = replace(ONE, due_s=1.0, sent_s=7.0, first_s=7.5, end_s=8.0)
    loaded = samples_file.load(written(tmp_path / "s", [late]))

    (window,) = windows(loaded, [("all", 0.0, 5.0)])

    assert (window.offered, window.e2e_s.max, window.ttft_s.max) == (1, 7.0, 6.5)


def test_columns_count_from_the_end_too(tmp_path):
    loaded = samples_file.load(written(tmp_path / "s", numbered(5)))

    assert loaded[-1] == numbered(5)[-1]
    with pytest.raises(IndexError):
        loaded[5]


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    loaded = samples_file.load(written(tmp_path / "s", [ONE], tail=samples_file.line(ONE)[:30]))

    assert list(loaded) == [ONE]


@pytest.mark.parametrize("text", ["", samples_file.HEADER[:20]], ids=["empty", "cut off in the header"])
def test_a_file_without_a_whole_header_has_no_samples(tmp_path, text):
    (tmp_path / "s").write_text(text)

    assert list(samples_file.read(tmp_path / "s")) == []


def test_a_header_alone_has_no_samples(tmp_path):
    loaded = samples_file.load(written(tmp_path / "s", []))

    assert len(loaded) == 0


def test_many_blocks_are_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(samples_file, "_BLOCK_BYTES", 100)

    assert list(samples_file.read(written(tmp_path / "s", numbered(500)))) == numbered(500)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense\n", "line 1: expected the header"),
        ("[1,2]\n", "line 1: expected the header"),
        ('{"schema": "llmchaos-samples/9", "fields": []}\n', "another version wrote it"),
        (samples_file.HEADER + "\n" + samples_file.line(ONE) + "[1,2]\n", "line 3: expected due_s, sent_s"),
        (samples_file.HEADER + "\n" + samples_file.line(ONE) + "{}\n", "line 3: expected due_s, sent_s"),
        (samples_file.HEADER + "\n" + samples_file.line(ONE) + "oops\n", "line 3: expected a JSON array"),
        (
            samples_file.HEADER + "\n" + samples_file.line(ONE).replace('"ok"', '"fine"'),
            "line 2: expected due_s, sent_s",
        ),
        (samples_file.HEADER + "\n" + samples_file.line(ONE).replace('"ok"', "[]"), "line 2: expected due_s, sent_s"),
        (samples_file.HEADER + "\n" + samples_file.line(ONE).replace("0.750000", '"soon"'), "lines 2 to 2: "),
        (
            samples_file.HEADER + "\n" + samples_file.line(ONE).replace("0.750000", "NaN"),
            "line 2: expected a JSON array",
        ),
        *(
            (
                samples_file.HEADER + "\n" + samples_file.line(ONE).replace(was, odd),
                f"lines 2 to 2: expected {name} from ",
            )
            for name, was in TIMES.items()
            for odd in ("-1e12", "1e308", "1e999", "1" + "0" * 400)
        ),
    ],
)
def test_what_is_not_a_samples_file_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "s").write_text(text)

    with pytest.raises(BadScenario) as refused:
        list(samples_file.read(tmp_path / "s"))
    assert message in str(refused.value)
    assert str(tmp_path / "s") in str(refused.value)


def test_a_file_of_an_earlier_version_is_read_without_what_it_lacks(tmp_path):
    header = json.dumps({"schema": samples_file.SCHEMA, "fields": samples_file.OLD_FIELDS})
    (tmp_path / "s").write_text(f'{header}\n[0.25,0.2503,0.3,0.75,0.02,8,"ok","model-1","ab12-0"]\n')

    assert list(samples_file.read(tmp_path / "s")) == [ONE]


@pytest.mark.parametrize(
    "odd", [(",200,", ",70000,"), (",200,", ",-1,"), ("null]", '"soon"]'), ("null]", "-2]"), ("null]", "1e99]")]
)
def test_an_odd_status_or_time_to_come_back_is_refused(tmp_path, odd):
    text = samples_file.line(replace(ONE, status=200))
    (tmp_path / "s").write_text(samples_file.HEADER + "\n" + text.replace(*odd))

    with pytest.raises(BadScenario, match="lines 2 to 2: "):
        samples_file.load(tmp_path / "s")


def test_a_request_that_a_timer_woke_early_is_a_sample(tmp_path):
    early = Sample(0.0, -0.0005, 0.1, 0.2, 0.0, 8, "ok", "model-1", "ab12-0")

    assert list(samples_file.read(written(tmp_path / "s", [early]))) == [early]


def test_the_header_names_the_fields_of_a_sample():
    assert tuple(json.loads(samples_file.HEADER)["fields"]) == Sample.__slots__


def test_a_growing_file_gives_each_sample_once(tmp_path):
    path = tmp_path / "samples.jsonl"
    tail = SamplesTail([path])
    before = tail.recent(0)
    written(path, numbered(3), tail=samples_file.line(ONE)[:10])
    first = tail.recent(0)
    with path.open("a") as file:
        file.write(samples_file.line(ONE)[10:])
    second = tail.recent(0)

    assert (before, first, second, tail.recent(0)) == ([], numbered(3), [*numbered(3), ONE], [*numbered(3), ONE])


def test_recent_samples_are_those_due_since_then(tmp_path):
    tail = SamplesTail([written(tmp_path / "s", numbered(100))])

    assert tail.recent(5.0) == numbered(100)[50:]
    assert tail.recent(5.0) == numbered(100)[50:]
    assert tail.recent(60.0) == []


def test_the_samples_of_all_workers_become_one_file_in_order_of_their_ends(tmp_path):
    paths = [written(tmp_path / f"samples-{w}.jsonl", numbered(50, worker=w, workers=2)) for w in range(2)]
    merge([*paths, tmp_path / "missing"], tmp_path / "samples.jsonl")

    assert [s.tokens for s in samples_file.read(tmp_path / "samples.jsonl")] == list(range(50))
