"""Decisions of the set-up: image tags, missing parts, messages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import bootstrap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from offline import build, daemon_images, daemon_socket, debian, engine, ingredients, recipes, shell
from offline.recipes import RECIPES, STACK, Recipe, base_tag, built_tag, official_reference, recipes_for

SERVICES = RECIPES[0]


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """A stack folder of our own, so that inputs can change."""
    (tmp_path / "images/thing").mkdir(parents=True)
    (tmp_path / "images/thing/Dockerfile").write_text("FROM x\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code/a.py").write_text("a = 1\n")
    monkeypatch.setattr(recipes, "STACK", tmp_path)
    return tmp_path


THING = Recipe(
    name="thing",
    variable="LLMCHAOS_THING_IMAGE",
    base_variable="LLMCHAOS_PYTHON_BASE",
    inputs=("images/thing", "code"),
    facts=("1",),
    facts_from_packages=("p",),
)


def tag(recipe=THING, base="b", arch="amd64"):
    return built_tag(recipe, base=base, arch=arch)


# Tags: "exists" must mean "right".


def test_the_same_bytes_give_the_same_tag(stack):
    assert tag() == tag()
    assert re.fullmatch(r"llmchaos/thing:[0-9a-f]{12}", tag())


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda stack: (stack / "code/a.py").write_text("a = 2\n"), id="another byte"),
        pytest.param(lambda stack: (stack / "code/b.py").write_text(""), id="a new empty file"),
        pytest.param(lambda stack: (stack / "code/a.py").rename(stack / "code/c.py"), id="a new name"),
        pytest.param(lambda stack: (stack / "code/a.py").chmod(0o755), id="made executable"),
        pytest.param(lambda stack: (stack / "images/thing/Dockerfile").write_text("FROM y\n"), id="another Dockerfile"),
    ],
)
def test_a_change_of_what_goes_in_changes_the_tag(stack, change):
    before = tag()

    change(stack)

    assert tag() != before


def test_what_python_leaves_behind_does_not_change_the_tag(stack):
    before = tag()
    (stack / "code/__pycache__").mkdir()
    (stack / "code/__pycache__/a.cpython-313.pyc").write_bytes(b"x")

    assert tag() == before


def test_base_architecture_and_versions_are_part_of_the_tag(stack):
    other_facts = replace(THING, facts=("2",))

    assert len({tag(), tag(base="c"), tag(arch="arm64"), tag(other_facts)}) == 4


def test_what_is_compiled_counts_only_where_it_is_compiled(stack):
    newer = replace(THING, facts_from_packages=("q",))

    assert tag(newer) == tag()
    assert tag(newer, base=base_tag()) != tag(base=base_tag())


def test_bytes_cannot_wander_between_files(stack):
    """Contents are hashed one by one, so that "ab"+"c" is not "a"+"bc"."""
    (stack / "code/a.py").write_text("ab")
    (stack / "code/b.py").write_text("c")
    before = tag()
    (stack / "code/a.py").write_text("a")
    (stack / "code/b.py").write_text("bc")

    assert tag() != before


def test_every_input_of_every_recipe_exists():
    absent = [entry for recipe in RECIPES for entry in recipe.inputs if not (recipe.folder / entry).exists()]

    assert absent == []


def test_what_is_built_only_without_a_registry_has_its_files_in_the_folder_for_that():
    images = {recipe.name: recipe.folder / "images" / recipe.name for recipe in RECIPES if recipe.inputs}

    assert {name for name, folder in images.items() if folder.parent.parent.name == "offline"} == {
        *("prometheus", "pushgateway", "haproxy")
    }
    assert all((folder / "Dockerfile").is_file() for folder in images.values())


def test_a_readme_does_not_change_the_tag(stack):
    before = tag()
    (stack / "code/README.md").write_text("What this is for.")

    assert tag() == before


@pytest.mark.parametrize("name", ["services", "agents", "llamacpp", "fault-agent"])
def test_an_image_has_every_package_that_its_programs_import(name):
    recipe = next(recipe for recipe in RECIPES if recipe.name == name)
    entries = {entry for entry in recipe.inputs if (STACK / entry / "__init__.py").is_file()}
    packages = {entry.removeprefix("services/") for entry in entries}
    sources = [path.read_text() for package in packages for path in (STACK / "services" / package).rglob("*.py")]
    imported = {found for text in sources for found in re.findall(r"^\s*(?:from|import) (lab_\w+)", text, re.MULTILINE)}

    assert imported - packages == set()


# Names and pins.


def test_home_built_images_never_carry_an_official_name():
    names = [built_tag(recipe, base="b", arch="amd64") for recipe in RECIPES] + [base_tag()]

    assert all(name.startswith("llmchaos/") for name in names)


@pytest.mark.parametrize(
    "variable", ["LLMCHAOS_PROMETHEUS_IMAGE", "LLMCHAOS_PUSHGATEWAY_IMAGE", "LLMCHAOS_HAPROXY_IMAGE"]
)
def test_official_images_are_pinned_by_digest(variable):
    assert re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", official_reference(variable))


def test_a_pin_that_is_nowhere_is_named():
    with pytest.raises(ValueError, match="LLMCHAOS_NO_SUCH_IMAGE"):
        official_reference("LLMCHAOS_NO_SUCH_IMAGE", "x: ${LLMCHAOS_OTHER_IMAGE:-a:1}")


@pytest.mark.parametrize("backend", recipes.BACKENDS)
def test_each_backend_has_one_image_for_its_replicas(backend):
    found = [recipe.name for recipe in recipes_for(backend) if recipe.variable == "LLMCHAOS_MODEL_IMAGE"]

    assert found == ([] if backend == "sim" else [backend])


def test_an_unknown_backend_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"ollama, llamacpp, sim, got 'vllm'"):
        recipes_for("vllm")


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-agents.lock", "requirements-llamacpp.lock", "requirements-weights.lock"]
)
def test_lock_files_have_hashes_and_name_no_index(name):
    text = (STACK / "services" / name).read_text()
    pins = re.findall(r"^[a-z0-9-]+==\S+", text, re.MULTILINE)

    assert pins
    assert len(re.findall(r"^[a-z0-9-]+==\S+( ;.*)? \\$", text, re.MULTILINE)) == len(pins)
    assert "://" not in text


# What the daemon has.

DIGEST = "sha256:" + "a" * 64


def listed(*images_there):
    return daemon_images.names_of(
        json.dumps({"Repository": repository, "Tag": tag_, "Digest": digest})
        for repository, tag_, digest in images_there
    )


@pytest.mark.parametrize(
    ("reference", "there"),
    [
        pytest.param("prom/x:v1", True, id="by tag"),
        pytest.param("prom/x:v2", False, id="another tag"),
        pytest.param(f"prom/x:v1@{DIGEST}", True, id="by tag and digest"),
        pytest.param(f"prom/x:v9@{DIGEST}", True, id="the digest identifies the image"),
        pytest.param("prom/x:v1@sha256:" + "b" * 64, False, id="another digest"),
        pytest.param(f"prom/y:v1@{DIGEST}", False, id="another name"),
    ],
)
def test_an_image_is_at_hand_when_exactly_it_is(reference, there):
    assert daemon_images.is_at_hand(reference, listed(("prom/x", "v1", DIGEST))) is there


def test_the_query_for_images_works_with_docker_20(monkeypatch):
    def client(command, *, deadline_s):
        assert deadline_s > 0
        shown = command[command.index("--format") + 1]
        line = json.dumps({"Repository": "prom/x", "Tag": "v1", "Digest": DIGEST})
        return f"{shown.replace('{{json .}}', line)}\n"  # it prints whatever is no template of its own

    monkeypatch.setattr(daemon_images, "run", client)

    assert daemon_images.images_at_hand() == {"prom/x:v1", f"prom/x@{DIGEST}"}


@pytest.fixture
def daemon(monkeypatch):
    """A daemon whose images the test sets. Returns the set."""
    there: set[str] = set()
    for module in (daemon_images, build):
        monkeypatch.setattr(module, "server_arch", lambda: "amd64")
        monkeypatch.setattr(module, "images_at_hand", lambda: frozenset(there))
    monkeypatch.setattr(daemon_images, "socket_variables", lambda: {"LLMCHAOS_DOCKER_GID": "999"})
    return there


def from_packages(backend):
    return {
        daemon_images.candidates(recipe, "amd64")[-1]
        for recipe in recipes_for(backend)
        if recipe.obtainable_from_packages
    }


def test_the_environment_of_a_backend_names_every_image_that_is_there(daemon):
    daemon.update(from_packages("ollama"))

    variables, missing = daemon_images.environment("ollama")

    assert missing == []
    assert variables["LLMCHAOS_MODEL_IMAGE"].startswith("llmchaos/ollama:")
    assert variables["LLMCHAOS_DOCKER_GID"] == "999"
    assert variables["LLMCHAOS_BACKEND"] == "ollama"
    assert "LLMCHAOS_GRAFANA_IMAGE" not in variables


def test_the_simulated_engine_runs_from_the_image_of_the_services(daemon):
    daemon.update(from_packages("sim"))

    variables, _ = daemon_images.environment("sim")

    assert variables["LLMCHAOS_MODEL_IMAGE"] == variables["LLMCHAOS_SERVICES_IMAGE"]


def test_official_images_are_preferred_to_home_built_ones(daemon):
    reference = official_reference("LLMCHAOS_PROMETHEUS_IMAGE")
    name, _, digest = reference.partition("@")
    daemon.update(from_packages("sim") | {f"{name.rpartition(':')[0]}@{digest}"})

    assert daemon_images.environment("sim")[0]["LLMCHAOS_PROMETHEUS_IMAGE"] == reference


def test_what_is_missing_is_named_with_the_command_that_gets_it(daemon, capsys):
    status = bootstrap.main(["env", "--backend", "llamacpp"])

    captured = capsys.readouterr()
    assert status == 3
    assert captured.out == ""
    assert "services, fault-agent, llamacpp, prometheus, pushgateway, haproxy" in captured.err
    assert f"run `{sys.executable} {STACK / 'bootstrap.py'} images --backend llamacpp`" in captured.err


def test_the_image_of_the_agents_is_brought_only_with_its_option(daemon, monkeypatch, tmp_path, capsys):
    brought: list[str] = []
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(build, "bring", lambda recipe, _arch, **_options: brought.append(recipe.name))
    daemon.update(from_packages("sim"))

    assert bootstrap.main(["env", "--backend", "sim"]) == 0
    assert "LLMCHAOS_AGENTS_IMAGE" not in capsys.readouterr().out
    assert bootstrap.main(["env", "--backend", "sim", "--agents"]) == 3
    said = capsys.readouterr().err
    assert "expected images agents for the backend sim" in said
    assert f"run `{sys.executable} {STACK / 'bootstrap.py'} images --backend sim --agents`" in said

    assert bootstrap.main(["images", "--backend", "sim", "--source", "packages"]) == 0
    assert brought == []
    assert bootstrap.main(["images", "--backend", "sim", "--agents", "--source", "packages"]) == 0
    assert brought == ["agents"]

    daemon.update(daemon_images.candidates(recipe, "amd64")[-1] for recipe in RECIPES if recipe.of_agents)
    assert bootstrap.main(["env", "--backend", "sim", "--agents"]) == 0
    assert json.loads(capsys.readouterr().out)["LLMCHAOS_AGENTS_IMAGE"].startswith("llmchaos/agents:")


def test_the_fault_agent_alone_is_shown_or_named_with_the_command_that_builds_it(daemon, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "server_arch", lambda: "amd64")
    monkeypatch.setattr(bootstrap, "images_at_hand", lambda: frozenset(daemon))

    assert bootstrap.main(["agent", "--show"]) == 3
    assert f"run `{sys.executable} {STACK / 'bootstrap.py'} agent`" in capsys.readouterr().err

    built = daemon_images.candidates(recipes.FAULT_AGENT, "amd64")[-1]
    daemon.add(built)

    assert bootstrap.main(["agent", "--show"]) == 0
    assert capsys.readouterr().out == f"{built}\n"


def test_the_fault_agent_is_built_alone(daemon, monkeypatch, tmp_path):
    brought: list[str] = []
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(build, "bring", lambda recipe, _arch, **_options: brought.append(recipe.name))

    assert bootstrap.main(["agent", "--source", "packages"]) == 0

    assert brought == ["fault-agent"]


def test_the_environment_is_printed_as_json_and_for_a_shell(daemon, capsys):
    daemon.update(from_packages("sim"))

    assert bootstrap.main(["env", "--backend", "sim"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert bootstrap.main(["env", "--backend", "sim", "--format", "shell"]) == 0
    as_shell = capsys.readouterr().out

    assert dict(line.removeprefix("export ").split("=", 1) for line in as_shell.splitlines()) == as_json


def test_images_that_are_there_are_not_brought_again(daemon, monkeypatch):
    daemon.update(from_packages("sim"))
    monkeypatch.setattr(build, "bring", lambda *_args, **_options: pytest.fail("brought an image that is there"))
    monkeypatch.setattr(build, "registry_answers", lambda _patience_s: pytest.fail("needless pull from a registry"))
    reference = official_reference("LLMCHAOS_GRAFANA_IMAGE")
    name, _, digest = reference.partition("@")
    daemon.add(f"{name.rpartition(':')[0]}@{digest}")

    build.ensure_images(["sim"])


@pytest.mark.parametrize("registry", ["has it", "refuses it", "does not answer", "is not wanted"])
def test_grafana_alone_is_pulled_once_a_day_and_is_optional(daemon, monkeypatch, tmp_path, registry):
    asked: list[float] = []
    pulled: list[str] = []

    def run(command, *, deadline_s):
        pulled.append(command[-1])
        if registry == "refuses it":
            raise shell.SetupError(f"no such image within {deadline_s:g} s")

    def answers(patience_s):
        asked.append(patience_s)
        return registry != "does not answer"

    daemon.update(from_packages("sim"))
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(build, "registry_answers", answers)
    monkeypatch.setattr(build, "run", run)
    source = "packages" if registry == "is not wanted" else "auto"

    build.ensure_images(["sim"], source=source)
    if registry != "has it":  # a daemon that has it by then is not queried again
        build.ensure_images(["sim"], source=source)

    assert asked == ([] if registry == "is not wanted" else [build.OPTIONAL_REGISTRY_DEADLINE_S])
    assert pulled == [official_reference("LLMCHAOS_GRAFANA_IMAGE")] * (registry in {"has it", "refuses it"})


def test_a_pull_that_failed_is_retried_the_next_day(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    build.bring_optional([RECIPES[-1]], "amd64", official=False)
    today = build.refused_lately()
    os.utime(tmp_path / build.REFUSED, (1, 1))

    assert (today, build.refused_lately()) == (True, False)


def test_without_a_cache_nothing_is_brought_that_is_not_needed(daemon, monkeypatch):
    def cache():
        raise PermissionError

    daemon.update(from_packages("sim"))
    monkeypatch.setattr(build, "cache_folder", cache)

    build.ensure_images(["sim"])


@pytest.mark.parametrize(("official", "grafana"), [(True, True), (False, False)])
def test_grafana_is_brought_only_where_a_registry_has_it(daemon, monkeypatch, tmp_path, official, grafana):
    brought: list[str] = []
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(build, "registry_answers", lambda _patience_s: official)
    monkeypatch.setattr(build, "bring", lambda recipe, _arch, **_options: brought.append(recipe.name))

    build.ensure_images(["sim"])

    assert ("grafana" in brought) is grafana
    assert {"services", "prometheus", "pushgateway", "haproxy"} <= set(brought)


def test_files_that_change_during_a_build_stop_it(daemon, monkeypatch, tmp_path, stack):
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(build, "STACK", stack)
    ran: list[list[str]] = []
    monkeypatch.setattr(build, "run", lambda command, **_options: ran.append(command))
    old = tag()
    (stack / "code/a.py").write_text("changed\n")

    with pytest.raises(shell.SetupError, match="changed: run this again"):
        build.build(THING, old, base="b", arch="amd64")
    assert ran == []


# The socket.


@pytest.mark.parametrize(
    ("daemon_is", "address", "path", "group"),
    [
        pytest.param(
            "Docker Desktop []", "unix:///Users/a/.docker/run/docker.sock", "/var/run/docker.sock", "0", id="Desktop"
        ),
        pytest.param(
            "Debian [name=rootless]",
            "unix:///run/user/1000/docker.sock",
            "/run/user/1000/docker.sock",
            "0",
            id="rootless",
        ),
    ],
)
def test_the_socket_is_given_as_containers_see_it(daemon_is, address, path, group):
    assert daemon_socket.variables_for(daemon_is, address) == {
        "LLMCHAOS_DOCKER_SOCKET": path,
        "LLMCHAOS_DOCKER_GID": group,
    }


def test_the_group_of_a_socket_on_this_machine_is_read_from_it(tmp_path):
    (tmp_path / "docker.sock").touch()

    found = daemon_socket.variables_for("Debian []", f"unix://{tmp_path}/docker.sock")

    assert found["LLMCHAOS_DOCKER_GID"] == str((tmp_path / "docker.sock").stat().st_gid)


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:2375", "ssh://me@there", "unix:///no/such/socket"])
def test_a_daemon_whose_socket_cannot_be_mounted_is_refused_by_its_address(address):
    with pytest.raises(shell.SetupError, match=re.escape(address.removeprefix("unix://"))):
        daemon_socket.variables_for("Debian []", address)


# The engine.


def missing(monkeypatch, *parts):
    monkeypatch.setattr(engine, "missing_parts", lambda: list(parts))


def test_an_engine_that_answers_is_left_alone(monkeypatch):
    missing(monkeypatch)
    for name in ("install_plugins", "start_daemon"):
        monkeypatch.setattr(engine, name, lambda *_: pytest.fail("touched a running engine"))
    monkeypatch.setattr(debian, "install", lambda *_: pytest.fail("installed for a running engine"))

    engine.ensure_engine()


@pytest.mark.parametrize(
    ("parts", "ways"),
    [
        (
            ["client", "daemon", "compose", "buildx"],
            ["docs.docker.com", "systemctl start docker", "docker-compose-plugin"],
        ),
        (["daemon"], ["systemctl start docker", "usermod -aG docker", "Docker Desktop"]),
        (["compose"], ["docker-compose-plugin"]),
        (["buildx"], ["docker-buildx-plugin"]),
    ],
)
def test_without_permission_to_install_one_message_lists_what_is_missing(monkeypatch, parts, ways):
    missing(monkeypatch, *parts)
    monkeypatch.setattr(debian, "is_debian_root", lambda: False)
    monkeypatch.setattr(debian, "install", lambda *_: pytest.fail("installed on a machine that is not ours to change"))

    with pytest.raises(shell.SetupError) as stopped:
        engine.ensure_engine()

    assert "Nothing was installed" in str(stopped.value)
    assert [way for way in ways if way not in str(stopped.value)] == []


def test_a_daemon_elsewhere_is_not_replaced_by_one_of_ours(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_options: pytest.fail("started a daemon"))

    with pytest.raises(shell.SetupError, match="tcp://elsewhere:2375"):
        engine.start_daemon()


def test_a_daemon_that_installing_has_started_is_not_started_twice(monkeypatch):
    answers = iter([["client", "daemon"], []])
    monkeypatch.setattr(engine, "missing_parts", lambda: next(answers))
    monkeypatch.setattr(engine, "daemon_answers", lambda: True)
    monkeypatch.setattr(engine, "has_plugin", lambda _name: True)
    monkeypatch.setattr(debian, "is_debian_root", lambda: True)
    monkeypatch.setattr(debian, "install", lambda _packages: None)
    monkeypatch.setattr(engine, "start_daemon", lambda: pytest.fail("started a second daemon"))

    engine.ensure_engine()


@pytest.mark.parametrize(
    ("brings_client", "installed"),
    [
        pytest.param(True, [["docker.io", "iptables"]], id="docker.io depends on its client"),
        pytest.param(False, [["docker.io", "iptables"], ["docker-cli"]], id="docker.io only recommends its client"),
    ],
)
def test_the_client_is_installed_where_the_engines_package_lacks_it(monkeypatch, brings_client, installed):
    asked = []
    answers = iter([["client", "daemon"], []])
    monkeypatch.setattr(engine, "missing_parts", lambda: next(answers))
    monkeypatch.setattr(engine, "daemon_answers", lambda: True)
    monkeypatch.setattr(engine, "has_plugin", lambda _name: True)
    monkeypatch.setattr(engine.shutil, "which", lambda _name: "/usr/bin/docker" if brings_client else None)
    monkeypatch.setattr(debian, "is_debian_root", lambda: True)
    monkeypatch.setattr(debian, "install", asked.append)

    engine.ensure_engine()

    assert asked == installed


def test_a_daemon_that_dies_at_once_shows_its_own_last_words(monkeypatch, tmp_path):
    program = tmp_path / "dockerd"
    program.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "DAEMON_LOG", tmp_path / "log")
    monkeypatch.setattr(engine, "daemon_answers", lambda: False)
    monkeypatch.setattr(engine, "under_systemd", lambda: False)

    with pytest.raises(shell.SetupError, match="no space left"):
        engine.start_daemon()


def test_failures_end_with_one_message_and_status_1(monkeypatch, capsys):
    missing(monkeypatch, "daemon")
    monkeypatch.setattr(debian, "is_debian_root", lambda: False)

    assert bootstrap.main(["engine"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# Programs that only tests need.


@pytest.mark.parametrize(
    ("there", "installed"),
    [
        pytest.param([], ["haproxy", "chromium"], id="none"),
        pytest.param(["google-chrome"], ["haproxy"], id="any browser will do"),
        pytest.param(["haproxy", "chromium"], None, id="all"),
    ],
)
def test_what_only_tests_need_is_installed_where_it_is_missing(monkeypatch, there, installed):
    asked = []
    monkeypatch.setattr(debian.shutil, "which", lambda name, path: name if name in there else None)
    monkeypatch.setattr(debian, "is_debian_root", lambda: True)
    monkeypatch.setattr(debian, "install", asked.append)

    assert bootstrap.main(["programs"]) == 0
    assert asked == ([installed] if installed else [])


def test_without_permission_to_install_the_message_has_the_command(monkeypatch, capsys):
    monkeypatch.setattr(debian.shutil, "which", lambda name, path: None)
    monkeypatch.setattr(debian, "is_debian_root", lambda: False)
    monkeypatch.setattr(debian, "install", lambda *_: pytest.fail("installed on a machine that is not ours to change"))

    assert bootstrap.main(["programs"]) == 1
    assert "run `sudo apt-get install -y --no-install-recommends haproxy chromium`" in capsys.readouterr().err


# Debian's archive.


def test_the_archive_is_taken_from_apts_own_sources_without_security_fixes():
    targets = "http://s.example/security/ Debian x-security\nhttp://n.example Node nodistro\nhttp://d.example/debian/ Debian x\n"

    assert debian.archive_address(targets) == "http://d.example/debian"


def test_sources_without_debian_are_shown():
    with pytest.raises(shell.SetupError, match=r"n\.example Node"):
        debian.archive_address("http://n.example Node nodistro\n")


# Running programs.


def test_a_failed_program_shows_its_status_and_the_end_of_its_output():
    with pytest.raises(shell.SetupError, match=r"ended with 3:\nthe reason"):
        shell.run([sys.executable, "-c", "import sys; print('the reason'); sys.exit(3)"], deadline_s=10)


def test_a_program_that_hangs_is_ended_and_named():
    with pytest.raises(shell.SetupError, match=r"within 0\.2 s"):
        shell.run([sys.executable, "-c", "import time; time.sleep(60)"], deadline_s=0.2)


def test_an_absent_program_is_named():
    with pytest.raises(shell.SetupError, match="no-such-program"):
        shell.run(["no-such-program"], deadline_s=1)


def test_the_cache_keeps_only_what_was_filled_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(ingredients, "cache_folder", lambda: tmp_path)
    with contextlib.suppress(InterruptedError), ingredients.kept("a/b") as (folder, empty):
        (folder / "half").write_text("")
        raise InterruptedError
    after_failure = [path.name for path in (tmp_path / "a").iterdir()]
    with ingredients.kept("a/b") as (folder, empty):
        (folder / "whole").write_text("")

    with ingredients.kept("a/b") as (folder, still_empty):
        assert (folder / "whole").exists()
    assert (after_failure, empty, still_empty) == ([], True, False)


@given(st.text(max_size=20))
def test_only_architectures_with_locked_packages_are_accepted(arch):
    if arch not in ingredients.MACHINES:
        with pytest.raises(shell.SetupError, match="amd64 or arm64"):
            ingredients._machine(arch)


def test_help_and_unknown_backends_are_answered_by_the_command_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        bootstrap.main(["images", "--backend", "vllm"])

    assert stopped.value.code == 2
    assert "ollama" in capsys.readouterr().err


def test_a_misspelt_source_of_images_is_refused_with_the_choices(monkeypatch, capsys):
    monkeypatch.setenv("LLMCHAOS_IMAGE_SOURCE", "officail")

    with pytest.raises(SystemExit) as ended:
        bootstrap.parse(["images"])

    assert ended.value.code == 2
    assert "LLMCHAOS_IMAGE_SOURCE must be one of auto, official, packages, got 'officail'" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "source"), [("", "auto"), ("packages", "packages"), (None, "auto")])
def test_the_source_of_images_may_come_from_the_environment(monkeypatch, given, source):
    monkeypatch.delenv("LLMCHAOS_IMAGE_SOURCE", raising=False)
    if given is not None:
        monkeypatch.setenv("LLMCHAOS_IMAGE_SOURCE", given)

    assert bootstrap.parse(["images"]).source == source


def test_what_is_installed_for_all_users_is_announced(monkeypatch, tmp_path, capsys):
    def unpack(packages, into):
        for package in packages:
            found = into / "usr/libexec/docker/cli-plugins" / package
            found.parent.mkdir(parents=True, exist_ok=True)
            found.write_text("")

    monkeypatch.setattr(debian, "unpack_newer", unpack)
    monkeypatch.setattr(engine, "PLUGIN_FOLDER", tmp_path / "plugins")

    engine.install_plugins(["compose"])

    told = f"setup: installed {tmp_path}/plugins/docker-compose, for all users of this machine\n"
    assert capsys.readouterr().err == told


def test_a_daemon_that_is_started_is_announced(monkeypatch, capsys):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "under_systemd", lambda: True)
    monkeypatch.setattr(engine, "run", lambda *_args, **_options: "")

    engine.start_daemon()

    assert capsys.readouterr().err == "setup: starting docker.service\n"
