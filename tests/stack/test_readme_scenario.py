"""The README's scenario, refuted by the right claim when it is false."""

from __future__ import annotations

import pytest
from support import sessions

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300), pytest.mark.usefixtures("local_programs")]

LOCAL = ("--chaos-runtime=local", "--chaos-backend=sim", "--chaos-seed=42", "-p", "no:randomly", "-k", "kill_api")
SHIPPED = sessions.ROOT / "scenarios" / "test_kill_api.py"
KILL = 'fault=faults.kill("api"), steady_s=8, repair_within_s=40'
# Kills of the api with a late repair, or with half of the later answers spoilt.
WORSE = """
import threading
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.faults.kill import Kill

class BackLate(Kill):
    def inject(self, runtime, victim):
        runtime.kill(victim)
        timer = threading.Timer(15, runtime.start, [victim])
        timer.daemon = True
        timer.start()

class Spoils(Kill):
    needs = Kill.needs | {"engine"}

    def inject(self, runtime, victim):
        runtime.engine_start("model-1", "corrupted_output", lease_s=60)
        runtime.kill(victim)
"""


def claims_of(reports, source, tmp_path):
    """Outcome and reason of each claim on the trial with the fault, by name."""
    file = tmp_path / "test_kill_api.py"
    file.write_text(source)
    code, out = sessions.run(reports, str(file), *LOCAL)
    assert code == 1, out[-4000:]
    (trial,) = (
        one for one in sessions.run_json(reports)["trials"] if one["claims"][0]["nodeid"].endswith("is_detected")
    )
    return {
        claim["nodeid"].rpartition("::")[2]: (claim["outcome"], claim["message"] or "") for claim in trial["claims"]
    }


def changed(fault, *, more=""):
    source = SHIPPED.read_text()
    assert KILL in source
    return source.replace("\nLOAD =", f"{more}\nLOAD =", 1).replace(KILL, fault, 1)


@pytest.mark.nightly(
    "test_engine_scenarios has an arm without the remediator; no other has a late repair or spoilt answers"
)
def test_without_the_remediator_nothing_notices_or_repairs(tmp_path):
    source = changed('fault=faults.kill("api"), steady_s=4, repair_within_s=14, remediator=False')

    claims = claims_of(tmp_path / "reports", source, tmp_path)

    assert {name: outcome for name, (outcome, _) in claims.items()} == {
        "test_kill_api_is_detected": "failed",
        "test_kill_api_is_repaired_by_the_remediator": "failed",
        "test_kill_api_is_an_incident_that_ends": "failed",
        "test_kill_api_costs_little": "failed",
    }
    assert "rule api-exited was not raised" in claims["test_kill_api_is_detected"][1]


@pytest.mark.nightly("test_slo counts seconds without a good answer")
def test_a_gateway_that_is_away_for_15_s_costs_too_much(tmp_path):
    late = 'fault=OnTarget(primitive=BackLate(), target="api"), steady_s=4, repair_within_s=40, remediator=False'

    claims = claims_of(tmp_path / "reports", changed(late, more=WORSE), tmp_path)

    assert claims["test_kill_api_costs_little"][0] == "failed"
    assert "bad_s" in claims["test_kill_api_costs_little"][1]


@pytest.mark.nightly("test_recovery has clients who are never served again")
def test_half_of_the_answers_spoilt_is_no_recovery(tmp_path):
    spoilt = 'fault=OnTarget(primitive=Spoils(), target="api"), steady_s=4, repair_within_s=15'

    claims = claims_of(tmp_path / "reports", changed(spoilt, more=WORSE), tmp_path)

    assert claims["test_kill_api_is_repaired_by_the_remediator"][0] == "failed"
