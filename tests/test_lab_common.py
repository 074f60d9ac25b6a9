"""Settings declared as fields, and log lines."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

import fault_agent.settings
import lab_agents.settings
import lab_api.settings
import lab_desk.settings
import lab_engine.settings
import lab_llamacpp.settings
import lab_remediator.settings
import lab_supervisor_proxy.settings
from lab_common.addresses import authority, loopback_of
from lab_common.browsers import refusal
from lab_common.log import Log
from lab_common.packages import AGENTS
from lab_common.settings import CANNOT_START, Section, SettingsError, flag, number, refuse, section, text, whole


@dataclass(frozen=True, kw_only=True)
class Inner(Section):
    rate: float = number("LAB_RATE", 0.5, 0, 1)
    count: int | None = whole("LAB_COUNT", None, -1, 9)


@dataclass(frozen=True, kw_only=True)
class Outer(Section):
    name: str = text("LAB_NAME", pattern="[a-z]+", expected="a name")
    key: str = text("LAB_KEY", pattern="[a-z]*", expected="letters", secret=True)
    dry: bool = flag("LAB_DRY")
    inner: Inner = section(Inner)  # noqa: RUF009 - declares a field

    def conflicts(self) -> list[str]:
        return ["LAB_DRY: expected 0 where LAB_COUNT is set, got '1'"] if self.dry and self.inner.count else []


def problems(**env: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Outer.from_env(env)
    return str(caught.value).splitlines()


def test_unset_and_empty_variables_have_their_defaults():
    assert Outer.from_env({"LAB_NAME": " a ", "LAB_RATE": ""}) == Outer(name="a")


def test_values_are_read_from_their_variables_and_a_secret_is_not_shown():
    env = {"LAB_NAME": "a", "LAB_KEY": "hidden", "LAB_RATE": "1e-1", "LAB_COUNT": "-1"}

    assert Outer.from_env(env) == Outer(name="a", key="hidden", inner=Inner(rate=0.1, count=-1))
    assert "hidden" not in repr(Outer.from_env(env))
    assert Outer.variables() == {"LAB_NAME", "LAB_KEY", "LAB_DRY", "LAB_RATE", "LAB_COUNT"}


def test_all_that_is_wrong_is_named_at_once_with_what_was_expected():
    assert problems(LAB_RATE="nan", LAB_COUNT="10", LAB_DRY="yes", LAB_KEY="s3cret") == [
        "LAB_NAME: expected a name, got ''",
        "LAB_KEY: expected letters, got a value that is not shown",
        "LAB_DRY: expected 0 or 1, got 'yes'",
        "LAB_RATE: expected a number from 0 to 1, got 'nan'",
        "LAB_COUNT: expected a whole number from -1 to 9, got '10'",
    ]


@pytest.mark.parametrize("given", ["1_0", "+1", "1.0", "٣", "0x1", "9" * 5000])
def test_a_whole_number_is_digits(given: str):
    assert problems(LAB_NAME="a", LAB_COUNT=given)[0].startswith("LAB_COUNT: expected a whole number from -1 to 9")


def test_values_that_are_right_one_by_one_may_conflict():
    assert problems(LAB_NAME="a", LAB_DRY="1", LAB_COUNT="3") == ["LAB_DRY: expected 0 where LAB_COUNT is set, got '1'"]


def test_a_refused_start_is_one_line_for_each_problem_and_status_2(capsys: pytest.CaptureFixture[str]):
    assert refuse("desk", SettingsError("A: wrong\nB: wrong")) == 2
    assert capsys.readouterr().err == "desk: A: wrong\ndesk: B: wrong\n"


@pytest.mark.parametrize(
    "settings",
    [
        fault_agent.settings.Settings,
        lab_agents.settings.Settings,
        lab_api.settings.Settings,
        lab_desk.settings.Settings,
        lab_engine.settings.Environment,
        lab_llamacpp.settings.Settings,
        lab_remediator.settings.Settings,
        lab_supervisor_proxy.settings.Settings,
    ],
    ids=lambda settings: settings.__module__.split(".")[0],
)
def test_each_variable_of_a_service_is_named_when_its_value_cannot_be(settings: type[Section]):
    names = {
        "LAB_HOST",
        "LAB_MODEL",
        "LAB_HOLD_FILE",
        "LAB_RULES_FILE",
        "LAB_AUDIT_FILE",
        "LAB_LEDGER_FILE",
        "LAB_SUPERVISOR_SOCKET",
        "LAB_CANARY",
    }
    with pytest.raises(SettingsError) as caught:
        settings.from_env(dict.fromkeys(settings.variables(), " \x7f "))
    named = {re.match("LAB_[A-Z_]+", line)[0] for line in str(caught.value).splitlines()}

    assert named == settings.variables() - names


def test_a_log_line_has_time_service_event_and_facts(capsys: pytest.CaptureFixture[str]):
    Log("desk", {"simulated": True})("listening", port=1)
    line = json.loads(capsys.readouterr().out)

    assert line.pop("at") > 1_700_000_000
    assert line == {"service": "desk", "event": "listening", "simulated": True, "port": 1}


@pytest.mark.parametrize("host", ["127.0.0.1:2375", "127.0.0.1", "127.8.0.1:1", "localhost:80", "[::1]:80", "[::1]"])
def test_a_program_of_this_machine_is_served(host):
    assert refusal({"Host": host}) is None


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({"Host": "127.0.0.1", "Origin": "http://127.0.0.1"}, "the header Origin of a web browser"),
        ({"Host": "127.0.0.1", "Sec-Fetch-Site": "none"}, "the header Sec-Fetch-Site of a web browser"),
        ({"Host": "127.0.0.1", "Origin": ""}, "the header Origin of a web browser"),
        ({"Host": "shop.example:2375"}, "got 'shop.example:2375'"),
        ({"Host": "127.0.0.1.shop.example"}, "got '127.0.0.1.shop.example'"),
        ({"Host": "localhost.shop.example"}, "got 'localhost.shop.example'"),
        ({"Host": "10.0.0.1"}, "got '10.0.0.1'"),
        ({"Host": "[::2]:80"}, "got '[::2]:80'"),
        ({"Host": "[::1"}, "got '[::1'"),
        ({"Host": ""}, "got ''"),
        ({}, "got ''"),
    ],
)
def test_what_a_browser_may_have_sent_is_refused(headers, seen):
    assert seen in str(refusal(headers))


SERVICES = Path(__file__).parent.parent / "stack" / "services"
EXTRA = ("aiohttp", "supervisor", "uvloop", "xllamacpp")  # of the extra `local`
NEEDED = [
    (main.parent.name, package)
    for main in sorted(SERVICES.glob("*/__main__.py"))
    for package in (*EXTRA, "mcp")
    if any(re.search(rf"(?m)^\s*(import|from) {package}\b", path.read_text()) for path in main.parent.rglob("*.py"))
]


def test_the_programs_of_the_lab_need_packages_of_the_extra():
    extra = tomllib.loads((SERVICES.parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert {re.match(r"\w+", line)[0] for line in extra["local"]} == set(EXTRA)
    assert len({program for program, _ in NEEDED}) >= 4


@pytest.mark.parametrize(("program", "package"), NEEDED)
def test_a_program_without_a_package_of_the_extra_names_the_command_that_installs_it(program, package):
    code = f"import runpy, sys; sys.modules[{package!r}] = None; runpy.run_module({program!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(SERVICES)}
    )

    remedy = AGENTS if program in {"lab_agents", "lab_desk"} else "pip install 'pytest-llmchaos[local]'"
    assert done.stderr == f"{program}: {package} is not installed in {sys.executable}: {remedy}\n"
    assert done.returncode == CANNOT_START


def test_an_ipv6_address_has_brackets():
    assert (authority("::1", 80), authority("127.0.0.1", 80)) == ("[::1]:80", "127.0.0.1:80")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "api", ""])
def test_an_admin_port_is_on_ipv4_loopback_wherever_else_a_service_listens(host):
    assert loopback_of(host) == "127.0.0.1"


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_an_admin_port_is_on_the_loopback_address_of_its_service(host):
    assert loopback_of(host) == host
    assert lab_engine.settings.Settings.from_env({"LAB_HOST": host}).admin_host == host
