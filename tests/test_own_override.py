"""A user's compose file is started without an edit, or refused in one message."""

import json
import socket
from dataclasses import replace

import pytest
import yaml
from support.fake_compose import FakeCompose
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.host.ports import loopback
from pytest_llmchaos.runtime.docker import judge, judge_project, offered_ports, preflight, reach
from pytest_llmchaos.runtime.docker.place import Place
from pytest_llmchaos.runtime.docker.project import ComposeProject
from pytest_llmchaos.subject.lab import Endpoint
from pytest_llmchaos.subject.own_stack import JUDGE, PUSHGATEWAY

PROJECT = "llmchaos-1-abcd"
LABELS = {"llmchaos.run": "r"}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def port(target, published="", protocol="tcp"):
    return {"target": target, "published": str(published), "protocol": protocol}


def stack(**changes):
    """A stack as strangers write it, with fixed ports and names."""
    services = {
        "web": {"container_name": "the-web", "ports": [port(80, 8080)], "networks": {"default": None}},
        "worker": {"restart": "always", "networks": {"default": None, "back": None}},
        "prom": {"ports": [port(9090, 9090)], "networks": {"default": None}},
    }
    for name, about in changes.items():
        services[name] = {**services.get(name, {}), **about}
    return {
        "services": services,
        "networks": {"default": {"name": f"{PROJECT}_default"}, "back": {"name": f"{PROJECT}_back"}},
    }


def examined(monkeypatch, folder, config, *, keys=None, **about):
    """The subject after the preflight, and the fake Compose."""
    text = json.loads(json.dumps(config).replace(PROJECT, preflight.EXAMINED))
    compose = FakeCompose(text, **about).install(monkeypatch)
    return preflight.examine(subject_of(folder, **(keys or {}))), compose


def refusal(monkeypatch, folder, config, *, keys=None, **about):
    with pytest.raises(BadScenario) as refused:
        examined(monkeypatch, folder, config, keys=keys, **about)
    return str(refused.value)


class Tagged(yaml.SafeLoader):
    """Reads `!override X` and `!reset X` as (tag, X)."""


def _tagged(loader, suffix, node):
    build = loader.construct_sequence if isinstance(node, yaml.SequenceNode) else None
    if isinstance(node, yaml.MappingNode):
        build = loader.construct_mapping
    value = build(node, deep=True) if build else yaml.SafeLoader.construct_object(loader, _plain(node))
    return suffix, value


def _plain(node):
    return yaml.ScalarNode(yaml.SafeLoader("").resolve(yaml.ScalarNode, node.value, (True, False)), node.value)


Tagged.add_multi_constructor("!", _tagged)


def overridden(monkeypatch, folder, config, *, keys=None, ports=None, place=None):
    """The parsed override of a run."""
    subject, _ = examined(monkeypatch, folder, config, keys=keys)
    FakeCompose(config).install(monkeypatch)
    project = ComposeProject(subject, name=PROJECT, labels=LABELS, directory=folder / "run")
    project.place = place or project.place
    project.port_of.update(ports or {name: 21000 + i for i, (name, _, _) in enumerate(subject.ports)})
    project.write_override()
    return yaml.load((folder / "run" / "compose.override.yaml").read_text(), Tagged)


def test_the_files_are_read_once_for_the_check_and_once_for_the_start(monkeypatch, folder):
    config = stack(worker={"image": "theirs:1"})
    subject, _ = examined(monkeypatch, folder, config)
    compose = FakeCompose(config).install(monkeypatch)
    project = ComposeProject(subject, name=PROJECT, labels=LABELS, directory=folder / "run")
    monkeypatch.setattr(ComposeProject, "_find_place", lambda _: None)

    project.prepare()
    project.write_override()

    assert sum("config" in command for command in compose.commands) == 2
    assert project.services["worker"]["image"] == "theirs:1"
    assert {JUDGE, PUSHGATEWAY} <= set(project.services)
    project.close()


def test_fixed_ports_become_free_ports_of_loopback(monkeypatch, folder):
    config = stack(worker={"ports": [port(7, 7), port(9, 9)]})

    services = overridden(monkeypatch, folder, config)["services"]

    assert services["web"]["ports"] == ("override", ["127.0.0.1:21000:80"])
    assert services["prom"]["ports"] == ("override", ["127.0.0.1:21001:9090"])
    assert services["worker"]["ports"] == ("override", ["127.0.0.1:21002:7"])


def test_ports_are_published_where_the_daemons_machine_is_reached(monkeypatch, folder):
    services = overridden(monkeypatch, folder, stack(), place=Place(publish="192.0.2.7"))["services"]

    assert services["web"]["ports"] == ("override", ["192.0.2.7:21000:80"])
    assert services[JUDGE]["ports"][0].startswith("192.0.2.7:")


def test_ports_without_a_role_of_a_scaled_service_are_dropped(monkeypatch, folder):
    config = stack(worker={"ports": [port(7, "7-9")], "deploy": {"replicas": 3}})

    assert overridden(monkeypatch, folder, config)["services"]["worker"]["ports"] == ("reset", [])


def test_a_container_name_becomes_an_alias_on_each_network(monkeypatch, folder):
    services = overridden(monkeypatch, folder, stack(worker={"container_name": "w"}))["services"]

    assert services["worker"]["container_name"] == ("reset", None)
    assert services["worker"]["networks"] == {"default": {"aliases": ["w"]}, "back": {"aliases": ["w"]}}
    assert "container_name" not in services["prom"]


@pytest.mark.parametrize("image", ["", "theirs:1"])
def test_a_build_moves_no_tag_and_no_cache_of_the_user(monkeypatch, folder, image):
    build = {"context": "/shop", "tags": ["shop:prod"], "cache_to": ["type=local,dest=/c"], "args": {"a": "b"}}

    built = overridden(monkeypatch, folder, stack(worker={"build": build, "image": image}))["services"]["worker"]

    assert built["build"]["tags"] == ("reset", [])
    assert built["build"]["cache_to"] == ("reset", [])


def test_the_judge_starts_after_services_with_an_address_of_their_own(monkeypatch, folder):
    """The network would give it that address, if it came first."""
    fixed = stack(worker={"networks": {"default": {"ipv4_address": "172.31.7.2"}, "back": None}})

    services = overridden(monkeypatch, folder, fixed)["services"]
    without = overridden(monkeypatch, folder, stack())["services"]

    for name in (JUDGE, PUSHGATEWAY):
        assert services[name]["depends_on"] == {"worker": {"condition": "service_started", "required": False}}
        assert "depends_on" not in without[name]


def test_a_port_of_the_host_that_another_program_has_is_refused(monkeypatch, folder):
    config = stack(web={"network_mode": "host", "networks": None, "container_name": ""})
    with socket.create_server((loopback(), 0)) as theirs:
        taken = theirs.getsockname()[1]
        config["services"]["web"]["ports"] = [port(taken)]
        keys = {"allow": ("network_mode:web",), "api": f"web:{taken}"}
        subject, _ = examined(monkeypatch, folder, config, keys=keys)
        FakeCompose(config).install(monkeypatch)
        project = ComposeProject(subject, name=PROJECT, labels=LABELS, directory=folder / "run")
        monkeypatch.setattr(ComposeProject, "_find_place", lambda _: None)

        with pytest.raises(NotReady, match=f"another program listens at its port {taken}, which would be measured"):
            project.prepare()
        project.close()


def test_docker_restarts_nothing(monkeypatch, folder):
    config = stack(web={"deploy": {"restart_policy": {"condition": "any"}}})

    services = overridden(monkeypatch, folder, config)["services"]

    assert services["worker"]["restart"] == "no"
    assert services["web"]["restart"] == "no"
    assert services["web"]["deploy"] == {"restart_policy": {"condition": "none"}}
    assert "deploy" not in services["worker"]


def test_docker_restarts_services_by_the_file_if_the_user_keeps_that(monkeypatch, folder):
    services = overridden(monkeypatch, folder, stack(), keys={"restart": "keep"})["services"]

    assert all("restart" not in services[name] and "deploy" not in services[name] for name in ("web", "worker", "prom"))


def test_everything_carries_the_labels_of_the_run(monkeypatch, folder):
    config = {**stack(), "volumes": {"data": {"name": f"{PROJECT}_data"}}}

    parts = overridden(monkeypatch, folder, config)

    assert {name for name, about in parts["services"].items() if about["labels"] == LABELS} == {
        "web", "worker", "prom", JUDGE, PUSHGATEWAY,
    }  # fmt: skip
    assert parts["networks"] == {name: {"labels": LABELS} for name in ("default", "back", "llmchaos")}
    assert parts["volumes"] == {"data": {"labels": LABELS}}


def test_a_service_in_anothers_network_is_published_there(monkeypatch, folder):
    config = stack(
        web={"network_mode": "service:vpn", "networks": None, "ports": [], "expose": ["80"]},
        vpn={"networks": {"default": None}},
    )

    services = overridden(monkeypatch, folder, config)["services"]

    assert services["vpn"]["ports"] == ("override", ["127.0.0.1:21000:80"])
    assert "ports" not in services["web"]


def test_a_service_in_the_hosts_network_keeps_its_port(monkeypatch, folder):
    config = stack(web={"network_mode": "host", "networks": None, "container_name": ""})
    keys = {"allow": ("network_mode:web",)}

    subject, _ = examined(monkeypatch, folder, config, keys=keys)
    project = ComposeProject(subject, name=PROJECT, labels=LABELS, directory=folder / "run")
    project.prepare()
    port_of = project.port_of
    project.close()

    assert port_of["web"] == 80
    assert port_of["prom"] != 9090
    assert overridden(monkeypatch, folder, config, keys=keys)["services"]["web"]["ports"] == ("reset", [])


@pytest.mark.parametrize(
    ("about", "key", "chosen"),
    [
        ({"ports": [port(80, 8080)]}, "web", 80),
        ({"ports": [port(80, 8080), port(81, 8081)]}, "web:81", 81),
        ({"ports": [port(80, 8080), port(80, 8081), port(53, 53, "udp")]}, "web", 80),
        ({"ports": [], "expose": ["7/tcp"]}, "web", 7),
        ({"ports": [], "image": "vllm"}, "web", 8000),
        ({"ports": []}, "web:5", 5),
    ],
)
def test_the_port_of_the_api_is_the_named_one_or_the_only_one(monkeypatch, folder, about, key, chosen):
    images = {"vllm": {"8000/tcp": {}}}

    subject, _ = examined(monkeypatch, folder, stack(web=about), keys={"api": key}, images=images)

    assert ("web", "", chosen) in subject.ports


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"ports": []}, "llmchaos_api names 'web', which neither publishes nor exposes a port: write it"),
        (
            {"ports": [port(5678, 5678), port(8080, 80)]},
            'which publishes 2 ports (5678, 8080): write the one to use, such as llmchaos_api = "web:5678"',
        ),
        ({"ports": [], "expose": ["1-20"]}, "which exposes 20 ports (1, 2, 3, 4, 5, 6, 7, 8, ...)"),
        ({"ports": [], "image": "two"}, "which exposes by its image 2 ports (1, 2)"),
        ({"deploy": {"replicas": 2}}, "llmchaos_api names 'web', which has 2 containers"),
        ({"scale": 3}, "llmchaos_api names 'web', which has 3 containers"),
    ],
)
def test_an_api_without_one_port_is_refused(monkeypatch, folder, about, message):
    images = {"two": {"1/tcp": {}, "2/tcp": {}, "3/udp": {}}}

    assert message in refusal(monkeypatch, folder, stack(web=about), images=images)


@pytest.mark.parametrize("none", [{"scale": 0}, {"deploy": {"replicas": 0}}])
def test_a_target_of_no_container_is_refused(monkeypatch, folder, none):
    said = refusal(monkeypatch, folder, stack(worker=none))

    assert "llmchaos_targets names 'worker', of which the compose file starts no container: expected at least 1" in said


def test_an_api_on_internal_networks_alone_is_refused(monkeypatch, folder):
    config = stack()
    config["networks"]["default"]["internal"] = True

    said = refusal(monkeypatch, folder, config)

    assert "llmchaos_api names 'web', whose networks are all internal" in said
    assert "llmchaos_prometheus names 'prom', whose networks are all internal" in said


def test_all_that_is_wrong_is_in_one_message(monkeypatch, folder):
    config = {**stack(web={"ports": []}), "volumes": {"m": {"name": "llm_models"}}}

    said = refusal(monkeypatch, folder, config, keys={"targets": ("web", "wrker"), "metrics": ("nod",)})

    assert (
        "llmchaos_targets names 'wrker', which the compose file lacks; did you mean 'worker'? it has prom, web, worker"
        in said
    )
    assert "llmchaos_metrics names 'nod', which the compose file lacks" in said
    assert "which neither publishes nor exposes a port" in said
    assert "volume 'm' has the fixed name 'llm_models'" in said


def test_a_service_with_the_name_of_the_judge_is_refused(monkeypatch, folder):
    config = stack(**{JUDGE: {"networks": {"default": None}}})

    assert f"service {JUDGE!r} has the name of a service that the run adds: rename it" in refusal(
        monkeypatch, folder, config
    )


def profiled(**profiles):
    return stack(**{name: {"profiles": list(active)} for name, active in profiles.items()})


def test_a_profile_that_is_off_counts_for_nothing(monkeypatch, folder):
    config = stack(gpu={"profiles": ["gpu"], "network_mode": "host", "privileged": True})

    subject, _ = examined(monkeypatch, folder, config)

    assert subject.profiles == ()


def test_a_role_in_a_profile_that_is_off_is_refused_with_the_profile(monkeypatch, folder):
    said = refusal(monkeypatch, folder, profiled(worker=["cpu"]))

    assert (
        "llmchaos_targets names 'worker', whose profile 'cpu' is off: add llmchaos_profiles = [\"cpu\"], or set "
        "COMPOSE_PROFILES" in said
    )


def test_profiles_of_the_ini_file_add_to_those_of_the_environment(monkeypatch, folder):
    config = profiled(worker=["cpu"], prom=["watch"])

    subject, compose = examined(monkeypatch, folder, config, keys={"profiles": ("cpu",)}, default_profiles="watch")

    assert subject.profiles == ("watch", "cpu")
    assert compose.environments[-1]["COMPOSE_PROFILES"] == "watch,cpu"


def test_the_remediators_profile_is_active_and_switches_no_other_off(monkeypatch, folder):
    config = profiled(worker=["cpu"], medic=["repair"])

    subject, _ = examined(monkeypatch, folder, config, keys={"remediator": "medic"}, default_profiles="cpu")

    assert subject.profiles == ("cpu", "repair")


def test_a_remediator_without_a_profile_changes_none(monkeypatch, folder):
    config = stack(medic={})

    subject, _ = examined(monkeypatch, folder, config, keys={"remediator": "medic"}, default_profiles="cpu")

    assert subject.profiles == ()


def test_compose_reads_the_file_as_in_its_folder(monkeypatch, folder):
    subject, compose = examined(monkeypatch, folder, stack())

    assert compose.folders[-1] == folder
    assert compose.environments[-1] == {"PWD": str(folder), "COMPOSE_PROJECT_NAME": preflight.EXAMINED}
    project = ComposeProject(subject, name=PROJECT, labels=LABELS, directory=folder / "run")
    project.prepare()
    assert project.environment()["COMPOSE_PROJECT_NAME"] == PROJECT
    assert project.environment()["PWD"] == str(folder)
    project.close()


@pytest.mark.parametrize("version", ["2.24.3", "v2.20.0", "2.6"])
def test_a_compose_without_the_tags_is_refused_with_its_version(monkeypatch, folder, version):
    with pytest.raises(NotReady, match=rf"must be 2\.24\.4 or newer .* got {version}: upgrade"):
        examined(monkeypatch, folder, stack(), version=f"{version}\n")


@pytest.mark.parametrize("version", ["2.24.4", "2.40.3+ds1-3", "v5.0.0"])
def test_a_compose_with_the_tags_is_taken(monkeypatch, folder, version):
    assert examined(monkeypatch, folder, stack(), version=version)


METRICS = {"metrics": ("web", "worker:9100/custom")}


def judge_of(monkeypatch, folder, config, keys):
    parts = overridden(monkeypatch, folder, config, keys=keys)
    files = {name: about["content"].replace("$$", "$") for name, about in parts["configs"].items()}
    return parts["services"][JUDGE], json.loads(files["llmchaos-prometheus"]), yaml.safe_load(files["llmchaos-rules"])


def test_the_judge_scrapes_every_second_what_the_user_named(monkeypatch, folder):
    service, scraping, _ = judge_of(monkeypatch, folder, stack(), METRICS)

    assert set(service["networks"]) == {"llmchaos", "default", "back"}
    assert scraping["global"]["scrape_interval"] == "1s"
    web, worker, push = scraping["scrape_configs"]
    assert (web["metrics_path"], worker["metrics_path"]) == ("/metrics", "/custom")
    assert web["static_configs"] == [{"targets": ["web:80"], "labels": {"service": "web"}}]
    assert worker["static_configs"] == [{"targets": ["worker:9100"], "labels": {"service": "worker"}}]
    assert push["honor_labels"] is True


def test_the_judge_finds_every_container_of_a_scaled_service(monkeypatch, folder):
    _, scraping, _ = judge_of(monkeypatch, folder, stack(worker={"deploy": {"replicas": 3}}), METRICS)

    worker = scraping["scrape_configs"][1]
    assert worker["dns_sd_configs"] == [{"names": ["worker"], "type": "A", "port": 9100, "refresh_interval": "1s"}]
    assert worker["relabel_configs"] == [{"target_label": "service", "replacement": "worker"}]


def test_the_judge_alerts_on_each_service_that_is_down(monkeypatch, folder):
    _, _, rules = judge_of(monkeypatch, folder, stack(), METRICS)

    *_, group = rules["groups"]
    assert [(one["expr"], one["labels"]["service"]) for one in group["rules"]] == [
        ('up{job="web"} == 0', "web"),
        ('up{job="worker"} == 0', "worker"),
    ]


def test_no_proxy_stands_between_the_judge_and_what_it_reads(monkeypatch, folder):
    """The docker client's config.json may give each container a proxy."""
    services = overridden(monkeypatch, folder, stack())["services"]

    for name in (JUDGE, PUSHGATEWAY):
        assert services[name]["environment"] == {
            "http_proxy": "",
            "HTTP_PROXY": "",
            "https_proxy": "",
            "HTTPS_PROXY": "",
            "all_proxy": "",
            "ALL_PROXY": "",
        }
    assert "environment" not in services["web"]


def test_the_judge_evaluates_the_rules_of_the_objectives(folder):
    rules = "groups:\n  - name: slo-one\n    rules: []\n"
    subject = replace(subject_of(folder, metrics=("web",)), rules=rules)

    names = [one["name"] for one in yaml.safe_load(judge.rule_file(subject))["groups"]]
    assert (names[0], names[-1]) == ("slo-one", "llmchaos")
    assert yaml.safe_load(judge.rule_file(replace(subject, scrapes=()))) == yaml.safe_load(rules)


@pytest.mark.parametrize(
    ("metrics", "config", "message"),
    [
        (("web", "web:9/other"), stack(), "llmchaos_metrics has two paths of 'web': keep one of them"),
        (
            ("worker:9",),
            stack(worker={"network_mode": "none", "networks": None}),
            "llmchaos_metrics names 'worker', which has network_mode 'none' and no name on a network",
        ),
        (("worker",), stack(), "llmchaos_metrics names 'worker', which neither publishes nor exposes a port"),
    ],
)
def test_an_endpoint_that_the_judge_cannot_scrape_is_refused(monkeypatch, folder, metrics, config, message):
    assert message in refusal(monkeypatch, folder, config, keys={"metrics": metrics})


@pytest.mark.parametrize(
    ("given", "here", "built", "chosen"),
    [
        ("mine:1", (), "", "mine:1"),
        ("", ("official",), "llmchaos/prometheus:abc", "official"),
        ("", (), "llmchaos/prometheus:abc", "llmchaos/prometheus:abc"),
        ("", (), "", "official"),
    ],
)
def test_the_judges_image_is_the_official_one_unless_another_is_at_hand(monkeypatch, given, here, built, chosen):
    official = judge.official_image("LLMCHAOS_PROMETHEUS_IMAGE")
    monkeypatch.setenv("LLMCHAOS_PROMETHEUS_IMAGE", given)

    def run(command, **_):
        if command[2] == "ls":
            return built
        if "official" not in here:
            raise NotReady("No such image")
        return "sha256:1"

    monkeypatch.setattr(judge.docker_cli, "run", run)

    assert judge.image("LLMCHAOS_PROMETHEUS_IMAGE", "prometheus") == chosen.replace("official", official)


def test_a_circle_of_networks_ends(monkeypatch):
    config = reach.read_config(
        json.dumps({"services": {"a": {"network_mode": "service:b"}, "b": {"network_mode": "service:a"}}})
    )

    assert reach.network_owner(config, "a") in ("a", "b")


class Running:
    """A container of a stack that runs already."""

    def __init__(self, identity, mode="shop_default", networks=("shop_default",), ports=("8080/tcp",)):
        self.id = identity
        self.attrs = {
            "HostConfig": {"NetworkMode": mode},
            "NetworkSettings": {"Networks": dict.fromkeys(networks)},
            "Config": {"ExposedPorts": dict.fromkeys(ports)},
        }


def test_running_containers_are_read_as_a_compose_file():
    found = {
        "web": [Running("1", networks=("shop_default", "shop_back"))],
        "worker": [Running("2"), Running("3")],
        "side": [Running("4", mode="container:1", networks=(), ports=())],
        "edge": [Running("5", mode="host", networks=("host",))],
        "other": [Running("6", networks=("elsewhere",))],
        "plain": [Running("7", mode="default", networks=("bridge",))],
        "both": [Running("8", mode="default", networks=("bridge", "shop_back"))],
    }

    config = judge_project.as_config(found, ["worker", "side", "edge", "plain", "both"])

    assert set(config.services) == {"worker", "side", "web", "edge", "plain", "both"}
    assert (
        "'plain', which has network_mode 'bridge'" in judge.resolved(config, (Endpoint(service="plain", port=1),))[1][0]
    )
    assert judge.resolved(config, (Endpoint(service="both", port=1),))[1] == []
    assert set(config.networks) == {"shop_default", "shop_back"}
    assert reach.replicas(config.services["worker"]) == 2
    assert reach.network_owner(config, "side") == "web"
    assert offered_ports.port_of(config, "web", None, "llmchaos_metrics") == 8080
    assert "network_mode 'host'" in judge.resolved(config, (Endpoint(service="edge", port=1),))[1][0]


def test_the_judge_of_a_running_stack_joins_its_networks_and_is_a_project_of_the_run(monkeypatch, folder):
    fake = FakeCompose({}).install(monkeypatch)
    removed = []
    monkeypatch.setattr(judge_project.removal, "remove_owned", lambda *about: removed.append(about))
    config = judge_project.as_config({"web": [Running("1")]}, ["web"])
    subject = replace(subject_of(folder, attach=True), scrapes=(Endpoint(service="web", port=8080),))
    made = judge_project.JudgeProject(labels=LABELS, owner="1:2:boot", directory=folder / "run", place=Place())

    made.up(config, subject)

    text = json.loads((folder / "run" / "judge.compose.yaml").read_text())
    assert text["networks"] == {
        "shop_default": {"external": True, "name": "shop_default"},
        "llmchaos": {"labels": LABELS},
    }
    assert set(text["services"]) == {JUDGE, PUSHGATEWAY}
    assert made.url(JUDGE) == f"http://127.0.0.1:{made.port_of[JUDGE]}"
    (up,) = (command for command in fake.commands if "up" in command)
    assert up[:4] == ["docker", "compose", "-p", made.name]
    assert made.name.startswith("llmchaos-")
    made.down()
    made.down()
    assert removed == [(made.name, "1:2:boot")]
