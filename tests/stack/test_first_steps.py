"""The first commands of a new user, in an empty folder, with the built wheel."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import wheels
from support.doc_blocks import blocks_of, lines_of
from support.hiccups import run_measured
from support.stacks import BOOTSTRAP, require

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

README = (wheels.ROOT / "README.md").read_text()
ACTIVATE = ". .venv/bin/activate"
LINK = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from support import wheels
wheels.link_packages(Path(".venv"), Path({wheel!r}), "local")
"""


# A stranger's compose file: container names, fixed ports, a restart policy, a key and a
# model that the service checks.
COMPOSE = """
services:
  web:
    image: ${FAQ_IMAGE}
    container_name: shop-web
    restart: unless-stopped
    entrypoint: ["python3", "/guarded.py"]
    init: true
    ports: ["18080:8080"]
    volumes: ["./faq.py:/faq.py:ro", "./guarded.py:/guarded.py:ro"]
    environment: {MODEL_NAME: org/tiny-1B, API_KEY: "${API_KEY:-sk-local}"}
    healthcheck:
      test: ["CMD", "python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
      interval: 1s
"""
GUARDED = """
import io, json, os
import faq

answer = faq.Desk.do_POST

def guarded(self):
    body, rest = self.rfile.read(int(self.headers["content-length"])), self.rfile
    if self.headers["authorization"] != f"Bearer {os.environ['API_KEY']}":
        self._whole(401, "no key", "text/plain")
    elif json.loads(body).get("model") != os.environ["MODEL_NAME"]:
        self._whole(404, "no such model", "text/plain")
    else:
        self.rfile = io.BytesIO(body)
        answer(self)
        self.rfile = rest

faq.Desk.do_POST = guarded
faq.main()
"""


def files_of(site: Path) -> dict[Path, bytes]:
    """Files of the installed package, without compiled ones."""
    return {
        path: path.read_bytes()
        for path in (site / "pytest_llmchaos").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return wheels.build(tmp_path_factory.mktemp("dist"), "wheel")


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The folder with the programs of an environment that has the wheel."""
    return wheels.environment(tmp_path_factory.mktemp("environment") / "venv", wheel).parent


def follow(tmp_path, wheel, *addopts):
    """Run the README's first commands, and return the new user's folder."""
    first = next(block for block in blocks_of("README.md", README) if "llmchaos init" in block.text)
    commands = lines_of(first)
    assert commands.index("pytest") == len(commands) - 1
    # After its activation the environment gets copies of this one's packages. pip
    # then finds all requirements there, and the wheel in its folder.
    (tmp_path / "link.py").write_text(LINK.format(tests=str(wheels.ROOT / "tests"), wheel=str(wheel)))
    links = shlex.join([sys.executable, str(tmp_path / "link.py")])
    lines = ["set -e", *(line for one in commands for line in (one, *([links] if one == ACTIVATE else [])))]
    folder = tmp_path / "a folder"

    def run():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=folder,
            env=wheels.clean_environment() | wheels.offline_pip(wheel) | {"PYTEST_ADDOPTS": shlex.join(addopts)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    done = run_measured(run, output_of=lambda ended: ended.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
    (site,) = folder.glob(".venv/lib/python*/site-packages")
    assert set(files_of(site).values()) <= {content for _, content in wheels.contents(wheel).values()}
    assert {path.name for path in folder.iterdir()} == {".venv", "demo"}
    return folder


def verdicts(folder):
    run = json.loads((folder / "demo" / "reports" / "latest" / "run.json").read_text())
    return [trial["verdict"] for trial in run["trials"]]


@pytest.mark.usefixtures("local_programs")
def test_the_first_commands_of_the_readme_end_with_an_experiment_that_held(tmp_path, wheel):
    folder = follow(tmp_path, wheel, "-k", "test_kill_api_costs_little")

    assert verdicts(folder) == ["held"]


@pytest.mark.nightly("the same commands with one of the three trials, and test_wheel plans all of them")
@pytest.mark.usefixtures("local_programs")
def test_all_experiments_of_the_readme_s_first_commands_hold(tmp_path, wheel):
    assert verdicts(follow(tmp_path, wheel)) == ["held"] * 3


def test_the_images_of_the_lab_are_set_up_from_the_wheel(programs):
    require("sim")
    setup = [str(programs / "llmchaos"), "setup", "--backend", "sim"]

    done = subprocess.run(
        setup, env=wheels.clean_environment(), capture_output=True, text=True, timeout=200, check=False
    )

    # The images of this checkout have the same content, so nothing is built.
    assert done.returncode == 0, done.stderr
    assert "building" not in done.stderr


def test_a_stranger_s_compose_file_gets_a_verdict_without_an_edit(tmp_path, programs):
    require("sim")
    variables = subprocess.run(
        [sys.executable, str(BOOTSTRAP), "env", "--backend", "sim"], capture_output=True, check=True
    )
    images = json.loads(variables.stdout)
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "compose.yaml").write_text(COMPOSE)
    (folder / "guarded.py").write_text(GUARDED)
    (folder / "faq.py").write_bytes((wheels.ROOT / "examples" / "byo" / "faq.py").read_bytes())
    for path in (tmp_path, folder):
        path.chmod(0o755)
    env = wheels.clean_environment() | {"FAQ_IMAGE": images["LLMCHAOS_SERVICES_IMAGE"]}
    pytest_ = f"{programs}/pytest -p no:cacheprovider"
    commands = (
        f"set -e\n{programs}/llmchaos init chaos --compose compose.yaml\ncd chaos\n"
        f"{pytest_} --chaos-plan\nexport API_KEY=sk-mine\n{pytest_}"
    )

    def run():
        shutil.rmtree(folder / "chaos", ignore_errors=True)
        return subprocess.run(
            ["bash", "-c", commands], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
        )

    done = run_measured(run, output_of=lambda ended: ended.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "export API_KEY=..." in done.stdout
    assert "not ready: llmchaos_headers: Authorization needs the environment variable API_KEY" in done.stdout
    assert "✓ held         web: pause web" in done.stdout
    assert (folder / "compose.yaml").read_text() == COMPOSE
