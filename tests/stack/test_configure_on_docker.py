"""Other environment variables for the services of a user's own compose file."""

import json
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from support import sessions
from support.stacks import BOOTSTRAP, ROOT, require

from pytest_llmchaos.host import identity
from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.runtime.docker import preflight
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.subject.own_stack import OwnKeys, own_subject

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

FILES = ROOT / "tests" / "support" / "stranger"


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """The stranger's stack, with two containers of `batch`."""
    require("sim")
    command = [sys.executable, str(BOOTSTRAP), "env", "--backend", "sim"]
    images = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    monkeypatch.setenv("STRANGER_IMAGE", images["LLMCHAOS_SERVICES_IMAGE"])
    folder = tmp_path / "stack"
    shutil.copytree(FILES, folder)
    for path in (tmp_path, folder):
        path.chmod(0o755)
    ini = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    given = {
        name.removeprefix("llmchaos_"): tuple(value) if isinstance(value, list) else value
        for name, value in ini.items()
    }
    runtime = ComposeRuntime(
        preflight.examine(own_subject(OwnKeys(**given), folder)),
        project=f"llmchaos-configure{os.getpid()}",
        run="run",
        owner=identity.owner_label(),
        directory=tmp_path / "run",
    )
    runtime.prepare()
    runtime.up()
    try:
        yield runtime
    finally:
        runtime.down()
        assert sessions.leftovers(runtime.project) == []


def variables(runtime, service):
    """Variables of each container of a service."""
    found = (one.attrs["Config"]["Env"] for one in runtime._all_of(service))
    return [dict(pair.split("=", 1) for pair in pairs) for pairs in found]


def ids(runtime):
    return {name: {one.id for one in runtime._all_of(name)} for name in runtime.targets()}


def test_a_users_services_get_variables_on_top_of_their_own_and_get_rid_of_them(runtime, tmp_path):
    folder = tmp_path / "stack"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    own, url, before = variables(runtime, "gateway"), runtime.url("gateway"), ids(runtime)

    runtime.configure({"gateway": {"DEBUG_PORT": "1", "PRICE": "5$"}, "batch": {"DEPTH": "3"}})

    changed = {**own[0], "DEBUG_PORT": "1", "PRICE": "5$"}
    assert variables(runtime, "gateway") == [changed]
    assert changed["FROM_FILE"] == "yes"
    assert [one["DEPTH"] for one in variables(runtime, "batch")] == ["3", "3"]
    now = ids(runtime)
    assert (now["worker"], now["gateway"] & before["gateway"], now["batch"] & before["batch"]) == (
        before["worker"],
        set(),
        set(),
    )
    assert runtime.url("gateway") == url
    assert request("GET", f"{url}/healthz", timeout_s=5).status_code == 200
    runtime.wait_healthy(runtime.targets(), 5)

    runtime.partition("gateway")
    runtime.release("partition", "gateway")
    assert request("GET", f"{url}/healthz", timeout_s=5).status_code == 200
    runtime.configure({})

    assert variables(runtime, "gateway") == own
    assert not any("DEPTH" in one for one in variables(runtime, "batch"))
    assert {path: path.read_bytes() for path in files} == files
    logs = {log.name.partition(".until-")[0] for log in (tmp_path / "run" / "logs").glob("*.until-*")}
    assert logs == {"batch#1", "batch#2", "gateway"}
