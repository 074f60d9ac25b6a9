"""The samples file: round trips and refusals."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmchaos.errors import BadScenario, TooFewSamples
from pytest_llmchaos.evidence import samples_file
from pytest_llmchaos.loadgen.tail import SamplesTail, merge
from pytest_llmchaos.model import OUTCOMES, Sample
from pytest_llmchaos.stats.recovery import clients_from
from pytest_llmchaos.stats.windows import LatencyTargets, windows

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
    assert clients_from(loaded, 10, 4) == clients_from(seen, 10, 4)


def test_latencies_of_a_file_count_from_when_a_request_was_due(tmp_path):
    late = replace(ONE, due_s=1.0, sent_s=7.0, first_s=7.5, end_s=8.0)
    loaded = samples_file.load(written(tmp_path / "s", [late]))

    (window,) = windows(loaded, [("all", 0.0, 5.0)])

    assert (window.offered, window.e2e_s.max, window.ttft_s.max) == (1, 7.0, 6.5)


def test_a_task_has_no_first_token_to_claim(tmp_path):
    tasks = [replace(one, outcome="ok") for one in numbered(30)]
    failed = [replace(one, outcome="timeout") for one in tasks]
    limits = LatencyTargets(ttft_s=math.inf, e2e_s=20)

    for seen in (samples_file.load(written(tmp_path / "s", tasks)), tasks, failed):
        (window,) = windows(seen, [("all", 0.0, 1e9)], limits)
        assert window.e2e_s.p95 > 0
        for latency in (window.ttft_s, window.max_gap_s):
            for claim in (lambda of: of.p95 <= 2, lambda of: of.max > 0, lambda of: of.estimate(0.5)):
                with pytest.raises(TooFewSamples, match="a task of an agent has an end alone, so claim e2e_s"):
                    claim(latency)
    for seen in (numbered(30), failed):
        (window,) = windows(seen, [("all", 0.0, 1e9)])
        assert window.ttft_s.p95 > 0


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


def test_a_file_with_only_a_header_has_no_samples(tmp_path):
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


LATEST_S = 366 * 86_400.0
BOUNDS = {"due_s": 0.0, "sent_s": -1.0, "first_s": -1.0, "end_s": -1.0, "max_gap_s": 0.0, "retry_after_s": -1.0}


def row(**values):
    """Return the values of one line of a file."""
    fields = {name: getattr(ONE, name) for name in samples_file.FIELDS} | values
    return tuple(fields.values())


@pytest.mark.parametrize("name", BOUNDS)
def test_a_time_lies_within_the_longest_trial(name):
    taken = samples_file.Samples()

    assert taken.take([row(**{name: BOUNDS[name]}), row(**{name: LATEST_S})]) == len(taken) == 2
    assert getattr(taken[1], name) == LATEST_S
    for odd in (BOUNDS[name] - 0.001, LATEST_S + 0.001):
        expected = f"expected {name} from {BOUNDS[name]:g} to 31622400 s, got {odd}"
        with pytest.raises(ValueError, match=f"^{expected}$"):
            samples_file.Samples().take([row(**{name: BOUNDS[name]}), row(**{name: LATEST_S}), row(**{name: odd})])


def test_what_came_at_once_came(tmp_path):
    at_once = replace(ONE, due_s=0.0, sent_s=0.0, first_s=0.0, status=429, retry_after_s=0.0)
    loaded = samples_file.load(written(tmp_path / "s", [at_once]))

    assert (list(loaded), loaded[0]) == ([at_once], at_once)


def test_no_rows_are_no_samples():
    taken = samples_file.Samples()

    assert (taken.take([]), list(taken)) == (0, [])


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        samples_file.Samples().take([row(), row()[:-1]])


def test_columns_that_a_refused_row_left_uneven_are_not_walked():
    taken = samples_file.Samples()
    taken.take([row()])
    with pytest.raises(OverflowError):
        taken.take([row(status=70_000)])

    with pytest.raises(ValueError, match="shorter"):
        list(taken)
    taken._replicas.pop()
    taken._replicas.pop()
    with pytest.raises(ValueError, match="shorter"):
        taken.answers_by_replica(0.0)


def test_answers_by_replica_are_the_whole_ones_that_were_due_since_then():
    taken = samples_file.Samples()
    about = [(0.5, "ok", "model-1"), (1.0, "ok", "model-1"), (1.0, "cut", "model-1"), (2.0, "ok", "model-2")]
    taken.take([row(due_s=due_s, outcome=outcome, replica=replica) for due_s, outcome, replica in about])

    assert taken.answers_by_replica(1.0) == {"model-1": 1, "model-2": 1}
    assert taken.answers_by_replica(0.0) == {"model-1": 2, "model-2": 1}


def test_the_name_of_a_replica_is_quoted_once(monkeypatch):
    quoted = []
    monkeypatch.setattr(json, "dumps", lambda text: quoted.append(text) or f'"{text}"')

    for _ in range(3):
        samples_file.line(replace(ONE, replica="a-replica-of-this-test-alone"))

    assert quoted == ["a-replica-of-this-test-alone"]


def test_a_line_keeps_microseconds_and_the_retry_after_of_a_refusal():
    sample = replace(ONE, first_s=None, end_s=0.750_000_4, status=503, retry_after_s=1.5)

    assert samples_file.line(sample) == '[0.250000,0.250300,null,0.750000,0.020000,8,"ok","model-1","ab12-0",503,1.5]\n'
    exact = replace(ONE, retry_after_s=86_400.000_000_123)
    assert samples_file.line(exact).endswith(",0,86400.000000123]\n")


LINE = samples_file.line(ONE)
ALL_FIELDS = ", ".join(samples_file.FIELDS)


@pytest.mark.parametrize("block_bytes", [100, 1 << 18])
@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("oops\n", "a JSON array, got b'oops'"),
        ("o" * 90 + "\n", f"a JSON array, got b'{'o' * 80}'"),
        ("[1,2]\n", f"{ALL_FIELDS}, got [1, 2]"),
        ('"' + "o" * 90 + '"\n', f"{ALL_FIELDS}, got {'o' * 80}"),
        (LINE[:-2] + ",0]\n", f"{ALL_FIELDS}, got {str([*row(), 0])[:80]}"),
    ],
    ids=["text", "long", "short row", "long text", "long row"],
)
def test_an_odd_line_is_named_wherever_it_is(tmp_path, monkeypatch, block_bytes, odd, message):
    monkeypatch.setattr(samples_file, "_BLOCK_BYTES", block_bytes)
    (tmp_path / "s").write_text(samples_file.HEADER + "\n" + LINE * 3 + odd + LINE)

    with pytest.raises(BadScenario) as refused:
        samples_file.load(tmp_path / "s")
    assert str(refused.value) == f"{tmp_path / 's'}, line 5: expected {message}"


def test_odd_numbers_are_in_one_of_the_lines_that_are_named(tmp_path):
    odd = LINE.replace("0.750000", "-2")
    (tmp_path / "s").write_text(samples_file.HEADER + "\n" + LINE * 2 + odd + LINE)

    with pytest.raises(BadScenario, match=r"s, lines 2 to 5: expected end_s from -1 to 31622400 s, got -2$"):
        samples_file.load(tmp_path / "s")


def test_a_block_by_itself_begins_at_the_second_line(tmp_path):
    with pytest.raises(BadScenario, match=f"{tmp_path}, line 3: expected a JSON array"):
        samples_file.parse(tmp_path, LINE.encode() + b"oops")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("o" * 90, f"got b'{'o' * 80}'"),
        (
            json.dumps({"schema": "s" * 300, "fields": []}),
            f"got {json.dumps({'schema': 's' * 300}).encode()[:200]!r}: another version wrote it",
        ),
        (json.dumps({"schema": samples_file.SCHEMA, "fields": samples_file.FIELDS[:5]}), ": another version wrote it"),
        (json.dumps({"schema": "llmchaos-samples/0", "fields": samples_file.FIELDS}), ": another version wrote it"),
    ],
    ids=["text", "long", "fewer fields", "an earlier schema"],
)
def test_another_header_is_named_as_far_as_it_is_short(tmp_path, header, message):
    (tmp_path / "s").write_text(header + "\n" + LINE)

    with pytest.raises(BadScenario) as refused:
        samples_file.load(tmp_path / "s")
    assert str(refused.value).startswith(f"{tmp_path / 's'}, line 1: expected the header {samples_file.HEADER}, got b")
    assert str(refused.value).endswith(message)


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
