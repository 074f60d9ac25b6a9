"""The fault agent's commands to nftables, and its ports."""

import ipaddress
import re
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fault_agent import listening, parent, redirect
from lab_common.settings import SettingsError

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LISTEN, ESTABLISHED = "0A", "01"


def as_kernel(address: str) -> str:
    """An address as `/proc/net/tcp` prints it."""
    packed = ipaddress.ip_address(address).packed
    words = struct.unpack(f"{len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)


def row(address: str, port: int, state: str = LISTEN) -> str:
    return f"   0: {as_kernel(address)}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 1\n"


@pytest.mark.parametrize(
    ("address", "is_outside"),
    [
        ("0.0.0.0", True),
        ("172.18.0.2", True),
        ("127.0.0.1", False),
        ("127.0.0.11", False),
        ("::", True),
        ("::1", False),
        ("fe80::1", True),
        ("::ffff:127.0.0.1", False),
        ("::ffff:172.18.0.2", True),
    ],
)
def test_ports_count_unless_they_listen_on_loopback(address, is_outside):
    found = listening.outside_ports(HEAD + row(address, 8080))

    assert found == ({8080} if is_outside else set())


def test_connections_are_no_listeners_and_both_tables_count():
    ip4 = HEAD + row("0.0.0.0", 8080) + row("172.18.0.2", 40000, ESTABLISHED)
    ip6 = HEAD + row("::", 9000)

    assert listening.outside_ports(ip4, ip6) == {8080, 9000}


@pytest.mark.skipif(not listening.TABLES[0].exists(), reason="needs Linux")
def test_a_listener_of_this_machine_is_found_once_it_listens_outside():
    with socket.create_server(("127.0.0.1", 0)) as inside, socket.create_server(("", 0)) as outside:
        found = listening.read_outside_ports()

        assert outside.getsockname()[1] in found
        assert inside.getsockname()[1] not in found


def test_an_interface_other_than_loopback_is_a_network():
    head = "Inter-|   Receive\n face |bytes    packets\n"

    assert not listening.has_network(f"{head}    lo:       0       0\n")
    assert listening.has_network(f"{head}    lo:       0       0\n  eth0:    1016      12\n")


class Kernel:
    """Remembers commands, and lists a table between its birth and its end."""

    def __init__(self, *, has_owners: bool = True, table: bool = False) -> None:
        self.has_owners, self.table = has_owners, table
        self.said: list[str] = []

    def __call__(self, commands: str) -> str:
        if commands == "list tables":
            return "table ip nat\ntable ip llmchaos\n" if self.table else "table ip nat\n"
        if "flags owner" in commands and not self.has_owners:
            raise redirect.RedirectError("Operation not supported")
        self.said.append(commands)
        self.table = "add table" in commands or (self.table and "delete table" not in commands)
        return ""


def test_the_table_belongs_to_the_process_and_its_ports_expire():
    kernel = Kernel()

    redirect.Redirect(kernel, 15001).install()

    (text,) = kernel.said
    assert "add table ip llmchaos { flags owner; }" in text
    assert "flags timeout; timeout 1800ms;" in text
    assert "tcp dport @alive redirect to :15001" in text


def test_an_old_kernel_gets_a_table_without_owner_and_a_dead_table_is_replaced():
    kernel = Kernel(has_owners=False, table=True)

    redirect.Redirect(kernel, 15001).install()

    assert kernel.said[0] == "delete table ip llmchaos"
    assert "owner" not in kernel.said[1]


@given(st.frozensets(st.integers(1, 65535)))
def test_a_refresh_names_these_ports_alone_in_one_transaction(ports):
    kernel = Kernel()
    taken = redirect.Redirect(kernel, 15001)

    taken.refresh(ports)

    (text,) = kernel.said
    assert text.startswith("flush set ip llmchaos alive\n")
    assert {int(word) for word in re.findall(r"\d+", text)} == ports == taken.ports


def test_a_table_that_stays_is_an_error():
    kernel = Kernel(table=True)
    kernel.table = True
    stubborn = redirect.Redirect(lambda commands: kernel("list tables") if commands == "list tables" else "", 15001)

    with pytest.raises(redirect.RedirectError, match="end this container"):
        stubborn.remove()


def test_the_switch_opens_within_two_seconds_and_a_slow_answer_is_no_gap():
    assert parent.REFRESH_S + parent.ANSWER_S < redirect.ALIVE_S < 2


@pytest.mark.parametrize("given", ["8080,", "http", "0", "65536", "-1", "\N{FULLWIDTH DIGIT EIGHT}"])
def test_wrong_ports_are_refused(given):
    with pytest.raises(SettingsError, match='LAB_PORTS: expected ports such as "8080,9000"'):
        parent.ParentSettings.from_env({"LAB_PORTS": given})


def test_ports_may_be_named():
    assert parent.ParentSettings.from_env({"LAB_PORTS": "8080, 9000"}).ports == {8080, 9000}


def test_without_the_library_the_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr(redirect, "LIBRARY", "libnftables-none.so")

    assert parent.main(["removed"]) == 1
    assert "Debian: libnftables1" in capsys.readouterr().out
