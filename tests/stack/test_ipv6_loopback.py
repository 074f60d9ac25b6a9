"""Runs on a machine whose only loopback address is ::1."""

import pytest
from support import namespaces, sessions, tiny_stack
from support.second_daemon import second_daemon

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

SCENARIO = '''"""A replica that hangs is repaired."""
from pytest_llmchaos import experiment, faults, loads
LOAD = loads.open_loop(rate_rps=10, max_tokens=8)
pytestmark = experiment(load=LOAD, fault=faults.hang("model-1"), steady_s=8, repair_within_s=20, stable_s=1)
def test_repaired(trial):
    assert trial.repaired_by == "remediator"
'''


@pytest.mark.nightly("test_ipv6_only has the ports, the load generator and the proxy")
@pytest.mark.usefixtures("local_programs")
def test_a_trial_without_docker_has_its_addresses_on_it(tmp_path):
    """The fault uses the engine's admin port, and its repair every other service."""
    file, reports = tmp_path / "test_scenario.py", tmp_path / "reports"
    file.write_text(SCENARIO)
    options = ("--chaos-runtime=local", "--chaos-backend=sim", "--chaos-seed=7")

    code, out = sessions.run(reports, str(file), *options, inside=namespaces.ipv6_only())

    assert code == 0, out[-4000:]
    assert "Prometheus at http://[::1]:" in out


@pytest.mark.nightly("test_place has the addresses, and test_ipv6_only the programs")
def test_a_stack_on_docker_publishes_its_ports_on_it(tmp_path, tmp_path_factory, monkeypatch):
    image, folder = tiny_stack.image(), tmp_path_factory.mktemp("daemon")
    with namespaces.named_ipv6_only() as name, second_daemon(folder, namespace=name) as daemon:
        daemon.load(image, *tiny_stack.judge_images(image).values())
        tiny = tiny_stack.make(tmp_path / "mine", image, fault="kill")
        monkeypatch.setenv("DOCKER_HOST", daemon.host)

        code, out = sessions.run(
            tiny.reports, *tiny.arguments(), env=tiny.environment, inside=["nsenter", f"--net=/run/netns/{name}"]
        )

        assert code == 0, out[-4000:]
        assert "Prometheus at http://[::1]:" in out
        assert tiny_stack.Engine(daemon.host)._client.containers.list(all=True) == []
