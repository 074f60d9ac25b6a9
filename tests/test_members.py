"""Containers that belong to a stack, by project, name or label."""

import re

import pytest

from pytest_llmchaos.runtime.docker.members import PROJECT, SERVICE, Members

MEMBERS = Members(
    project="shop", selectors={"my-vllm": "container:my-vllm", "model": "label:role=model", "a.b": "container:a.b"}
)
ONE_OFF = {"com.docker.compose.oneoff": "True"}


@pytest.mark.parametrize(
    ("name", "labels", "service"),
    [
        ("shop-web-1", {PROJECT: "shop", SERVICE: "web"}, "web"),
        ("shop-web-run-1", {PROJECT: "shop", SERVICE: "web", **ONE_OFF}, None),
        ("shop-1", {PROJECT: "shop"}, None),
        ("web", {SERVICE: "web"}, None),
        ("other-web-1", {PROJECT: "other", SERVICE: "web"}, None),
        ("shop-model-1", {PROJECT: "shop", SERVICE: "model"}, None),
        ("my-vllm", {}, "my-vllm"),
        ("my-vllm", {PROJECT: "other", SERVICE: "web"}, "my-vllm"),
        ("my-vllm-2", {}, None),
        ("x", {"role": "model"}, "model"),
        ("shop-web-2", {PROJECT: "shop", SERVICE: "web", "role": "model"}, "model"),
        ("x", {"role": "model", **ONE_OFF}, None),
        ("x", {"role": "models"}, None),
        ("model", {}, None),
    ],
)
def test_a_container_belongs_to_one_service_or_none(name, labels, service):
    assert MEMBERS.service_of(name, labels) == service


def test_docker_lists_members_alone():
    assert Members(project="shop").filters() == [{"label": [f"{PROJECT}=shop"]}]
    assert Members(project="shop").filter_of("web") == {"label": [f"{PROJECT}=shop", f"{SERVICE}=web"]}
    assert MEMBERS.filter_of("model") == {"label": ["role=model"]}
    assert MEMBERS.filters()[0] == {"label": [f"{PROJECT}=shop"]}
    assert MEMBERS.filters()[1:] == [MEMBERS.filter_of(name) for name in MEMBERS.selectors]
    (pattern,) = MEMBERS.filter_of("a.b")["name"]
    assert re.search(pattern, "/a.b")
    assert not any(re.search(pattern, name) for name in ("/a-b", "/xa.b", "/a.b2", "/x/a.b"))
