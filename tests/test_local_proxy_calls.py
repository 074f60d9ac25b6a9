"""Allow-list of the proxy in front of supervisord."""

from __future__ import annotations

import pytest

from lab_common.settings import SettingsError
from lab_supervisor_proxy.calls import AllowList, Call
from lab_supervisor_proxy.settings import Settings

PROJECT = "llmchaos-1-abc"
NAME = f"/containers/{PROJECT}-api-1"
LIST = f"/containers/json?all=1&filters=%7B%22label%22%3A%5B%22com.docker.compose.project%3D{PROJECT}%22%5D%7D"


@pytest.mark.parametrize(
    ("method", "url", "call"),
    [
        ("GET", LIST, Call(verb="list")),
        ("GET", f"{NAME}/json", Call(verb="inspect", service="api")),
        ("GET", f"/v1.41{NAME}/json", Call(verb="inspect", service="api")),
        ("POST", f"{NAME}/start", Call(verb="start", service="api")),
        ("POST", f"{NAME}/restart?t=1", Call(verb="restart", service="api", grace_s=1)),
        ("POST", f"{NAME}/stop", Call(verb="stop", service="api")),
        ("POST", f"{NAME}/kill?signal=SIGKILL", Call(verb="kill", service="api")),
        ("POST", f"{NAME}/kill?signal=SIGTERM", Call(verb="kill", service="api", signal="SIGTERM")),
    ],
)
def test_calls_of_remediator_and_autoscaler_are_allowed(method: str, url: str, call: Call) -> None:
    assert AllowList(PROJECT, ("api", "model-1"), ("api",)).call(method, url) == call


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("POST", "/containers/create"),
        ("POST", f"{NAME}/exec"),
        ("POST", f"{NAME}/json"),
        ("GET", f"{NAME}/start"),
        ("DELETE", NAME),
        ("GET", "/containers/json?all=1"),
        ("GET", LIST.replace(PROJECT, "other")),
        ("GET", f"/containers/{PROJECT}-prometheus-1/json"),
        ("GET", f"/containers/other{PROJECT}-api-1/json"),
        ("GET", f"/containers/{PROJECT}-api-2/json"),
        ("GET", f"//containers/{PROJECT}-api-1/json"),
        ("GET", f"/containers/../containers/{PROJECT}-api-1/json"),
        ("GET", f"/containers/{PROJECT}%2Dapi-1/json"),
        ("GET", f"/v1.24{NAME}/json"),
        ("GET", f"http://x{NAME}/json"),
        ("POST", f"{NAME}/kill?signal=SIGSTOP"),
        ("POST", f"{NAME}/restart?t=100"),
        ("POST", f"{NAME}/start?detachKeys=x"),
        ("GET", f"{NAME}/json\n"),
    ],
)
def test_everything_else_is_denied(method: str, url: str) -> None:
    assert AllowList(PROJECT, ("api", "model-1"), ("api",)).call(method, url) is None


def test_only_scaled_services_are_stopped() -> None:
    stop, other = f"{NAME}/stop?t=1", f"/containers/{PROJECT}-model-1-1/stop"

    assert AllowList(PROJECT, ("api", "model-1"), ("api",)).call("POST", other) is None
    assert AllowList(PROJECT, ("api", "model-1")).call("POST", stop) is None


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as told:
        Settings.from_env({"LAB_PROJECT": "No!", "LAB_PORT": "x", "LAB_REPAIRS": ""})

    assert all(
        name in str(told.value) for name in ("LAB_PROJECT", "'No!'", "LAB_PORT", "LAB_REPAIRS", "LAB_SUPERVISOR_SOCKET")
    )
