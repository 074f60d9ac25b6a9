"""remediation.yaml and settings: valid ones, and one clear error for others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab_common.settings import SettingsError
from lab_engine import tokens
from lab_remediator.load import load_policy, read_policy
from lab_remediator.rules import RulesError
from lab_remediator.settings import Settings

SHIPPED = Path(__file__).parent.parent / "stack" / "remediation.yaml"
GOOD = """
schema: llmlab-remediation/1
signals:
  scrape: {query: up, fires: "< 1"}
  second: {query: other, fires: "> 0.5"}
rules:
  - {name: gone, services: [api], signal: [{signal: scrape}], evidence: [{container: [exited]}], action: start}
"""


def test_the_shipped_rules_cover_every_service_of_the_lab() -> None:
    replicas = ("model-1", "model-2", "model-3", "model-4")
    policy = read_policy(SHIPPED, ("api", *replicas, "agent", "desk"))

    assert {service for rule in policy.rules for service in rule.services} == set(policy.services)
    assert policy.replicas == replicas
    assert read_policy(SHIPPED, ("api", "model-1", "model-2")).replicas == ("model-1", "model-2")


def test_the_rules_of_a_liveness_probe_trust_the_probe_alone() -> None:
    policy = read_policy(SHIPPED.with_name("remediation.liveness.yaml"), ("api", "model-1", "model-2"))

    assert {(service, rule.action) for rule in policy.rules for service in rule.services} == {
        ("api", "restart"), *((f"model-{number}", "start") for number in range(1, 5)),
    }  # fmt: skip
    api = next(rule for rule in policy.rules if rule.action == "restart")
    assert [policy.signals[one.signal].probe for one in api.signal] == ["http://{service}:8000/healthz"]
    assert not api.unless


def test_every_signal_in_the_shipped_rules_is_used() -> None:
    policy = read_policy(SHIPPED, ("api", "model-1", "model-2", "agent", "desk"))

    assert {name for name in policy.signals if not name.startswith("slo-")} == set(
        yaml.safe_load(SHIPPED.read_text())["signals"]
    )


def test_every_shipped_kill_of_a_running_replica_can_be_vetoed_by_progress() -> None:
    policy = read_policy(SHIPPED, ("model-1", "model-2"))
    # A paused replica makes none, and one that answers falsely is as fast as ever.
    apart = {"replica-paused", "replica-false"}
    kills = [rule for rule in policy.rules if rule.action != "start" and rule.name not in apart]

    assert kills
    for rule in kills:
        assert "engine-steps" in {getattr(condition, "signal", None) for condition in rule.unless}, rule.name


def test_the_canary_of_the_simulated_engine_is_its_answer_to_the_question_of_the_rules() -> None:
    probe = yaml.safe_load(SHIPPED.read_text())["signals"]["replica-canary"]["post"]
    compose = yaml.safe_load((SHIPPED.parent / "compose.sim.yaml").read_text())
    answer = tokens.answer(probe["messages"][-1]["content"], probe["max_tokens"])

    assert compose["services"]["remediator"]["environment"]["LAB_CANARY"] == answer.strip()


def test_rules_for_services_that_may_not_be_repaired_fall_away_with_their_signals() -> None:
    policy = read_policy(SHIPPED, ("api",))

    assert {rule.name.split("-")[0] for rule in policy.rules} == {"api"}
    assert "replica-scrape" not in policy.signals


def test_guards_of_a_rule_override_the_common_ones() -> None:
    text = GOOD.replace("signals:", "guards: {cooldown_s: 7}\nsignals:").replace(
        "action: start}", "action: start, guards: {max_attempts: 2}}"
    )
    rule = load_policy(text, ("api",)).rules[0]

    assert (rule.guards.cooldown_s, rule.guards.max_attempts, rule.guards.backoff) == (7, 2, 2)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("llmlab-remediation/1", "v2", "schema: expected 'llmlab-remediation/1', got 'v2'"),
        ("rules:", "rulez:", "expected keys among"),
        ("[{container: [exited]}]", "[]", "rule gone: expected evidence besides its signal, got none"),
        (
            "[{container: [exited]}]",
            "[{signal: scrape, for_s: 5}]",
            "expected independent evidence, got its own signal",
        ),
        ("[{container: [exited]}]", "[{container: [gone]}]", "expected only a list of created, dead"),
        ("[{container: [exited]}]", "[{container: []}]", "expected only a list of created, dead"),
        ("evidence: [{container: [exited]}]", "evidence: {a: 1}", "rule gone, evidence: expected a list"),
        ("[{signal: scrape}]", "[]", "expected at least one signal and only signals"),
        ("[{signal: scrape}]", "[{container: [exited]}]", "expected at least one signal and only signals"),
        ("[{signal: scrape}]", "[{signal: up}]", "expected one of the signals scrape, second, got 'up'"),
        ("[{signal: scrape}]", "[{signal: scrape, for_s: -1}]", "for_s: expected 0 to 600 seconds, got -1"),
        ("[{signal: scrape}]", "[{signal: scrape, share: 0}]", "share: expected a share above 0 and up to 1, got 0"),
        ("action: start", "action: reboot", "action: expected one of start, restart, kill, got 'reboot'"),
        ("name: gone", "name: external", "expected a name in lower case (not external or runtime), got 'external'"),
        ("name: gone", "name: runtime", "expected a name in lower case (not external or runtime), got 'runtime'"),
        ("name: gone", "name: Gone", "got 'Gone'"),
        ("services: [api]", "services: []", "services: expected at least one service"),
        ("services: [api]", "services: [worker]", "expected at least one rule for api; none names any of them"),
        ("services: [api]", "services: [1]", "expected a list of names, got [1]"),
        ('"< 1"', '"low"', "signal scrape, fires: expected a comparison such as '< 1', got 'low'"),
        ("query: up", "query: ''", "signal scrape, query: expected PromQL, got ''"),
        ("query: up,", "", "signal scrape: expected either a query or a probe, got neither"),
        ("query: up", "query: up, probe: 'http://{service}:1/'", "expected either a query or a probe, got both"),
        ("query: up", "probe: 'http://elsewhere/'", "expected http://{service}:PORT/PATH, got 'http://elsewhere/'"),
        ("query: up", "query: up, post: {a: 1}", "signal scrape: expected post only for a probe"),
        ("query: up", "query: up, canary: true", "signal scrape: expected canary only for a probe"),
        ("query: up", "query: up, busy_is_bad: true", "signal scrape: expected busy_is_bad only for a probe"),
        ("query: up", "probe: 'http://{service}:1/', busy_is_bad: 1", "busy_is_bad: expected true or false, got 1"),
        ("query: up", "probe: 'http://{service}:1/', canary: true", "canary: expected true next to a post, which has"),
        ("query: up", "probe: 'http://{service}:1/', post: {a: 1}, canary: 1", "canary: expected true next to a post"),
        ("query: up", "probe: 'http://{service}:1/', only_while: x", "only_while: expected a signal, got 'x'"),
        ("query: up", "query: up, every_s: 0", "every_s: expected 0.05 to 60 seconds, got 0"),
        ("query: up", "query: up, by: 3", "by: expected the label that names the service"),
        ("signals:", "guards: {backoff: 0.5}\nsignals:", "guard backoff: expected a number >= 1, got 0.5"),
        ("signals:", "guards: {cooldown_s: soon}\nsignals:", "guard cooldown_s: expected a number >= 0, got 'soon'"),
        ("signals:", "guards: {grace: 1}\nsignals:", "expected keys among backoff"),
        ("signals:", "]", "expected YAML, got something else"),
        (GOOD, "[" * 500, "expected YAML, got something else"),
        (GOOD, "", "the file: expected a mapping, got None"),
    ],
)
def test_a_bad_rule_is_one_clear_error(old: str, new: str, complaint: str) -> None:
    assert old in GOOD
    with pytest.raises(RulesError) as error:
        load_policy(GOOD.replace(old, new, 1), ("api",))

    assert complaint in str(error.value)


WITH_MORE = GOOD.replace("signals:", "signals_from: more.yaml\nsignals:", 1).replace(
    "{signal: scrape}", "{signal: slo-burn}"
)
MORE = """
schema: llmlab-remediation/1
signals:
  slo-burn: {query: burn, by: null, fires: "> 14.4"}
"""


def test_signals_of_the_second_file_are_signals_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(WITH_MORE)
    (tmp_path / "more.yaml").write_text(MORE)

    policy = read_policy(tmp_path / "rules.yaml", ("api",))

    assert policy.signals["slo-burn"].fires_at == "> 14.4"


@pytest.mark.parametrize(
    ("rules", "more", "complaint"),
    [
        (WITH_MORE, None, "signals_from: expected more.yaml next to"),
        (
            WITH_MORE.replace("more.yaml", "../more.yaml"),
            MORE,
            "expected the name of a file next to rules.yaml, got '../",
        ),
        (WITH_MORE.replace("more.yaml", "[a]"), MORE, "expected the name of a file next to rules.yaml, got ['a']"),
        (WITH_MORE, MORE.replace("slo-burn", "scrape"), "more.yaml: expected signals that are not in the rules' file"),
        (
            WITH_MORE,
            MORE.replace("slo-burn", "slo-x"),
            "expected one of the signals scrape, second, slo-x, got 'slo-burn'",
        ),
        (WITH_MORE, MORE.replace("/1", "/2"), "more.yaml, schema: expected 'llmlab-remediation/1', got"),
        (WITH_MORE, MORE + "rules: []", "more.yaml: expected keys among schema, signals; got rules"),
        (WITH_MORE, MORE.replace('"> 14.4"', "fast"), "signal slo-burn, fires: expected a comparison"),
        (WITH_MORE, "]", "more.yaml: expected YAML, got something else"),
        (WITH_MORE, "", "more.yaml: expected a mapping, got None"),
    ],
)
def test_a_bad_file_of_signals_is_one_clear_error(rules: str, more: str | None, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules)
    if more is not None:
        (tmp_path / "more.yaml").write_text(more)

    with pytest.raises(RulesError) as error:
        read_policy(tmp_path / "rules.yaml", ("api",))

    assert complaint in str(error.value)


def test_two_rules_of_one_name_are_refused() -> None:
    line = GOOD.splitlines()[-1]
    with pytest.raises(RulesError, match="expected unique names, got gone more than once"):
        load_policy(GOOD + line + "\n", ("api",))


ENVIRONMENT = {"LAB_PROJECT": "llmchaos-1-gw0", "LAB_REPAIRS": "api, model-1,model-2"}


def test_the_environment_needs_only_the_project_and_what_may_be_repaired() -> None:
    settings = Settings.from_env(ENVIRONMENT)

    assert settings.repairs == ("api", "model-1", "model-2")
    assert settings.host == "127.0.0.1"
    assert settings.hold_file == Path("/audit/hold")
    assert not settings.dry_run


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("LAB_PROJECT", "", "LAB_PROJECT: expected the name of a compose project, got ''"),
        ("LAB_PROJECT", "../x", "got '../x'"),
        ("LAB_REPAIRS", "", "LAB_REPAIRS: expected different services separated by commas"),
        ("LAB_REPAIRS", "api,api", "got 'api,api'"),
        ("LAB_REPAIRS", "api,a/b", "got 'api,a/b'"),
        ("LAB_PORT", "http", "LAB_PORT: expected a whole number from 0 to 65535, got 'http'"),
        ("LAB_POLL_S", "0", "LAB_POLL_S: expected a number from 0.05 to 10, got '0'"),
        ("LAB_DRY_RUN", "yes", "LAB_DRY_RUN: expected 0 or 1, got 'yes'"),
        ("LAB_DOCKER_URL", "unix:///var/run/docker.sock", "LAB_DOCKER_URL: expected http://HOST:PORT, got 'unix"),
        ("LAB_PROMETHEUS_URL", "prometheus:9090", "LAB_PROMETHEUS_URL: expected http://HOST:PORT"),
        (
            "LAB_ADDRESSES",
            "api=127.0.0.1:1",
            "LAB_ADDRESSES: expected SERVICE:PORT=HOST:PORT,..., got 'api=127.0.0.1:1'",
        ),
        ("LAB_HEALTH_PATH", "health", "LAB_HEALTH_PATH: expected the path of the replicas' health check"),
    ],
)
def test_a_bad_variable_is_one_clear_error(name: str, value: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_env({**ENVIRONMENT, name: value})

    assert complaint in str(error.value)
