"""Unknown ini keys and values of another type, each one clear error."""

import pytest
from support.own_stack_keys import make_folder
from support.plugin_double import SCENARIO, put_double

from pytest_llmchaos.evidence import redaction
from pytest_llmchaos.evidence.redaction import redact

UNIT = "def test_unit():\n    assert True\n"
ON_WEB = SCENARIO.format(fault='faults.kill("web")')
OWN = {
    "llmchaos_compose": '["compose.yaml"]',
    "llmchaos_slo": '"slo.yaml"',
    "llmchaos_api": '"web"',
    "llmchaos_prometheus": '"prom"',
    "llmchaos_targets": '["web", "worker"]',
}


@pytest.fixture
def double(monkeypatch):
    return put_double(monkeypatch)


@pytest.fixture
def chaos(pytester, double, monkeypatch):
    """Run pytest without other plugins, on a pyproject.toml with a user's own stack."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(*args, lines=(), own=False, text=ON_WEB, **changes):
        make_folder(pytester.path)
        written = {**(OWN if own else {"llmchaos_runtime": '"local"'}), **changes}
        table = "\n".join([*(f"{key} = {value}" for key, value in written.items()), *lines])
        pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{table}\n")
        pytester.makepyfile(test_scenario=text)
        return pytester.runpytest_inprocess("-p", "pytest_llmchaos.plugin", "-p", "no:cacheprovider", *args)

    return run


def require_refused(result, double, message):
    result.stderr.fnmatch_lines([f"ERROR: {message}*"])
    assert result.stderr.str().count("ERROR") == 1
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert double.performed == []


MISSPELT = [
    ("llmchaos_atach = true", "did you mean llmchaos_attach?"),
    ("llmchaos_token_per_s = 5", "did you mean llmchaos_tokens_per_s?"),
    ('llmchaos_target = ["web"]', "did you mean llmchaos_targets?"),
    ("llmchaos-attach = true", "did you mean llmchaos_attach?"),
    ("llm_chaos_attach = true", "did you mean llmchaos_attach?"),
    ("LLMCHAOS_attach = true", "did you mean llmchaos_attach?"),
    ("llmchaos_zzz = true", "the keys are llmchaos_runtime, llmchaos_backend, "),
]


@pytest.mark.parametrize(("line", "hint"), MISSPELT, ids=[line for line, _ in MISSPELT])
def test_an_unread_key_is_refused_with_the_nearest_one(chaos, double, line, hint):
    key = line.split(" =")[0]

    require_refused(
        chaos(lines=[line], own=True),
        double,
        f"{key} is not an ini key of pytest-llmchaos; {hint}",
    )


def test_a_misspelt_key_is_named_and_not_the_one_that_is_missing_for_it(chaos, double):
    lines = [f"{key} = {value}" for key, value in OWN.items() if key != "llmchaos_targets"]

    result = chaos(lines=[*lines, 'llmchaos_target = ["web"]'])

    require_refused(
        result, double, "llmchaos_target is not an ini key of pytest-llmchaos; did you mean llmchaos_targets?"
    )


def test_an_unread_key_is_refused_on_the_command_line_too(chaos, double):
    require_refused(chaos("-o", "llmchaos_atach=true", own=True), double, "llmchaos_atach is not an ini key*")


@pytest.mark.parametrize("option", ["unleash", "plan", "seed", "replay", "repeat"])
def test_an_option_of_the_command_line_is_refused_as_a_key(chaos, double, option):
    result = chaos(lines=[f'llmchaos_{option} = "1"'], own=True)

    require_refused(result, double, f"llmchaos_{option} is not an ini key; use --chaos-{option} on the command line")


def test_a_worker_reports_a_refused_key_once(chaos):
    result = chaos("-p", "xdist", "-n", "1", lines=["llmchaos_atach = true"], own=True)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*BadScenario: llmchaos_atach is not an ini key*did you mean llmchaos_attach?*"])
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_a_session_without_experiments_runs_whatever_key_is_misspelt(chaos):
    chaos(lines=["llmchaos_atach = true"], own=True, text=UNIT).assert_outcomes(passed=1)


def test_a_key_that_another_plugin_registered_is_its_own(chaos, pytester):
    pytester.makeconftest("def pytest_addoption(parser):\n    parser.addini('llmchaos_extra', 'x', type='bool')\n")

    chaos(lines=["llmchaos_extra = true"], text=SCENARIO.format(fault='faults.kill("api")')).assert_outcomes(passed=2)


TYPES = [
    ("llmchaos_api", '["faq"]', "a string, got ['faq']: write llmchaos_api = \"web\""),
    ("llmchaos_api", "5", 'a string, got 5: write llmchaos_api = "web"'),
    ("llmchaos_api", "true", 'a string, got True: write llmchaos_api = "web"'),
    ("llmchaos_prometheus", '["faq"]', "a string, got ['faq']: write llmchaos_prometheus = \"prometheus\""),
    ("llmchaos_remediator", '["faq"]', "a string, got ['faq']: write llmchaos_remediator = \"fixer\""),
    ("llmchaos_model", '["a"]', "a string, got ['a']: write llmchaos_model = \"default\""),
    ("llmchaos_slo", '["slo.yaml"]', "a string, got ['slo.yaml']: write llmchaos_slo = \"slo.yaml\""),
    ("llmchaos_report", "[]", 'a string, got []: write llmchaos_report = "reports"'),
    ("llmchaos_report", "5", 'a string, got 5: write llmchaos_report = "reports"'),
    ("llmchaos_runtime", '["local"]', "a string, got ['local']: write llmchaos_runtime = \"local\""),
    ("llmchaos_backend", '["sim"]', "a string, got ['sim']: write llmchaos_backend = \"sim\""),
    ("llmchaos_targets", "[5]", 'a list of strings, got [5]: write llmchaos_targets = ["web", "worker"]'),
    ("llmchaos_targets", '[["faq"]]', "a list of strings, got [['faq']]: write llmchaos_targets = "),
    ("llmchaos_compose", "[5]", 'a list of strings, got [5]: write llmchaos_compose = ["compose.yaml"]'),
    ("llmchaos_compose", '[["a"]]', "a list of strings, got [['a']]: write llmchaos_compose = "),
    ("llmchaos_metrics", "[5]", "a list of strings, got [5]: write llmchaos_metrics = "),
    ("llmchaos_metrics", '[""]', "a list of strings, got ['']: write llmchaos_metrics = "),
    ("llmchaos_metrics", "'\"a'", "a list of strings: No closing quotation; write llmchaos_metrics = "),
    ("llmchaos_servers", "[5]", 'a list of strings, got [5]: write llmchaos_servers = ["model: sglang"]'),
    ("llmchaos_services", "[5]", "a list of strings, got [5]: write "),
    ("llmchaos_tokens_per_s", "[5]", "a number: *; write llmchaos_tokens_per_s = 500"),
    ("llmchaos_attach", "[true]", "true or false: *; write llmchaos_attach = true"),
]


@pytest.mark.parametrize(("key", "value", "message"), TYPES, ids=[f"{key} = {value}" for key, value, _ in TYPES])
def test_a_value_of_another_type_is_refused_with_an_example(chaos, double, key, value, message):
    told = f"{key} must be {message}".translate({ord("["): "[[]"})

    require_refused(chaos(own=True, **{key: value}), double, told)


def test_numbers_and_booleans_stand_where_they_are_expected(chaos):
    result = chaos("--chaos-plan", own=True, llmchaos_tokens_per_s="500", llmchaos_attach="true")

    assert result.ret == 0


def test_the_plan_names_headers_without_their_values(chaos, monkeypatch):
    monkeypatch.setattr(redaction, "_hidden", set())
    keys = {"llmchaos_headers": '["X-Team: planted-literal", "Host: web"]', "llmchaos_dialect": '"ollama"'}

    result = chaos("--chaos-plan", own=True, **keys)

    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["requests: POST /api/chat, dialect ollama, headers X-Team, Host to web, model default"]
    )
    assert "planted-literal" not in result.stdout.str()
    assert redact("its log: planted-literal") == "its log: ***"


@pytest.mark.parametrize(
    "value", ['["X-Team: planted-literal", 5]', '[["X-Team: planted-literal"]]', '["planted-literal"]']
)
def test_a_wrong_header_is_refused_without_its_value(chaos, double, value):
    result = chaos(own=True, llmchaos_headers=value)

    require_refused(result, double, "llmchaos_headers must be ")
    assert "planted-literal" not in result.stderr.str()


@pytest.mark.parametrize("args", [[], ["--chaos-plan"]])
def test_a_model_server_of_a_service_that_is_not_scraped_is_refused_before_anything_starts(chaos, double, args):
    result = chaos(*args, own=True, llmchaos_metrics='["web:8000"]', llmchaos_servers='["wbe: vllm"]')

    require_refused(
        result, double, "llmchaos_servers names the service 'wbe', which has no endpoint in llmchaos_metrics: add"
    )


@pytest.mark.parametrize("digits", ["9" * 5000, "0" * 5000])
def test_a_repeat_of_any_length_is_one_clear_error(chaos, double, digits):
    result = chaos(f"--chaos-repeat={digits}", own=True)

    require_refused(result, double, "--chaos-repeat must be a whole number from 1 to 1000, got '")
    assert len(result.stderr.lines[0]) < 200
