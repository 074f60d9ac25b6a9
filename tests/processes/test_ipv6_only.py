"""Processes on a machine whose only loopback address is ::1."""

import subprocess
import sys

import pytest
from support import namespaces, sessions

PROGRAM = """
import socket
from pytest_llmchaos.host.ports import Ports, accepts_connections, loopback
from pytest_llmchaos.loadgen.process import _free_port
ports = Ports()
port = ports.reserve()
with socket.create_server((loopback(), port), family=socket.AF_INET6):
    print(loopback(), accepts_connections(loopback(), port), ports.is_free(port), _free_port(loopback()) > 0)
ports.close()
"""


def test_the_loopback_address_is_the_one_that_this_machine_has():
    command = [*namespaces.ipv6_only(), sys.executable, "-c", PROGRAM]

    done = subprocess.run(command, capture_output=True, text=True, cwd=sessions.ROOT, check=False)

    assert (done.stdout, done.stderr) == ("::1 True False True\n", "")


@pytest.mark.sampled  # the commit draws one
@pytest.mark.parametrize(
    "test",
    [
        "test_loadgen.py::test_two_workers_share_one_schedule_and_one_clock",
        "test_loadgen.py::test_what_was_due_but_not_sent_is_counted_and_served_to_prometheus",
        "test_local_proxy.py::test_a_service_is_shown_as_in_docker",
    ],
)
def test_a_test_of_processes_passes_there(test):
    command = [*namespaces.ipv6_only(), sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]

    done = subprocess.run(
        [*command, f"tests/processes/{test}"], capture_output=True, text=True, cwd=sessions.ROOT, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
