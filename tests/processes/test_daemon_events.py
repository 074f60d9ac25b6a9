"""Reader of Docker's events when Docker does not answer."""

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.ports import Ports
from pytest_llmchaos.runtime.docker.docker_cli import Daemon
from pytest_llmchaos.runtime.docker.events import EventReader
from pytest_llmchaos.runtime.docker.members import Members


def test_a_stream_that_does_not_open_is_an_error_with_its_reason():
    ports = Ports()
    reader = EventReader(Daemon(host=f"tcp://127.0.0.1:{ports.reserve()}"), Members(project="shop"))

    with pytest.raises(NotReady, match=r"did not open its event stream within 2 s: .*[Cc]onnection refused"):
        reader.start(within_s=2)

    assert not reader._thread.is_alive()
    ports.close()
