"""Refusal of compose files that reach beyond their project."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_compose import FakeCompose
from support.own_stack_keys import make_folder, subject_of
from support.waiting import until

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.runtime.docker import docker_cli, judge, override, preflight, reach
from pytest_llmchaos.runtime.docker.project import ComposeProject

PROJECT = "llmchaos-1-abcd"


def problems(subject, *allow, **config):
    read = reach.read_config(json.dumps(config))
    return reach.problems(read, replace(subject, allow=allow), PROJECT)


@pytest.fixture
def subject(tmp_path):
    return subject_of(make_folder(tmp_path))


def mount(source, *, read_only=False, kind="bind"):
    return {"type": kind, "source": source, "target": "/x", "read_only": read_only}


OWN = [
    {"volumes": {"data": {"name": f"{PROJECT}_data"}}, "networks": {"default": {"name": f"{PROJECT}_default"}}},
    {"volumes": {"data": None}, "networks": {"default": None}},
    {"networks": {"inner": {"name": f"{PROJECT}_inner", "driver": "bridge"}}},
    {"services": {"web": {"network_mode": "service:side", "pid": "service:side", "ipc": "private"}}},
    {"services": {"web": {"network_mode": "none", "cap_add": ["NET_ADMIN"], "volumes_from": ["side:ro"]}}},
    {"services": {"web": {"volumes": [mount("/etc/hosts", read_only=True), mount("", kind="volume")]}}},
    {"services": {"web": {"volumes": [mount("", kind="tmpfs"), mount("alpine", kind="image")]}}},
]


@pytest.mark.parametrize("config", OWN, ids=str)
def test_parts_that_stay_in_the_project_need_no_permission(subject, config):
    assert problems(subject, **config) == []


def service(**keys):
    return {"services": {"web": keys}}


BEYOND = [
    ("volume:m", {"volumes": {"m": {"name": "llm_models"}}}, "fixed name 'llm_models'"),
    ("volume:m", {"volumes": {"m": {"name": "real_data"}}}, "fixed name 'real_data'"),
    ("volume:m", {"volumes": {"m": {"name": "llm_models", "external": True}}}, "is external (llm_models)"),
    (
        "volume:m",
        {"volumes": {"m": {"name": f"{PROJECT}_m", "driver_opts": {"type": "none", "o": "bind", "device": "/srv"}}}},
        "kept outside the project (/srv)",
    ),
    ("volume:m", {"volumes": {"m": {"name": f"{PROJECT}_m", "driver": "rclone"}}}, "driver rclone"),
    ("network:n", {"networks": {"n": {"name": "llm-net"}}}, "fixed name 'llm-net'"),
    ("network:n", {"networks": {"n": {"name": f"{PROJECT}x_n"}}}, "fixed name"),
    ("network:n", {"networks": {"n": {"name": "llm-net", "external": True}}}, "is external (llm-net)"),
    ("network:n", {"networks": {"n": {"name": f"{PROJECT}_n", "driver": "macvlan"}}}, "driver macvlan"),
    ("network_mode:web", service(network_mode="host"), "network_mode: host"),
    ("network_mode:web", service(network_mode="container:db"), "network_mode: container:db"),
    ("pid:web", service(pid="host"), "pid: host"),
    ("ipc:web", service(ipc="host"), "ipc: host"),
    ("uts:web", service(uts="host"), "uts: host"),
    ("cgroup:web", service(cgroup="host"), "cgroup: host"),
    ("userns_mode:web", service(userns_mode="host"), "userns_mode: host"),
    ("cgroup_parent:web", service(cgroup_parent="shop.slice"), "cgroup_parent: shop.slice"),
    ("privileged:web", service(privileged=True), "privileged: true"),
    ("privileged:web", service(post_start=[{"command": ["x"], "privileged": True}]), "privileged: true"),
    ("use_api_socket:web", service(use_api_socket=True), "use_api_socket: true"),
    ("cap_add:web", service(cap_add=["NET_ADMIN", "sys_admin"]), "cap_add: sys_admin"),
    ("cap_add:web", service(cap_add=["CAP_SYS_PTRACE"]), "cap_add: CAP_SYS_PTRACE"),
    ("devices:web", service(devices=[{"source": "/dev/kfd"}, "/dev/dri:/dev/dri"]), "devices: /dev/kfd, /dev/dri"),
    ("device_cgroup_rules:web", service(device_cgroup_rules=["c 1:3 mr"]), "device_cgroup_rules: c 1:3 mr"),
    ("volumes_from:web", service(volumes_from=["container:db:ro"]), "volumes_from: container:db"),
    ("provider:web", service(provider={"type": "model", "options": {}}), "provider: model"),
    ("external_links:web", service(external_links=["db:db"]), "external_links: db:db"),
    ("volumes:web", service(volumes=[mount("x", kind="cluster")]), "a mount of type cluster"),
    ("bind:/srv/data", service(volumes=[mount("/srv/data")]), "'web' can write to /srv/data on this machine"),
    ("bind:/var/run/docker.sock", service(volumes=[mount("/var/run/docker.sock", read_only=True)]), "full control"),
    ("bind:/run", service(volumes=[mount("/run", read_only=True)]), "full control of this machine"),
    ("bind:/", service(volumes=[mount("/", read_only=True)]), "full control of this machine"),
]


@pytest.mark.parametrize(("key", "config", "message"), BEYOND, ids=[f"{k} {m}" for k, _, m in BEYOND])
def test_a_way_out_of_the_project_is_refused_by_name_and_permitted_by_name(subject, key, config, message):
    (told,) = problems(subject, **config)

    assert message in told
    assert told.endswith(f'or permit it with "{key}" in llmchaos_allow')
    assert problems(subject, key, **config) == []


def test_a_shared_volume_is_reported_with_the_services_that_use_it(subject):
    uses = {"volumes": [mount("m", kind="volume")]}

    (told,) = problems(subject, volumes={"m": {"name": "x"}}, services={"web": uses, "worker": uses, "prom": {}})

    assert told.startswith("volume 'm' of service web, worker has the fixed name 'x'")


def test_a_folder_next_to_the_compose_file_has_a_relative_name(subject, tmp_path):
    config = service(volumes=[mount(str(tmp_path / "data"))])

    assert '"bind:./data"' in problems(subject, **config)[0]
    assert problems(subject, "bind:./data", **config) == []


def test_the_socket_of_any_program_is_a_way_out_even_read_only(subject, tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))

        (told,) = problems(subject, **service(volumes=[mount(str(tmp_path / "s"), read_only=True)]))

    assert "mounts the socket ./s" in told


def test_an_unused_entry_is_refused_with_the_needed_ones(subject):
    config = {"volumes": {"models": {"name": "x"}}}

    missed, unused = problems(subject, "volume:modles", **config)

    assert '"volume:models"' in missed
    assert unused == (
        "llmchaos_allow permits 'volume:modles', which the compose file does not need (it needs volume:models): remove it"
    )


def test_a_config_of_an_unknown_shape_is_refused(subject):
    with pytest.raises(BadScenario, match="printed a format that this version cannot check"):
        problems(subject, volumes={"m": {"name": ["x"]}})


@pytest.fixture
def compose(monkeypatch):
    """A function that fakes Compose with these parts of a file."""
    return lambda **config: FakeCompose(config).install(monkeypatch)


SERVICES = {
    "web": {"ports": [{"target": 80, "published": "80"}], "network_mode": "host"},
    "prom": {"ports": [{"target": 80, "published": "81"}]},
    "worker": {},
}


def test_the_preflight_refuses_before_anything_starts(subject, compose):
    fake = compose(services=SERVICES, volumes={"m": {"name": "llm_models"}})

    with pytest.raises(BadScenario, match=r"volume 'm' has the fixed name 'llm_models'.*'web' sets network_mode: host"):
        preflight.examine(subject)

    assert all({"config", "version"} & set(command) for command in fake.commands)


def test_a_running_stack_is_not_examined_for_its_reach(subject, compose, tmp_path):
    compose(services=SERVICES, volumes={"m": {"name": "llm_models"}})

    assert preflight.examine(subject_of(tmp_path, attach=True)).project == "shop"


def test_the_file_that_is_started_is_examined_once_more(subject, compose, tmp_path):
    compose(services={"web": {"privileged": True}})
    project = ComposeProject(subject, name=PROJECT, labels={}, directory=tmp_path / "run")

    with pytest.raises(BadScenario, match="privileged: true"):
        project.write_override()

    assert not (tmp_path / "run").exists()


def test_the_projects_own_things_get_labels_and_shared_ones_are_used_as_found():
    volumes = {"own": {"name": f"{PROJECT}_own"}, "m": {"name": "llm_models"}}
    networks = {"default": {"name": "llm-net", "external": True}}
    config = reach.read_config(json.dumps({"services": {"web": {}}, "volumes": volumes, "networks": networks}))

    labels = '{"labels": {"llmchaos.run": "r"}}'
    unproxied = f'"environment": {json.dumps(judge.UNPROXIED)}'
    assert override.lab_override(config, PROJECT, {"llmchaos.run": "r"}).splitlines() == [
        "services:",
        f'  "web": {labels[:-1]}, {unproxied}}}',
        "networks:",
        '  "default": !override {"external": true, "name": "llm-net"}',
        "volumes:",
        f'  "own": {labels}',
        '  "m": !override {"external": true, "name": "llm_models"}',
    ]


def test_an_image_that_compose_names_is_labelled_and_one_of_the_users_name_is_not():
    build = {"context": ".", "dockerfile": "Dockerfile"}
    services = {"web": {"build": build}, "worker": {"build": build, "image": "shop/worker"}}
    config = reach.read_config(json.dumps({"services": services}))

    labels = '{"labels": {"llmchaos.run": "r"}'
    unproxied = f'"environment": {json.dumps(judge.UNPROXIED)}'
    assert override.lab_override(config, PROJECT, {"llmchaos.run": "r"}).splitlines()[1:3] == [
        f'  "web": {labels}, "build": {labels}}}, {unproxied}}}',
        f'  "worker": {labels}, {unproxied}}}',
    ]


def test_a_docker_command_that_takes_too_long_leaves_no_process(monkeypatch, tmp_path):
    """The docker client starts Compose, which may read a file for minutes."""
    (tmp_path / "docker").write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/pid\nwait\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")

    with pytest.raises(NotReady, match=r"`docker x` did not end within 1 s: .* has very many aliases"):
        docker_cli.run(["docker", "x"], timeout_s=1.0)

    child = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{child}").exists(), "the end of the client's child", 5.0)


@pytest.mark.parametrize("command", ["run", "_answer"])
def test_a_docker_command_cannot_wait_for_an_answer_from_the_terminal(monkeypatch, tmp_path, command):
    (tmp_path / "docker").write_text("#!/bin/sh\nread -r line && echo read\necho done\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")

    said = docker_cli.run(["docker", "x"]) if command == "run" else docker_cli._answer("x").stdout

    assert said == "done\n"
