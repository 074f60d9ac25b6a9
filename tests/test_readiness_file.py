"""The file of readiness polls and its spans."""

from pytest_llmchaos.evidence import readiness_file
from pytest_llmchaos.evidence.trial_result import ReadySpan


def test_looks_with_the_same_answer_are_one_span(tmp_path):
    looks = [(0.0, 200), (1.0, 200), (2.0, 503), (3.0, 503), (4.0, 0), (5.0, 200), (6.0, 200)]
    text = b"".join(readiness_file.line(*look) for look in looks)
    (tmp_path / readiness_file.NAME).write_bytes(text + b"[7.0,")

    assert readiness_file.load(tmp_path) == (
        ReadySpan(from_s=0.0, to_s=2.0, status=200),
        ReadySpan(from_s=2.0, to_s=4.0, status=503),
        ReadySpan(from_s=4.0, to_s=5.0, status=0),
        ReadySpan(from_s=5.0, to_s=6.0, status=200),
    )


def test_a_look_is_written_to_the_millisecond():
    assert readiness_file.line(1.23456, 503) == b"[1.235,503]\n"


def test_one_look_is_a_span_without_length(tmp_path):
    (tmp_path / readiness_file.NAME).write_bytes(readiness_file.line(1.5, 200))

    assert readiness_file.load(tmp_path) == (ReadySpan(from_s=1.5, to_s=1.5, status=200),)


def test_ready_is_every_status_from_200_to_299():
    ready = {status for status in range(1000) if ReadySpan(from_s=0.0, to_s=1.0, status=status).ready}

    assert ready == set(range(200, 300))


def test_without_polls_there_is_no_span(tmp_path):
    assert readiness_file.load(tmp_path) == ()
    (tmp_path / readiness_file.NAME).touch()
    assert readiness_file.load(tmp_path) == ()
