"""Ports fixed by environment variables."""

import socket

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import ports
from pytest_llmchaos.host.ports import bracketed, given_port, loopback

NAME = "LLMCHAOS_API_PORT"


@pytest.mark.parametrize("text", ["99999", "0", "65536", "-1", "8000.0", "x", "\u00b2", "\u0668\u0660", "9" * 5000])
def test_a_value_that_is_not_a_port_is_refused_with_its_variable(monkeypatch, text):
    monkeypatch.setenv(NAME, text)

    with pytest.raises(NotReady, match=f"^{NAME} must be a port from 1 to 65535, got '") as refused:
        given_port(NAME)

    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("text", [None, "", " "])
def test_an_unset_or_empty_variable_fixes_no_port(monkeypatch, text):
    monkeypatch.delenv(NAME, raising=False)
    if text is not None:
        monkeypatch.setenv(NAME, text)

    assert given_port(NAME) is None


def test_a_port_that_is_taken_is_named_and_a_free_one_is_used(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv(NAME, str(port))

        with pytest.raises(NotReady, match=f"^{NAME}={port} is already in use: free the port, or unset {NAME}"):
            given_port(NAME)

    assert given_port(NAME) == port


@pytest.mark.parametrize(
    ("addresses", "used"), [(["127.0.0.1", "::1"], "127.0.0.1"), (["127.0.0.1"], "127.0.0.1"), (["::1"], "::1")]
)
def test_the_loopback_address_is_one_that_this_machine_has(monkeypatch, addresses, used):
    monkeypatch.setattr(ports, "is_own_address", addresses.__contains__)

    assert loopback() == used


def test_a_machine_without_loopback_is_one_error(monkeypatch):
    monkeypatch.setattr(ports, "is_own_address", lambda _: False)

    with pytest.raises(
        NotReady, match=r"lacks a loopback address, 127\.0\.0\.1 or ::1: run `ip link set lo up` as root"
    ):
        loopback()


def test_an_ipv6_host_has_brackets():
    assert (bracketed("::1"), bracketed("127.0.0.1"), bracketed("docker")) == ("[::1]", "127.0.0.1", "docker")
