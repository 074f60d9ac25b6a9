"""Environment variables of an experiment, checked before anything starts."""

import pytest
from support.fake_runtime import FakeRuntime

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.subject.environment import check_environment

WHERE = "experiment(arms=...)"
SERVICES = ("api", "model-1")


def test_variables_are_returned_by_service_without_services_that_get_none():
    found = check_environment(WHERE, {"api": {"LAB_RETRIES": "0", "_x1": ""}, "model-1": {}}, SERVICES)

    assert found == {"api": {"LAB_RETRIES": "0", "_x1": ""}}
    assert check_environment(WHERE, {}, SERVICES) == {}


def test_the_names_of_services_are_unchecked_until_they_are_known():
    assert check_environment(WHERE, {"web": {"A": "1"}}) == {"web": {"A": "1"}}


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        (None, r"must map services to their variables, such as \{.*\}, got None"),
        ("api", "must map services"),
        ({"api": "A=1"}, r"experiment\(arms=...\) of 'api' must map names to values, such as \{.*\}, got 'A=1'"),
        ({"stranger": {"A": "1"}}, r"must name services that may be hit \(api, model-1\), got 'stranger'"),
        ({1: {"A": "1"}}, "must name services that may be hit"),
        ({"api": {"A": "1"}, "other": {}}, "got 'other'"),
        ({"api": {"1A": "1"}}, "letters, digits and '_', not first a digit, got '1A' for 'api'"),
        ({"api": {"": "1"}}, "got '' for 'api'"),
        ({"api": {"A=B": "1"}}, "got 'A=B'"),
        ({"api": {"A\n": "1"}}, "letters, digits"),
        ({"api": {7: "1"}}, "got 7 for 'api'"),
        ({"api": {"LLMCHAOS_RUN": "1"}}, r"variables of the instrument \(LLMCHAOS_...\), got 'LLMCHAOS_RUN': drop it"),
        (
            {"api": {"A": 0}},
            "must give A of 'api' a text without line breaks and control characters, such as '0', got 0",
        ),
        ({"api": {"A": "1\n2"}}, "line breaks"),
        ({"api": {"A": "\x00"}}, "control characters"),
        ({"api": {"A": "\ud800"}}, "a text"),
    ],
)
def test_an_impossible_value_is_one_error_that_names_it(environment, why):
    with pytest.raises(BadScenario, match=why) as refused:
        check_environment(WHERE, environment, SERVICES)

    assert str(refused.value).startswith(WHERE)


@pytest.mark.parametrize("name", ["", 3])
def test_a_service_has_a_name_even_before_services_are_known(name):
    with pytest.raises(BadScenario, match="must name services by their names"):
        check_environment(WHERE, {name: {"A": "1"}})


def test_the_fake_runtime_restarts_what_changes():
    runtime = FakeRuntime()

    runtime.configure({"api": {"A": "1"}, "model-1": {"B": "2"}})
    runtime.configure({"api": {"A": "1"}})
    runtime.configure({"api": {"A": "1"}, "model-2": {}})

    starts = [event.service for event in runtime.events(0, float("inf")) if event.action == "start"]
    assert starts == ["api", "model-1", "model-1"]
    with pytest.raises(BadScenario, match="stranger"):
        runtime.configure({"stranger": {"A": "1"}})
    assert runtime.environment == {"api": {"A": "1"}}
