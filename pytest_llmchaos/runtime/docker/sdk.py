"""The Docker SDK, imported at first use: that takes 0.1 s."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NotReady

if TYPE_CHECKING:
    from docker import APIClient, DockerClient, errors

    from pytest_llmchaos.runtime.docker.docker_cli import Daemon

__all__ = ["DockerClient", "errors"]


def connect(daemon: Daemon, *, timeout_s: int = 10) -> DockerClient:
    """Connect to a daemon. Raises NotReady if it does not answer."""
    docker = importlib.import_module("docker")
    about: dict[str, object] = {"base_url": daemon.host, "timeout": timeout_s}
    try:
        if daemon.tls:
            ca, *pair = (Path(daemon.certificates, name) for name in ("ca.pem", "cert.pem", "key.pem"))
            tls = docker.tls.TLSConfig(
                client_cert=tuple(map(str, pair)) if all(one.is_file() for one in pair) else None,
                ca_cert=str(ca) if ca.is_file() else None,
                verify=daemon.verify,
            )
            configure = tls.configure_client

            def configure_alone(session: APIClient) -> None:
                configure(session)
                if not daemon.verify:
                    session.send = functools.partial(_send_unwarned, session.send)  # type: ignore[method-assign, assignment] # for this one session

            tls.configure_client = configure_alone
            about["tls"] = tls
        client: DockerClient = object.__new__(docker.DockerClient)
        client.api = _alone(docker.APIClient)(**about)
    except docker.errors.DockerException as error:
        raise NotReady(f"the Docker daemon at {daemon.host} does not answer: {error}") from None
    return client


def _alone(kind: type[APIClient]) -> Callable[..., APIClient]:
    """An API client without the environment's proxies and certificates.

    It sends its first request while it is created. A proxy would take requests to
    loopback, and REQUESTS_CA_BUNDLE would replace `ca.pem`.
    """
    return type("Alone", (kind,), {"trust_env": property(lambda _: False, lambda _, __: None)})


def _send_unwarned(send: Callable[..., object], *arguments: object, **named: object) -> object:
    """Send without the warning about an unverified daemon, which the context wants."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unverified HTTPS request")
        return send(*arguments, **named)


def __getattr__(name: str) -> object:  # of the module, see PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("docker"), name)
