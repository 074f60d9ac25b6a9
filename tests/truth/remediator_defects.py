"""Defects of the remediator, and of its rules file."""

from __future__ import annotations

from truth.defects import Patch, SubjectDefect

RULES = "stack/remediation.yaml"
CODE = "stack/services/lab_remediator"
GUARDS = "_hold, _unknown, _quarantine, _grace, _cooldown, _detector, _one_at_a_time, _cap, _dry_run,"
API_EXITED = "    signal: [{signal: api-scrape}]\n    evidence: [{container: [exited, dead]}]"
REHEARSAL = """\
rules:
  - name: rehearsal
    services: [model-2]
    signal: [{signal: clients-served, for_s: 3}]
    evidence: [{signal: replicas-good}]
    action: restart
  # Stopped"""


def _defect(
    name: str, what: str, *patches: tuple[str, str, str], scenario: str, caught_by: str, only: str
) -> SubjectDefect:
    return SubjectDefect(
        name=name,
        part="remediator",
        what=what,
        patches=tuple(Patch(file=file, old=old, new=new) for file, old, new in patches),
        scenario=scenario,
        caught_by=caught_by,
        only=only,
    )


def _hung_stays(name: str, what: str, *patches: tuple[str, str, str]) -> SubjectDefect:
    return _defect(
        name,
        what,
        *patches,
        scenario="hung_model",
        caught_by="test_a_hung_replica_is_restarted_by_the_remediator",
        only="restarted_by_the_remediator",
    )


REMEDIATOR: tuple[SubjectDefect, ...] = (
    # Signals, evidence and vetoes.
    _hung_stays(
        "hung-rule-removed",
        "the remediator has no rule for a hung replica",
        (
            RULES,
            "- name: replica-hung\n    services: [model-1, model-2, model-3, model-4]",
            "- name: replica-hung\n    services: [api]",
        ),
    ),
    _hung_stays(
        "silence-is-a-good-answer",
        "the remediator's own probe takes no answer for a good one",
        (f"{CODE}/clients.py", "value=float(0 < status < 400)", "value=float(status < 400)"),
    ),
    _hung_stays(
        "one-bad-replica-is-a-bad-detector",
        "the detector guard acts if any replica looks bad, not if all do",
        (f"{CODE}/guards.py", "if not all(_looks_bad(", "if not any(_looks_bad("),
    ),
    _defect(
        "canary-believes-any-answer",
        "the remediator's canary takes any text for the right answer",
        (f"{CODE}/clients.py", "value=float(said.strip() == self._canary)", "value=float(bool(said))"),
        scenario="corrupted_output",
        caught_by="test_a_replica_that_answers_garbage_is_restarted_by_the_remediator",
        only="answers_garbage_is_restarted",
    ),
    _defect(
        "rule-left-from-a-rehearsal",
        "a rule restarts a replica that serves",
        (RULES, "rules:\n  # Stopped", REHEARSAL),
        scenario="noisy_repair",
        caught_by="test_nothing_is_repaired",
        only="nothing_is_repaired",
    ),
    _defect(
        "exited-rule-waits-three-seconds",
        "a stopped api must be missing for 3 s and not at one look",
        (RULES, API_EXITED, API_EXITED.replace("api-scrape", "api-scrape, for_s: 3")),
        scenario="kill_api",
        caught_by="test_kill_api_is_detected",
        only="kill_api_is_detected",
    ),
    _defect(
        "exited-rule-is-overtaken",
        "a stopped api must be missing for 10 s, so that the rule for a silent one comes first",
        (RULES, API_EXITED, API_EXITED.replace("api-scrape", "api-scrape, for_s: 10")),
        scenario="kill_api",
        caught_by="test_kill_api_is_detected",
        only="kill_api_is_detected",
    ),
    _defect(
        "exited-rule-names-one-replica",
        "the rule for a stopped replica names the first replica only",
        (
            RULES,
            "- name: replica-exited\n    services: [model-1, model-2, model-3, model-4]",
            "- name: replica-exited\n    services: [model-1]",
        ),
        scenario="kill_model",
        caught_by="test_both_lost_replicas_are_detected",
        only="both_lost_replicas_are_detected",
    ),
    _defect(
        "exited-is-not-dead",
        "the rule for a stopped api takes only Docker's state `dead` for stopped, and the rule for a silent one repairs it",
        (RULES, API_EXITED, API_EXITED.replace("exited, dead", "dead")),
        scenario="kill_api",
        caught_by="test_kill_api_is_repaired_by_the_remediator",
        only="kill_api_is_repaired",
    ),
    _defect(
        "no-answer-is-a-bad-answer",
        "the remediator takes a Prometheus that does not answer for services that are down",
        (
            f"{CODE}/watch.py",
            '            self._answered("prometheus", signal.name, error)\n            return\n',
            (
                '            self._answered("prometheus", signal.name, error)\n'
                "            found = dict.fromkeys(self._policy.services, Reading(at=time.time(), value=0.0))\n"
                "            self._readings.update({(signal.name, one): reading for one, reading in found.items()})\n"
                "            self.news.set()\n            return\n"
            ),
        ),
        (f"{CODE}/watch.py", "import Observations\n", "import Observations, Reading\n"),
        scenario="prometheus_down",
        caught_by="test_a_blind_remediator_does_not_guess",
        only="does_not_guess",
    ),
    _defect(
        "blindness-not-recorded",
        "the audit log has no line about a Prometheus that is gone",
        (f"{CODE}/loop.py", "            self._note_silence()\n", ""),
        scenario="prometheus_down",
        caught_by="test_a_blind_remediator_records_it_and_touches_nothing",
        only="records_it",
    ),
    # Guards.
    _defect(
        "all-replicas-at-once",
        "no guard keeps the remediator from taking all replicas down at once",
        (f"{CODE}/guards.py", GUARDS, "_hold, _unknown, _quarantine, _grace, _cooldown, _cap, _dry_run,"),
        scenario="both_hung",
        caught_by="test_two_hung_replicas_are_not_touched",
        only="not_touched",
    ),
    _defect(
        "detector-guard-off",
        "no guard acts if all replicas look bad at once",
        (
            f"{CODE}/guards.py",
            GUARDS,
            "_hold, _unknown, _quarantine, _grace, _cooldown, _one_at_a_time, _cap, _dry_run,",
        ),
        scenario="both_hung",
        caught_by="test_two_hung_replicas_are_not_touched",
        only="not_touched",
    ),
    _defect(
        "no-hold-file-is-a-hold",
        "a hold file that does not exist holds all repairs",
        (
            f"{CODE}/loop.py",
            "        except FileNotFoundError:\n            return frozenset()\n        except (OSError,",
            "        except (OSError,",
        ),
        scenario="kill_model",
        caught_by="test_one_lost_replica_is_repaired_by_the_remediator",
        only="one_lost_replica_is_repaired",
    ),
    _defect(
        "hung-rule-names-one-replica",
        "the rule for a hung replica names the first one, so that the other never looks bad",
        (
            RULES,
            "- name: replica-hung\n    services: [model-1, model-2, model-3, model-4]",
            "- name: replica-hung\n    services: [model-1]",
        ),
        scenario="both_hung",
        caught_by="test_two_hung_replicas_are_not_touched",
        only="not_touched",
    ),
    _defect(
        "replicas-are-not-all-listed",
        "the list of replicas has one of the two, so that no guard counts them",
        (RULES, "replicas: [model-1, model-2, model-3, model-4] #", "replicas: [model-1] #"),
        scenario="both_hung",
        caught_by="test_two_hung_replicas_are_not_touched",
        only="not_touched",
    ),
    _defect(
        "running-is-proof-of-death",
        "the detector guard takes a running container for proof, and a stopped one for doubt",
        (
            f"{CODE}/guards.py",
            "proven = container is not None and container.state in STOPPED",
            "proven = container is not None and container.state not in STOPPED",
        ),
        scenario="both_hung",
        caught_by="test_two_hung_replicas_are_not_touched",
        only="not_touched",
    ),
    # The memory of what was done.
    _defect(
        "incident-never-closed",
        "an incident is not over when the service is good again",
        (f"{CODE}/decide.py", "        memory = replace(memory, incident=None)\n    if view.now", "    if view.now"),
        (f"{CODE}/decide.py", "        said.append(_recovered(service, memory.incident, since))\n", "        pass\n"),
        scenario="kill_model",
        caught_by="test_one_lost_replica_is_an_incident_that_ends",
        only="one_lost_replica_is_an_incident",
    ),
    _defect(
        "end-of-an-incident-waits-a-minute",
        "an incident is over when the service has been good for 60 s and not for 2 s",
        (RULES, "  recovered_s: 2 #", "  recovered_s: 60 #"),
        scenario="kill_api",
        caught_by="test_kill_api_is_an_incident_that_ends",
        only="incident_that_ends",
    ),
)
