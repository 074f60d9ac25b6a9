"""First process of the agent's container, which keeps the redirect.

    python3 -m fault_agent.parent            redirect until SIGTERM
    python3 -m fault_agent.parent removed    remove a dead agent's table

It runs as root with CAP_NET_ADMIN, in the network namespace of the service. Ports are
redirected only while the proxy answers. The proxy is its child, as another user and
without capabilities.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from fault_agent.listening import DEVICES, has_network, read_outside_ports
from fault_agent.redirect import Library, Nft, Redirect, RedirectError
from lab_common.log import Log
from lab_common.settings import Section, SettingsError, parsed, refuse, text, whole

REFRESH_S = 0.4
# Together with REFRESH_S below `redirect.ALIVE_S`, so that a slow answer is no gap.
ANSWER_S = 1.2
PORTS_S = 1.0
# A proxy that hangs cannot be killed without CAP_KILL. The end of this process does it.
HANGS_S = 3.0
# On a busy machine Python starts slowly. Nothing is redirected before the first answer,
# for which the runtime waits 20 s.
STARTS_S = 15.0
# Clients other than the load's may still get an answer when the agent leaves.
DRAIN_S = 3.0
DRAIN_LOOK_S = 0.02
FAILED, SERVICE_ENDED, HANGS = 1, 3, 4
PROXY_USER = 65534
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
log = Log("fault_agent_parent")


def _ports(given: str) -> frozenset[int]:
    words = [word.strip() for word in given.split(",")]
    if not all(re.fullmatch("[0-9]{1,5}", word) and 0 < int(word) < 65536 for word in words):
        raise ValueError('ports such as "8080,9000"')
    return frozenset(map(int, words))


@dataclass(frozen=True, kw_only=True)
class ParentSettings(Section):
    """Ports to redirect, where to, and the proxy's control socket."""

    ports: frozenset[int] = parsed("LAB_PORTS", _ports, frozenset)
    """Empty: all ports that listen on an address other than loopback."""
    port: int = whole("LAB_PORT", 15001, 1024, 65000)
    control: Path = parsed("LAB_CONTROL", Path, lambda: Path("/run/llmchaos/control"))  # noqa: RUF009 - declares a field
    target: str = text("LAB_TARGET", "service")


def main(words: list[str]) -> int:
    try:
        settings = ParentSettings.from_env(os.environ)
    except SettingsError as wrong:
        return refuse("fault_agent.parent", wrong)
    try:
        nft = Library()
        return _remove_left_over(nft) if words == ["removed"] else Parent(settings, nft).run()
    except RedirectError as refused:
        log("failed", why=str(refused))
        return FAILED


def _remove_left_over(nft: Nft) -> int:
    Redirect(nft, 0).remove()
    log("removed")
    return 0


class _Seen(TypedDict):
    busy: int


class _Listed(TypedDict):
    """The proxy's answer to `list`, as far as this process needs it."""

    seen: _Seen


@dataclass(kw_only=True)
class Control:
    """Connection to the proxy's control socket.

    The socket belongs to the proxy's user, and root lacks the capability to pass over
    that.
    """

    path: Path
    _connection: socket.socket | None = field(default=None, init=False)

    def answers(self, within_s: float) -> bool:
        """True if the proxy answers in time."""
        return self._list(within_s) is not None

    def is_busy(self, within_s: float) -> bool:
        """True if the proxy reports in time that answers are on their way."""
        listed = self._list(within_s)
        return listed is not None and listed["seen"]["busy"] > 0

    def _list(self, within_s: float) -> _Listed | None:
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.settimeout(within_s)
            self._connection.sendall(b'{"do": "list"}\n')
            answer = b""
            while not answer.endswith(b"\n"):
                piece = self._connection.recv(65536)
                if not piece:
                    raise ConnectionResetError("the proxy closed its control socket")
                answer += piece
            listed: _Listed = json.loads(answer)["ok"]
            return listed
        except (OSError, ValueError, KeyError):
            self.close()
            return None

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_S)
        before = os.geteuid()
        try:
            os.seteuid(PROXY_USER)
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        finally:
            os.seteuid(before)
        return connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Parent:
    """The loop of the first process: one look every `REFRESH_S` seconds."""

    def __init__(self, settings: ParentSettings, nft: Nft) -> None:
        self._settings = settings
        listening = read_outside_ports()
        self._port = next(port for port in range(settings.port, 65536) if port not in listening)
        self._redirect = Redirect(nft, self._port)
        self._control = Control(path=settings.control)
        self._proxy: subprocess.Popen[bytes] | None = None
        self._shown: list[int] | None = None
        self._answered_s = self._ports_s = 0.0
        self._patience_s = STARTS_S  # since the last answer, or the first start
        self._ports: frozenset[int] = frozenset()

    def run(self) -> int:
        """Redirect until a signal, or until the namespace or the proxy is lost.

        Returns:
            The exit status.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._redirect.install()
        self._start_proxy()
        self._answered_s = time.monotonic()
        wait_s = 0.05
        while True:
            got = signal.sigtimedwait(_SIGNALS, wait_s)
            if got is not None and got.si_signo != signal.SIGCHLD:
                return self._leave()
            if not has_network(DEVICES.read_text()) and not read_outside_ports() - {self._port}:
                log("service_ended")  # a container that is disconnected from its networks still listens
                return SERVICE_ENDED
            if self._has_ended():
                self._let_go("proxy_ended")
                self._start_proxy()
            elif self._control.answers(ANSWER_S):
                self._keep()
            elif self._shown is not None:
                self._let_go("proxy_silent")
            if time.monotonic() - self._answered_s > self._patience_s:
                log("proxy_hangs")
                self._redirect.remove()
                return HANGS
            wait_s = REFRESH_S if self._shown is not None else 0.05

    def _start_proxy(self) -> None:
        self._patience_s = STARTS_S
        given = {"LAB_UPSTREAM": "", "LAB_HOST": "0.0.0.0", "LAB_PORT": str(self._port)}  # noqa: S104 - behind the redirect
        self._proxy = subprocess.Popen(
            [sys.executable, "-m", "fault_agent"],
            env={**os.environ, **given, "LAB_CONTROL": str(self._settings.control)},
            user=PROXY_USER,
            group=PROXY_USER,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            # The proxy would inherit the blocked signals.
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS),  # noqa: PLW1509 - one thread
        )

    def _has_ended(self) -> bool:
        """Collect children that ended. True if the proxy is among them."""
        ended = False
        with contextlib.suppress(ChildProcessError):  # none is left
            while (found := os.waitpid(-1, os.WNOHANG))[0] != 0:  # the first process gets orphans, too
                if self._proxy is not None and found[0] == self._proxy.pid:
                    self._proxy.returncode, ended = os.waitstatus_to_exitcode(found[1]), True
        return ended

    def _keep(self) -> None:
        now = time.monotonic()
        if now - self._ports_s >= PORTS_S or self._shown is None:
            self._ports_s = now
            self._ports = (self._settings.ports or read_outside_ports()) - {self._port}
        self._redirect.refresh(self._ports)
        gap_s, self._answered_s = time.monotonic() - self._answered_s, time.monotonic()
        self._patience_s = HANGS_S
        if self._shown is not None and gap_s > ANSWER_S + REFRESH_S:
            log("late", gap_s=round(gap_s, 3))
        ports = sorted(self._ports)
        if ports != self._shown:
            log("ports" if self._shown is not None else "armed", target=self._settings.target, ports=ports)
            self._shown = ports

    def _let_go(self, event: str) -> None:
        """Send connections to the service itself, until the proxy answers again."""
        self._redirect.refresh(())
        if self._shown is not None or event == "proxy_ended":
            log(event, status=self._proxy.returncode if self._proxy else None)
        self._shown = None
        self._control.close()

    def _leave(self) -> int:
        """Let new connections pass, then let answers on their way end."""
        self._redirect.remove()
        end_s = time.monotonic() + DRAIN_S
        while (left_s := end_s - time.monotonic()) > 0 and self._control.is_busy(left_s):
            time.sleep(DRAIN_LOOK_S)
        log("removed")
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
