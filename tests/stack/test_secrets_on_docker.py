"""Secrets of a stack and a command line, absent from a run's folder."""

import re

import pytest
from support import sessions, tiny_stack
from support.dying import BESIDE_OTHERS
from support.stacks import require

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

PLANTED = {
    "variable of this process": "planted-in-the-environment",
    "variable of a service": "planted-in-a-compose-file",
    "bearer": "plantedBearer0123",
    "userinfo": "plantedUserinfo0123",
    "option": "plantedOption0123",
    "pair": "plantedPair0123",
    "known form": "hf_planted0123456789abcd",
    "variable of a header": "Zx9/planted+in=a-header",
    "literal of a header": "planted-as-a-literal",
}
SAID = (
    "print('Authorization: Bearer plantedBearer0123', 'postgres://app:plantedUserinfo0123@db/app',"
    " 'serve --api-key plantedOption0123', 'password=plantedPair0123 hf_planted0123456789abcd',"
    " 'with planted-in-a-compose-file', 'and planted-in-the-environment', flush=True)\n"
)
# The service writes each path and header that it gets into its log.
ECHO = "print(dict(self.headers), self.path, flush=True)"
HEADERS = "llmchaos_path = /v1/chat/completions?pass=$SHOP_LOGIN\nllmchaos_headers =\n  X-Shop: Plain $SHOP_LOGIN\n"
OPTION = "def pytest_addoption(parser):\n    parser.addoption('--api-key')\n"
NODE = """
def test_that_fails(trial):
    raise RuntimeError("got password=plantedPair0123 from planted-in-the-environment")
"""


@pytest.fixture
def tiny(tmp_path):
    require("sim")
    made = tiny_stack.make(tmp_path / "tiny", tiny_stack.image(), fault="pause", conftest=f"{BESIDE_OTHERS}\n{OPTION}")
    compose = made.folder / "compose.yaml"
    variable = "init: true\n  environment: {DESK_MASTER_KEY: planted-in-a-compose-file}\n"
    compose.write_text(compose.read_text().replace("init: true\n", variable, 1))
    made.environment["SHOP_PAT"] = PLANTED["variable of this process"]
    made.environment["SHOP_LOGIN"] = PLANTED["variable of a header"]
    ini = made.folder / "pytest.ini"
    ini.write_text(f"{ini.read_text()}{HEADERS}  X-Literal: {PLANTED['literal of a header']}\n")
    desk = made.folder / "desk.py"
    echo = "    def do_POST(self) -> None:\n"
    path = 'if self.path == "/v1/chat/completions"'
    assert path in desk.read_text()
    text = desk.read_text().replace(echo, f"{echo}        {ECHO}\n", 1)
    desk.write_text(text.replace(path, 'if self.path.startswith("/v1/chat/completions")', 1))
    return made


def session_of(tiny):
    """Status and output of a session, and each file of its reports with a secret."""
    junit = tiny.reports / "junit.xml"
    code, said = tiny.run("--api-key", PLANTED["option"], f"--junitxml={junit}")
    files = [path for path in tiny.reports.rglob("*") if path.is_file()]
    assert junit in files
    assert any(path.name == "report.html" for path in files)
    found = {
        f"{path.relative_to(tiny.reports)}: {secret}"
        for path in files
        for secret in PLANTED.values()
        if secret.encode() in path.read_bytes()
    }
    return code, said, found


def test_output_of_services_and_claims_is_kept_without_secrets(tiny):
    desk, scenario = tiny.folder / "desk.py", tiny.folder / "test_doomed.py"
    desk.write_text(desk.read_text().replace("import json\n", f"import json\n{SAID}", 1))
    scenario.write_text(scenario.read_text() + NODE)

    code, said, found = session_of(tiny)

    assert code == 1, said
    # pytest prints the source of a failed test, and the text of the user's own error.
    theirs = {one for one in found if one.startswith(("junit.xml", "output.txt"))}
    assert found - theirs == set()
    assert not [
        one for one in theirs for kind in ("variable of a header", "literal of a header") if PLANTED[kind] in one
    ]
    (log,) = tiny.reports.glob("2*/logs/desk.txt")
    assert "Authorization: Bearer ***" in log.read_text()
    assert "with *** and ***" in log.read_text()
    assert "'X-Shop': '***'" in log.read_text()
    assert "/v1/chat/completions?pass=***" in log.read_text()
    (plan,) = tiny.reports.glob("2*/trials/001/plan.json")
    assert '"headers": ["X-Shop", "X-Literal"]' in plan.read_text()
    messages = [line["message"] for line in sessions.of_kind(tiny.reports, "claim")]
    assert "the claim raised an error before its assertion: RuntimeError: got password=*** from ***" in messages
    assert " --api-key *** " in sessions.of_kind(tiny.reports, "run")[0]["replay"]


def test_the_error_of_a_stack_that_does_not_start_has_no_secrets(tiny):
    desk = tiny.folder / "desk.py"
    desk.write_text(desk.read_text().replace("import json\n", f"import json\n{SAID}raise SystemExit(3)\n", 1))

    code, said, found = session_of(tiny)

    assert code != 0
    assert re.search(r"the stack did not start.*Bearer \*\*\*", said, re.DOTALL), said
    assert found == set()
