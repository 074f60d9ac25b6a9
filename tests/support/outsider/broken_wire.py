"""Answers of one replica end early, and its connections are reset."""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=8, max_tokens=6)
TIMES = {"steady_s": 1, "fault_s": 1.5, "settle_within_s": 8, "stable_s": 1}
CHATS = faults.match(path="/v1/chat/*", streaming=True)


@experiment(load=LOAD, fault=faults.truncate("brain", after_tokens=2, match=CHATS), **TIMES)
def test_truncate_gives_clients_answers_without_an_end(trial):
    assert trial.silently_truncated >= 2
    assert len(trial.victims) == 1


@experiment(load=LOAD, fault=faults.reset("brain"), **TIMES)
def test_reset_gives_clients_errors(trial):
    assert trial.failed >= 2
    assert trial.silently_truncated <= 1  # an answer that was open when the fault began
