"""Defects of the instrument that would make a verdict silently wrong."""

from __future__ import annotations

from truth.defects import InstrumentDefect, Patch

FAULTS: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="undo-skipped-when-inject-raised",
        what="an act whose inject raised is not reverted",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old=(
                    "        self._intents.append((intent, act))\n"
                    "        with self._moment(able, act) as moment:\n"
                    "            with injected.acting(act.victim):\n"
                    "                act.fault.inject(able, act.victim)\n"
                ),
                new=(
                    "        with self._moment(able, act) as moment:\n"
                    "            with injected.acting(act.victim):\n"
                    "                act.fault.inject(able, act.victim)\n"
                    "            self._intents.append((intent, act))\n"
                ),
            ),
        ),
        tests=("test_lab_inject.py::test_a_fault_whose_call_raised_is_reverted_because_it_may_have_acted",),
    ),
    InstrumentDefect(
        name="act-before-its-intent-is-on-disk",
        what="a fault acts before its undo is written down",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old="        intent = record.intent(act.fault.kind, name, undo_of(act), plain_strength(act.fault))\n",
                new="",
            ),
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old=("                act.fault.inject(able, act.victim)\n            proof = self._proof("),
                new=(
                    "                act.fault.inject(able, act.victim)\n"
                    "            intent = record.intent(act.fault.kind, name, undo_of(act), plain_strength(act.fault))\n"
                    "            self._intents.append((intent, act))\n"
                    "            proof = self._proof("
                ),
            ),
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old=("        injected.acts.append(act)\n        self._intents.append((intent, act))\n"),
                new="        injected.acts.append(act)\n",
            ),
        ),
        tests=("test_lab_inject.py::test_the_undo_is_on_disk_when_the_fault_acts",),
    ),
    InstrumentDefect(
        name="proof-from-our-own-call",
        what="a fault is proven by the instrument's own call, without a witness",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old="from pytest_llmchaos.runtime.abilities import grant\n",
                new=("from pytest_llmchaos.model import Proof\nfrom pytest_llmchaos.runtime.abilities import grant\n"),
            ),
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old="        while (proof := act.fault.observed(able, act.victim, since_s)) is None:\n",
                new=(
                    "        while (proof := act.fault.observed(able, act.victim, since_s) or Proof(\n"
                    '            step="injected", witness="the call returned", at_unix_s=time.time()\n'
                    "        )) is None:\n"
                ),
            ),
        ),
        tests=("test_lab_inject.py::test_a_fault_that_no_witness_saw_is_reverted_and_proves_nothing",),
    ),
    InstrumentDefect(
        name="held-message-let-go-too-early",
        what="a message at which its sender is killed goes on before the sender is dead",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old="            proof = self._proof(able",
                new="        proof = self._proof(able",
            ),
        ),
        tests=("test_timed_faults.py::test_the_message_is_held_until_the_victim_is_dead",),
    ),
    InstrumentDefect(
        name="proof-from-an-older-death",
        what="a death from before the fault proves it",
        patches=(
            Patch(
                file="pytest_llmchaos/faults/base.py",
                old='    events = runtime.events(since_unix_s, float("inf"))\n',
                new='    events = runtime.events(0.0, float("inf"))\n',
            ),
        ),
        tests=("test_fault_contract.py::test_events_from_before_the_injection_prove_nothing",),
    ),
    InstrumentDefect(
        name="failed-undo-keeps-others-from-theirs",
        what="an undo that fails keeps the acts before it from being reverted",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old=(
                    "            except HealFailed as error:\n"
                    "                failed.append(str(error))\n"
                    "            except BaseException"
                ),
                new=(
                    "            except HealFailed as error:\n"
                    "                failed.append(str(error))\n"
                    "                break\n"
                    "            except BaseException"
                ),
            ),
        ),
        tests=("test_lab_inject.py::test_every_revert_is_tried_even_after_a_failed_one",),
    ),
    InstrumentDefect(
        name="failed-undo-noted-as-done",
        what="the journal records a failed undo as done",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old="ok=False, why=str(error) or type(error).__name__",
                new="ok=True, why=str(error) or type(error).__name__",
            ),
        ),
        tests=("test_lab_inject.py::test_a_failed_revert_is_reported_with_the_command_and_stays_open_in_the_journal",),
    ),
    InstrumentDefect(
        name="revert-believed",
        what="a fault counts as over because its undo returned",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old=(
                    "            proof = prove_reverted(self._runtime, act, since_unix_s)\n"
                    '            record.proof("healed", proof, intent=intent)\n'
                ),
                new=(
                    '            proof = Proof(step="healed", witness="the undo returned", at_unix_s=time.time())\n'
                    '            record.proof("healed", proof, intent=intent)\n'
                ),
            ),
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old="import REPLICA, BeginsAtMoment, CountsRequests, MayEndEarly, Moment, replica_name\n",
                new="import REPLICA, BeginsAtMoment, CountsRequests, MayEndEarly, Moment, Proof, replica_name\n",
            ),
        ),
        tests=("test_lab_inject.py::test_a_revert_that_no_witness_sees_has_failed",),
    ),
    InstrumentDefect(
        name="two-undos-collapse",
        what="of two faults of one kind on one service, one undo closes both",
        patches=(
            Patch(
                file="pytest_llmchaos/evidence/journal.py",
                old='    return (str(line.get("trial") if intent is None else intent), str(line.get("victim")), str(op))',
                new='    return (str(line.get("trial")), str(line.get("victim")), str(op))',
            ),
        ),
        tests=("test_journal.py::test_the_unreverted_one_of_two_equal_intents_is_open",),
    ),
    InstrumentDefect(
        name="blast-radius-declared-and-not-kept",
        what="acts that follow one another do not wait for room in the blast radius",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/lab.py",
                old="if blast_radius is not None and injector.injected.proven:",
                new="if blast_radius is None and injector.injected.proven:",
            ),
        ),
        tests=("test_blast_radius_in_time.py::test_an_act_waits_until_the_system_has_repaired_the_one_before",),
    ),
    InstrumentDefect(
        name="declared-blast-radius-dropped",
        what="a trial drops the blast radius that its experiment declares",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/perform.py",
                old="            blast_radius=experiment.blast_radius,\n",
                new="",
            ),
        ),
        tests=("test_lab_inject.py::test_a_trial_follows_its_experiment_and_its_plan",),
    ),
    InstrumentDefect(
        name="abort-condition-dropped",
        what="a trial is not ended by its abort condition while a fault is held",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/perform.py", old="        lab.abort_check(experiment.abort_if)\n", new=""
            ),
        ),
        tests=("test_lab_inject.py::test_a_trial_follows_its_experiment_and_its_plan",),
    ),
    InstrumentDefect(
        name="interrupted-session-keeps-its-fault",
        what="a fault is not reverted where its block ends by Ctrl-C",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/lab.py",
                old=(
                    "            injector.require_lasted()\n"
                    "        finally:\n"
                    "            try:\n"
                    "                injector.revert()\n"
                    "                self.read_clocks()\n"
                    "            finally:\n"
                ),
                new=(
                    "            injector.require_lasted()\n"
                    "        except Exception:\n"
                    "            injector.revert()\n"
                    "            raise\n"
                    "        else:\n"
                    "            injector.revert()\n"
                    "            self.read_clocks()\n"
                    "        finally:\n"
                    "            try:\n"
                    "                pass\n"
                    "            finally:\n"
                ),
            ),
        ),
        tests=("test_lab_inject.py::test_a_fault_is_reverted_if_ctrl_c_ends_its_block",),
    ),
    InstrumentDefect(
        name="fault-over-early-unnoticed",
        what="a fault that ended by itself counts as in force until its undo",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/lab.py",
                old=("            yield injector.injected\n            injector.require_lasted()\n"),
                new="            yield injector.injected\n",
            ),
        ),
        tests=("test_lab_inject.py::test_a_fault_that_its_lease_ended_before_its_revert_proves_nothing",),
    ),
    InstrumentDefect(
        name="older-start-counts-as-healed",
        what="a start from before the fault proves that nothing is left of it",
        patches=(
            Patch(
                file="pytest_llmchaos/faults/base.py",
                old="    if not state.running or state.paused or state.started_unix_s < since_unix_s:\n",
                new="    if not state.running or state.paused:\n",
            ),
        ),
        tests=("test_lab_inject.py::test_a_process_from_before_the_fault_is_no_proof_of_its_end",),
    ),
    InstrumentDefect(
        name="flood-of-a-tenth-is-proven",
        what="a flood is proven by a tenth of its requests",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/overload.py",
                old="self.arriving_rps >= SEEN_SHARE * offer.rate_rps\n",
                new="self.arriving_rps >= 0.1 * offer.rate_rps\n",
            ),
        ),
        tests=("test_overload.py::test_a_flood_is_proven_by_half_of_its_requests_at_the_service",),
    ),
    InstrumentDefect(
        name="unhealthy-victim-taken-for-repaired",
        what="a victim that runs and is unhealthy leaves the blast radius",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/undo.py",
                old="    return state.running and state.healthy is not False and act.fault",
                new="    return state.running and act.fault",
            ),
        ),
        tests=("test_lab_inject.py::test_a_victim_that_runs_and_is_unhealthy_is_not_repaired",),
    ),
)

CLEANUP: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="blast-radius-by-name",
        what="a container is ours by the name of its project alone",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/docker/compose.py",
                old="return all(container.labels.get(key) == value for key, value in self._labels.items())",
                new='return container.labels.get("com.docker.compose.project") == self.project',
            ),
        ),
        tests=("test_blast_radius.py::test_a_drawn_plan_touches_only_its_victim_among_this_runs_containers",),
    ),
    InstrumentDefect(
        name="permission-label-ignored",
        what="a service of a stack of others is hit without the label that allows it",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/docker/attached.py",
                old=("        if container is None or not attach_preflight.may_be_hit(container):\n            raise"),
                new=("        if container is None:\n            raise"),
            ),
        ),
        tests=("test_blast_radius.py::test_in_a_stack_of_others_nothing_is_hit_without_the_label_that_allows_it",),
    ),
    InstrumentDefect(
        name="removal-without-the-owner",
        what="what carries the project's name is removed, even of another owner",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/docker/removal.py",
                old='"--filter", f"label=llmchaos.owner={owner}"]',
                new="]",
            ),
        ),
        tests=("test_blast_radius.py::test_what_is_removed_must_carry_the_project_and_the_owner",),
    ),
    InstrumentDefect(
        name="sweep-of-a-live-sibling",
        what="the stack of a live run is swept because a dead one had its name",
        patches=(
            Patch(
                file="pytest_llmchaos/cleanup/sweep.py",
                old='    dead = {project: who for project, who in sorted(found["dead"].items()) if project not in seen}\n',
                new='    dead = dict(sorted(found["dead"].items()))\n',
            ),
        ),
        tests=("test_sweep.py::test_an_orphan_of_a_name_that_a_live_run_has_too_is_left_alone",),
    ),
    InstrumentDefect(
        name="doubt-taken-for-death",
        what="a run that cannot be seen from here counts as dead",
        patches=(
            Patch(
                file="pytest_llmchaos/host/identity.py",
                old='return _liveness_here(int(pid), started) if namespace == [pid_namespace()] != [""] else "unknown"',
                new="return _liveness_here(int(pid), started)",
            ),
        ),
        tests=("test_owner.py::test_an_owner_is_dead_only_on_proof",),
    ),
    InstrumentDefect(
        name="recycled-pid-killed",
        what="a process is killed that only has the number of a helper",
        patches=(
            Patch(
                file="pytest_llmchaos/cleanup/watchdog.py",
                old="        if line.started and process_started(line.pid) == line.started:\n",
                new="        if line.started and process_started(line.pid):\n",
            ),
        ),
        tests=("test_sweep.py::test_only_a_helper_process_that_lives_is_ended",),
    ),
    InstrumentDefect(
        name="watchdog-does-not-revert",
        what="the watchdog leaves the faults that a dead run left open in a stack of others",
        patches=(
            Patch(
                file="pytest_llmchaos/cleanup/watchdog.py",
                old=("    if not manifest.owned:\n        from"),
                new=('    if not manifest.owned and manifest.runtime == "attached":\n        from'),
            ),
        ),
        tests=("test_sweep.py::test_the_watchdog_reverts_faults_in_an_attached_stack_and_removes_nothing",),
    ),
    InstrumentDefect(
        name="watchdog-takes-death-for-goodbye",
        what="the watchdog takes the death of pytest for its goodbye",
        patches=(
            Patch(
                file="pytest_llmchaos/cleanup/watchdog.py",
                old=("            if GOODBYE in said or not data:\n                return GOODBYE in said\n"),
                new=("            if GOODBYE in said or not data:\n                return True\n"),
            ),
        ),
        tests=("test_watchdog.py::test_a_pipe_that_ends_without_a_goodbye_is_a_death",),
    ),
    InstrumentDefect(
        name="context-falls-back",
        what="a misspelt Docker context falls back to the default daemon",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/docker/docker_cli.py",
                old="    except (msgspec.MsgspecError, ValueError, KeyError) as error:\n",
                new=(
                    "    except (msgspec.MsgspecError, ValueError, KeyError) as error:\n"
                    "        if done.returncode:\n"
                    '            return Daemon(host="unix:///var/run/docker.sock")\n'
                ),
            ),
        ),
        tests=("test_docker_daemon.py::test_a_context_that_does_not_exist_is_an_error_and_not_the_default_daemon",),
    ),
    InstrumentDefect(
        name="slot-not-taken",
        what="a trial does not take the machine's measurement slot",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/lab.py",
                old="        with measurement_lock.measuring(say=self.say, waiting=self._waiting), self.recording(planned) as record:\n",
                new="        with self.recording(planned) as record:\n",
            ),
        ),
        tests=("test_lab_load.py::TestEntry::test_a_load_has_the_machine_to_itself_until_it_is_judged",),
    ),
    InstrumentDefect(
        name="slot-per-user",
        what="each user has a measurement slot of its own",
        patches=(
            Patch(
                file="pytest_llmchaos/host/measurement_lock.py",
                old='    return Path(f"/tmp/pytest-llmchaos-{name}.lock")',
                new="    return Path(f\"{os.environ.get('XDG_RUNTIME_DIR', '/tmp')}/pytest-llmchaos-{name}.lock\")",
            ),
        ),
        tests=("test_owner.py::test_the_slot_is_the_same_for_jobs_with_their_own_folders",),
    ),
    InstrumentDefect(
        name="doubtful-local-run-removed",
        what="a local run whose owner cannot be seen is removed",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/local/cleanup.py",
                old='if identity.liveness(who) != "dead"}',
                new='if identity.liveness(who) == "alive"}',
            ),
        ),
        tests=("processes/test_local_supervisor.py::test_a_run_whose_owner_cannot_be_seen_from_here_is_not_dead",),
    ),
    InstrumentDefect(
        name="watchdog-dismissed-too-early",
        what="the watchdog is dismissed though a fault is open in a stack of others",
        patches=(
            Patch(
                file="pytest_llmchaos/session/run.py",
                old="            (self._watchdog.leave if broken else self._watchdog.dismiss)()\n",
                new="            self._watchdog.dismiss()\n",
            ),
        ),
        tests=("test_byo.py::test_an_open_fault_in_an_attached_stack_keeps_the_watchdog_at_work_and_is_reported",),
    ),
    InstrumentDefect(
        name="intents-not-kept-for-a-stack-of-others",
        what="what a run leaves in a stack of others is noted only in its reports, which CI wipes",
        patches=(
            Patch(
                file="pytest_llmchaos/session/run.py",
                old="            self.journal.keep_intents(notes.intents_of(manifest))\n",
                new="",
            ),
        ),
        tests=("test_session_run.py::test_open_faults_in_an_attached_stack_are_noted_where_ci_does_not_wipe",),
    ),
    InstrumentDefect(
        name="session-on-an-open-fault",
        what="a session begins on the very stack in which a dead run's fault is open",
        patches=(
            Patch(
                file="pytest_llmchaos/session/run.py",
                old="        if self.subject.attach and any(dead.project == project for dead in notes.dead_runs()):\n",
                new="        if self.subject.attach and not swept.removed and not swept.failed:\n",
            ),
        ),
        tests=("test_sweep.py::TestOrphanThatStays::test_ends_a_session_on_the_very_stack_whose_fault_is_open",),
    ),
    InstrumentDefect(
        name="stack-started-while-others-measure",
        what="a stack is started while another session measures",
        patches=(
            Patch(
                file="pytest_llmchaos/session/run.py",
                old=("                with self._measuring():\n                    self._lab = self._start()\n"),
                new="                self._lab = self._start()\n",
            ),
        ),
        tests=("test_session_run.py::test_a_stack_is_started_with_the_machine_to_itself_and_no_longer",),
    ),
    InstrumentDefect(
        name="sigterm-kills-the-session",
        what="a session whose CI job is cancelled ends without a revert",
        patches=(
            Patch(
                file="pytest_llmchaos/session/run.py",
                old="        self._old_sigterm = signal.signal(signal.SIGTERM, _interrupt)\n",
                new="        self._old_sigterm = signal.getsignal(signal.SIGTERM)\n",
            ),
        ),
        tests=(
            "test_session_run.py::test_a_cancelled_job_ends_its_session_as_ctrl_c_does_so_that_faults_are_reverted",
        ),
    ),
    InstrumentDefect(
        name="leash-slipped",
        what="a stack of others is hit without --chaos-unleash",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/hooks.py",
                old=("        if options.is_leashed(config):\n            self.campaign.refused"),
                new=(
                    "        if options.is_leashed(config) and self.only_plans is None:\n"
                    "            self.campaign.refused"
                ),
            ),
        ),
        tests=("test_byo.py::test_the_leash_holds_a_test_that_requests_the_lab_while_it_runs",),
    ),
    InstrumentDefect(
        name="compose-of-a-sibling-ended",
        what="the compose command of a run whose project's name begins the same is ended",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/docker/removal.py",
                old='(b"-p", project.encode()) in itertools.pairwise(words)',
                new="any(word.startswith(project.encode()) for word in words)",
            ),
        ),
        tests=("test_sweep.py::test_a_compose_command_is_matched_by_its_whole_project_name",),
    ),
    InstrumentDefect(
        name="kept-intents-after-the-journal",
        what="an intent that could not be kept next to the journal is carried out",
        patches=(
            Patch(
                file="pytest_llmchaos/evidence/journal.py",
                old=("                self.lost = self.lost or lost\n                raise lost from None\n"),
                new=(
                    "                self.lost = self.lost or lost\n"
                    "                if path == self.path:\n"
                    "                    raise lost from None\n"
                ),
            ),
        ),
        tests=("test_sweep.py::test_an_intent_that_cannot_be_kept_is_not_carried_out",),
    ),
)

CAUSES: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="recovery-after-our-own-revert",
        what="a recovery after the instrument's own revert counts",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/recovery.py",
                old="    if last.at_s > reverted_s or down_s is not None:\n",
                new="    if down_s is not None:\n",
            ),
        ),
        tests=("test_recovery.py::TestClients::test_a_recovery_after_our_own_revert_does_not_count",),
    ),
    InstrumentDefect(
        name="victim-counted-to-the-trials-end",
        what="a victim that our revert brought back counts as recovered",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/recovery.py",
                old="    back = _all_back(record, injected, known.victims, until_s=reverted_s, must=True)\n",
                new="    back = _all_back(record, injected, known.victims, until_s=known.ended_s, must=True)\n",
            ),
        ),
        tests=("test_recovery.py::TestVictims::test_one_that_was_not_up_at_the_revert_is_not_back",),
    ),
    InstrumentDefect(
        name="relapse-of-clients-ignored",
        what="bad answers after the first good spell are overlooked",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/recovery.py",
                old="    last_bad_s = bad_s[-1] if bad_s else -math.inf\n",
                new="    last_bad_s = bad_s[0] if bad_s else -math.inf\n",
            ),
        ),
        tests=(
            "test_history.py::test_recovery_is_the_first_good_request_after_the_last_bad_one",
            "test_recovery.py::TestClients::test_what_was_bad_again_recovers_when_it_is_good_for_good",
        ),
    ),
    InstrumentDefect(
        name="relapse-not-told",
        what="a relapse is left out where the service settles later",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/recovery.py",
                old="        relapsed_s=_relapsed_s(seen, bad_s, stable_s),\n",
                new="",
            ),
        ),
        tests=("test_recovery.py::TestSettling::test_one_that_relapsed_has_the_time_of_it",),
    ),
    InstrumentDefect(
        name="relapse-of-a-victim-ignored",
        what="a victim that goes down again after it was back has recovered",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/recovery.py",
                old="    down_s = _down_again_s(record, injected, known, last.at_s)\n",
                new="    down_s = None\n",
            ),
        ),
        tests=("test_recovery.py::TestVictims::test_one_that_went_down_again_has_relapsed",),
    ),
    InstrumentDefect(
        name="settle-timeout-credited",
        what="a service settled though the trial gave up waiting for it",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/recovery.py",
                old="    if isinstance(back, str) or not known.settled:\n",
                new="    if isinstance(back, str):\n",
            ),
        ),
        tests=("test_recovery.py::TestSettling::test_one_that_timed_out_did_not_settle",),
    ),
    InstrumentDefect(
        name="settle-timeout-lost-on-the-way",
        what="that the trial gave up waiting does not reach the judge",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/perform.py",
                old="    return judge.judge(lab, plan, record, load, injected, settled=settled, effects=effects)",
                new="    return judge.judge(lab, plan, record, load, injected, effects=effects)",
            ),
        ),
        tests=("test_lab_inject.py::test_whether_the_service_settled_in_time_is_known_to_the_judge",),
    ),
    InstrumentDefect(
        name="unknown-requests-taken-for-good",
        what="a service recovers in a time of which no answer is known",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="        known_s=min(ended_s, first_unknown_s(samples)),\n",
                new="        known_s=ended_s,\n",
            ),
        ),
        tests=("test_gates.py::TestLoadOnTime::test_a_load_that_ends_with_an_open_request_shows_no_recovery",),
    ),
    InstrumentDefect(
        name="alert-pending-before-the-fault",
        what="an alert that was pending before the fault detects it",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old="    if signal.before or signal.at_unix_s < start_unix_s:\n",
                new="    if signal.at_unix_s < start_unix_s:\n",
            ),
        ),
        tests=("test_attribution.py::test_a_signal_from_before_the_fault_detects_nothing",),
    ),
    InstrumentDefect(
        name="alert-from-before-the-fault",
        what="a signal from before the fault detects it",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old="    if signal.before or signal.at_unix_s < start_unix_s:\n",
                new="    if signal.before:\n",
            ),
        ),
        tests=("test_attribution.py::test_a_signal_from_before_the_fault_detects_nothing",),
    ),
    InstrumentDefect(
        name="alert-that-goes-on-is-new",
        what="an alert that was pending before the window counts as new",
        patches=(
            Patch(
                file="pytest_llmchaos/prometheus/queries.py",
                old="                        before=identity in already and goes_on,\n",
                new="                        before=first <= from_unix_s,\n",
            ),
        ),
        tests=("test_prometheus.py::TestAlerts::test_alerts_that_were_active_before_the_window_are_marked",),
    ),
    InstrumentDefect(
        name="detection-after-our-revert",
        what="an alert after the instrument's own revert detects the fault",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old=(
                    "    if injected.reverted_unix_s is not None and signal.at_unix_s >= injected.reverted_unix_s:\n"
                    '        return "it began after the instrument\'s own revert"\n'
                ),
                new="",
            ),
        ),
        tests=("test_attribution.py::test_a_signal_after_our_own_revert_is_coincident",),
    ),
    InstrumentDefect(
        name="detection-by-a-bystander",
        what="an alert on a service that was not hit detects the fault",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old="    if signal.service and signal.service not in injected.victims and signal.name not in declared:\n",
                new="    if signal.service not in injected.victims and signal.name in declared:\n",
            ),
        ),
        tests=("test_attribution.py::test_a_signal_about_another_service_is_coincident",),
    ),
    InstrumentDefect(
        name="own-restart-credited-to-the-remediator",
        what="a start is credited to an action of the remediator that ended long before",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old="            or from_unix_s > end_s + CLOCK_SLACK_S\n",
                new="",
            ),
        ),
        tests=("test_attribution.py::test_each_action_counts_for_its_own_time_only",),
    ),
    InstrumentDefect(
        name="failed-action-credited",
        what="a start is credited to an action of the remediator that failed",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old='        if end is None or end.get("event") != "failed":\n',
                new="        if end is None or end:\n",
            ),
        ),
        tests=("test_attribution.py::test_a_start_within_a_failed_action_has_an_unknown_repairer[100.6]",),
    ),
    InstrumentDefect(
        name="gap-read-as-nothing",
        what="a gap in the runtime's events is read as a time in which nothing happened",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old=("    if gaps:\n        gap = gaps[0]\n"),
                new=("    if len(gaps) > 1:\n        gap = gaps[0]\n"),
            ),
        ),
        tests=("test_attribution.py::test_missing_events_are_inconclusive_and_name_the_gap",),
    ),
    InstrumentDefect(
        name="gap-not-noticed",
        what="an event stream that was opened anew has no gap, whatever the daemon still had",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/docker/events.py",
                old='        if not any(raw["timeNano"] / 1e9 <= broken_s for raw in kept):\n',
                new='        if not any(raw["timeNano"] / 1e9 <= opened_s for raw in kept):\n',
            ),
        ),
        tests=("test_daemon_stream.py::test_a_break_that_docker_cannot_replay_is_a_gap_with_its_reason",),
    ),
    InstrumentDefect(
        name="sibling-taken-for-the-victim",
        what="an event of another container of the service is the victim's",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/docker/replicas.py",
                old="        is_sibling = number != self._numbers.get(event.service, number)\n",
                new="        is_sibling = False\n",
            ),
        ),
        tests=("test_daemon_stream.py::test_a_start_or_death_of_another_replica_is_not_the_victims",),
    ),
    InstrumentDefect(
        name="clock-set-back-unnoticed",
        what="a clock that is set back during the trial goes unnoticed",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/agreement.py",
                old="        if abs(by_s) > CLOCK_TOLERANCE_S:\n",
                new="        if by_s > CLOCK_TOLERANCE_S:\n",
            ),
        ),
        tests=("test_gates.py::TestClocks::test_clocks_that_are_set_during_the_trial_are_inconclusive",),
    ),
    InstrumentDefect(
        name="clock-step-and-back-unnoticed",
        what="a clock that is set and set back is compared at both ends alone",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/agreement.py",
                old="    require_no_step(record.clocks)\n",
                new=(
                    "    ends = (reversed(record.clocks), record.clocks)\n"
                    "    require_no_step([one for end in ends for one in {reading.clock: reading for reading in end}.values()])\n"
                ),
            ),
        ),
        tests=("test_gates.py::TestClocks::test_clocks_that_are_set_and_set_back_are_inconclusive",),
    ),
    InstrumentDefect(
        name="clock-that-is-no-number",
        what="a clock whose distance is not a number counts as in time",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/agreement.py",
                old="        if not abs(apart_s) <= CLOCK_TOLERANCE_S:\n",
                new="        if abs(apart_s) > CLOCK_TOLERANCE_S:\n",
            ),
        ),
        tests=("test_gates.py::TestTwoTruths::test_truths_on_two_clocks_disagree",),
    ),
    InstrumentDefect(
        name="unprovoked-action-in-a-control-arm",
        what="an action of the remediator without a fault leaves a control arm held",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="        outside.require_none(may_page=plan.autoscaler is not None)",
                new="        pass",
            ),
        ),
        tests=("test_unprovoked.py::test_an_unprovoked_reaction_refutes_a_control_arm",),
    ),
    InstrumentDefect(
        name="clocks-apart-allowed",
        what="clocks that are two seconds apart agree",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/agreement.py",
                old="CLOCK_TOLERANCE_S = 0.25\n",
                new="CLOCK_TOLERANCE_S = 2.5\n",
            ),
        ),
        tests=("test_gates.py::TestClocks::test_clocks_that_are_apart_all_along_disagree",),
    ),
    InstrumentDefect(
        name="unknown-replica-serves",
        what="a replica of which too little is known serves",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/replicas.py",
                old=("        if unknown:\n            raise"),
                new=("        if unknown and not self.serving:\n            raise"),
            ),
        ),
        tests=("test_replicas.py::test_an_unknown_check_does_not_pass",),
    ),
    InstrumentDefect(
        name="unread-victim-took-part",
        what="a victim without data in Prometheus took part",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/participation.py",
                old=("    except Inconclusive:\n        return False\n"),
                new=("    except Inconclusive:\n        return True\n"),
            ),
        ),
        tests=("test_participation.py::test_without_an_answer_of_prometheus_it_does_not_take_part",),
    ),
    InstrumentDefect(
        name="own-acts-of-earlier-blocks-lost",
        what="what the instrument did in one of several blocks counts as the system's",
        patches=(Patch(file="pytest_llmchaos/lab/injector.py", old="        whole.own += one.own\n", new=""),),
        tests=("test_lab_inject.py::test_blocks_of_one_load_are_judged_as_one",),
    ),
    InstrumentDefect(
        name="own-revert-counted-as-a-restart",
        what="a start by the instrument's own revert counts as one of the system's",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old=(
                    "            with self.injected.acting(act.victim):\n"
                    "                revert_until_done(self._runtime, undo)\n"
                ),
                new="            revert_until_done(self._runtime, undo)\n",
            ),
        ),
        tests=(
            "test_lab_inject.py::test_what_the_instrument_does_to_a_service_is_its_own_from_the_fault_to_the_revert",
        ),
    ),
    InstrumentDefect(
        name="revert-stamped-at-its-end",
        what="what the instrument's own revert brings back counts as recovered before it",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py", old="        injected.reverted_unix_s = time.time()\n", new=""
            ),
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old="        record.healed = record.healed and not failed\n",
                new=(
                    "        injected.reverted_unix_s = time.time()\n"
                    "        record.healed = record.healed and not failed\n"
                ),
            ),
        ),
        tests=("test_lab_inject.py::test_a_fault_lasts_from_the_runtimes_event_to_the_beginning_of_our_revert",),
    ),
    InstrumentDefect(
        name="fault-counted-from-its-call",
        what="a fault begins when it was called, not when the runtime saw it",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/injector.py",
                old="            injected.start_unix_s = proof.at_unix_s\n",
                new="            injected.start_unix_s = before_s\n",
            ),
        ),
        tests=("test_lab_inject.py::test_a_fault_lasts_from_the_runtimes_event_to_the_beginning_of_our_revert",),
    ),
    InstrumentDefect(
        name="reasons-for-minutes",
        what="a fault explains whatever the system does in the ten minutes after it",
        patches=(
            Patch(file="pytest_llmchaos/lab/reasons.py", old="FAULT_TAIL_S = 30.0\n", new="FAULT_TAIL_S = 600.0\n"),
        ),
        tests=("test_unprovoked.py::test_a_fault_explains_no_action_half_a_minute_later",),
    ),
    InstrumentDefect(
        name="warm-up-explains-actions",
        what="the warm-up of the service explains actions of the remediator",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/reasons.py",
                old="        return any(one.from_unix_s <= at_unix_s <= one.to_unix_s for one in self._spells if not one.alerts_alone)\n",
                new="        return self.explains_alert(at_unix_s)\n",
            ),
        ),
        tests=("test_unprovoked.py::test_the_first_clean_stack_explains_alerts_of_its_start_and_no_action",),
    ),
    InstrumentDefect(
        name="witness-of-another-time",
        what="a proof of the end of a fault is taken from before its undo",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/undo.py",
                old="            proof = act.fault.healed(able, act.victim, since_unix_s)\n",
                new="            proof = act.fault.healed(able, act.victim, 0.0)\n",
            ),
        ),
        tests=("test_lab_inject.py::test_a_process_from_before_the_fault_is_no_proof_of_its_end",),
    ),
)

NUMBERS: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="latency-from-sent-instead-of-due",
        what="latency counts from when a request was sent",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/columns.py",
                old="        made.due_s.append(sample.due_s)\n",
                new="        made.due_s.append(sample.sent_s)\n",
            ),
        ),
        tests=(
            "test_history.py::test_what_a_client_waits_for_begins_when_a_request_is_due_and_not_when_it_could_be_sent",
        ),
    ),
    InstrumentDefect(
        name="latency-from-sent-in-files",
        what="latency of samples that were read from a file counts from when a request was sent",
        patches=(
            Patch(
                file="pytest_llmchaos/evidence/samples_file.py",
                old="        columns.due_s.extend(due)\n",
                new="        columns.due_s.extend(sent)\n",
            ),
        ),
        tests=("test_samples.py::test_latencies_of_a_file_count_from_when_a_request_was_due",),
    ),
    InstrumentDefect(
        name="survivors-quantiles",
        what="quantiles are those of the answers that came",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/windows.py",
                old="        failed = offered - answered\n",
                new="        failed = 0\n",
            ),
        ),
        tests=("test_history.py::test_failed_requests_are_slower_than_every_answer",),
    ),
    InstrumentDefect(
        name="window-has-its-end",
        what="a request that is due at a window's end is in both windows",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/windows.py",
                old="        inside = [part.from_s <= due < part.to_s for due in columns.due_s]\n",
                new="        inside = [part.from_s <= due <= part.to_s for due in columns.due_s]\n",
            ),
        ),
        tests=("test_history.py::test_a_request_belongs_to_the_window_it_was_due_in_and_the_end_is_not_inside",),
    ),
    InstrumentDefect(
        name="slo-window-off-by-one-scrape",
        what="the window of an SLO is counted in whole scrapes and begins one too early",
        patches=(
            Patch(
                file="pytest_llmchaos/slo/arithmetic.py",
                old='    span = f"{round(window_s * 1000)}ms"\n',
                new='    span = f"{math.ceil(window_s)}s"\n',
            ),
        ),
        tests=("test_slo.py::TestWindow::test_a_window_is_written_in_milliseconds",),
    ),
    InstrumentDefect(
        name="slo-window-from-a-scrape-before",
        what="the window of an SLO begins a scrape before the fault",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="    from_unix_s = record.unix_s(known.fault_s)\n",
                new="    from_unix_s = record.unix_s(known.fault_s) - 1.0\n",
            ),
        ),
        tests=("test_gates.py::TestBudget::test_the_budget_of_a_month_cannot_bound_what_clients_suffered",),
    ),
    InstrumentDefect(
        name="refused-left-out-of-offered",
        what="requests that were answered with 429 are left out of those offered",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/windows.py",
                old="    unknown, left = counts.pop(CANCELLED, 0), counts.pop(LEFT, 0)\n",
                new=(
                    "    unknown, left = counts.pop(CANCELLED, 0), counts.pop(LEFT, 0)\n"
                    '    counts.pop(OUTCOMES.index("http_429"), 0)\n'
                ),
            ),
        ),
        tests=("test_history.py::test_a_request_that_was_not_answered_was_offered_and_failed_whatever_became_of_it",),
    ),
    InstrumentDefect(
        name="unfinished-dropped",
        what="requests that were open at the end and older than their limits are left out",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/windows.py",
                old="    unknown, left = counts.pop(CANCELLED, 0), counts.pop(LEFT, 0)\n",
                new=(
                    "    unknown, left = counts.pop(CANCELLED, 0), counts.pop(LEFT, 0)\n"
                    '    counts.pop(OUTCOMES.index("unfinished"), 0)\n'
                ),
            ),
        ),
        tests=("test_history.py::test_what_was_still_open_at_the_end_and_older_than_its_limits_is_bad",),
    ),
    InstrumentDefect(
        name="unfinished-recorded-as-unknown",
        what="clients call a request that hung until the end of the load unknown",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/client.py",
                old='        outcome: Outcome = "unfinished" if self.overdue_s(index, arrival) > 0 else "cancelled"\n',
                new='        outcome: Outcome = "cancelled"\n',
            ),
        ),
        tests=(
            "processes/test_loadgen.py::test_what_is_open_and_older_than_its_limits_at_the_end_is_bad_to_samples_and_counters_alike",
        ),
    ),
    InstrumentDefect(
        name="vacuous-claim-allowed",
        what="a bound that no outcome of the window could break passes",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/bounded.py",
                old="        if compare(worst, hardest):\n",
                new="        if scale.least == scale.most and compare(worst, hardest):\n",
            ),
        ),
        tests=("test_bounded.py::test_a_comparison_that_no_outcome_could_change_raises",),
    ),
    InstrumentDefect(
        name="met-on-too-few-events",
        what="an objective is met by too few events",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/slo_result.py",
                old="            events=None if grows else self.total,\n",
                new="            events=None,\n",
            ),
        ),
        tests=("test_slo.py::TestResult::test_a_result_of_too_few_events_can_miss_the_objective_and_not_meet_it",),
    ),
    InstrumentDefect(
        name="nan-passes",
        what="a number that Prometheus does not have is taken as it is",
        patches=(
            Patch(
                file="pytest_llmchaos/prometheus/queries.py",
                old="            if not math.isfinite(value):\n",
                new="            if math.isinf(value):\n",
            ),
        ),
        tests=("test_prometheus.py::TestOneNumber::test_a_number_that_is_nan_or_infinite_is_refused",),
    ),
    InstrumentDefect(
        name="empty-vector-is-0",
        what="an empty answer of Prometheus counts as 0",
        patches=(
            Patch(
                file="pytest_llmchaos/prometheus/queries.py",
                old=("        values = self.vector(query, at_unix_s)\n        if len"),
                new=(
                    "        values = self.vector(query, at_unix_s, may_be_empty=True) or {frozenset(): 0.0}\n"
                    "        if len"
                ),
            ),
        ),
        tests=(
            "test_prometheus.py::TestOneNumber::test_a_query_without_a_result_is_no_data_and_is_named",
            "test_prometheus.py::TestServiceLevel::test_an_slo_with_a_misspelt_counter_is_no_data",
        ),
    ),
    InstrumentDefect(
        name="counter-reset-ignored",
        what="an SLO is judged across a counter that began again",
        patches=(
            Patch(file="pytest_llmchaos/trial/slo_verdict.py", old="    if resets:\n", new="    if resets > 1:\n"),
        ),
        tests=("test_prometheus.py::TestServiceLevel::test_an_slo_of_a_counter_that_began_again_is_refused",),
    ),
    InstrumentDefect(
        name="budget-by-our-loads-rate",
        what="the month's budget is scaled by the rate of the experiment's own load",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="            own_rps = slo_verdict.events_rps(lab.prometheus, slo, *steady_unix_s)\n",
                new="            own_rps = len(known.samples) / load_s\n",
            ),
        ),
        tests=("test_gates.py::TestBudget::test_the_budget_is_scaled_by_the_slos_own_events_and_not_by_our_load",),
    ),
    InstrumentDefect(
        name="due-time-lost-by-clients",
        what="a client notes when it sent a request as when that was due",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/client.py",
                old=("        sample = Sample(\n            due_s,\n            sent_s,\n"),
                new=("        sample = Sample(\n            sent_s,\n            sent_s,\n"),
            ),
        ),
        tests=("processes/test_loadgen.py::test_each_request_is_one_sample_and_leaves_on_its_second",),
    ),
    InstrumentDefect(
        name="gap-of-many-scrapes-allowed",
        what="half a minute without a scrape is no gap",
        patches=(
            Patch(
                file="pytest_llmchaos/prometheus/queries.py", old="GAP_TOLERANCE = 2.9\n", new="GAP_TOLERANCE = 29\n"
            ),
        ),
        tests=("test_prometheus.py::TestCoverage::test_coverage_of_a_job_that_was_not_is_refused",),
    ),
    InstrumentDefect(
        name="open-requests-ignored",
        what="a comparison is decided though open requests could change it",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/bounded.py",
                old="        self._require_known(claim, all(end == held for end in ends))\n",
                new="        self._require_known(claim, any(end == held for end in ends))\n",
            ),
        ),
        tests=("test_bounded.py::test_what_open_requests_could_change_is_inconclusive",),
    ),
    InstrumentDefect(
        name="in-flight-requests-before-the-fault",
        what="a request that was in flight when the fault struck belongs to the time before it",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/windows.py",
                old=(
                    "    unharmed = [before.from_s <= due < struck_s and end < struck_s for due, end in times]\n"
                    "    harmed = [before.from_s <= due < over_s and not (due < struck_s and end < struck_s) for due, end in times]\n"
                ),
                new=(
                    "    unharmed = [before.from_s <= due < struck_s for due, end in times]\n"
                    "    harmed = [struck_s <= due < over_s for due, end in times]\n"
                ),
            ),
        ),
        tests=("test_bounded.py::test_around_a_fault_every_request_is_in_one_window",),
    ),
    InstrumentDefect(
        name="time-that-is-none-taken",
        what="a time in the samples that is not a number is taken",
        patches=(
            Patch(
                file="pytest_llmchaos/evidence/samples_file.py",
                old='    raise ValueError(f"{name} is not a time")\n',
                new="    return float(name.replace('Infinity', 'inf'))\n",
            ),
        ),
        tests=("test_samples.py::test_what_is_not_a_samples_file_is_refused_with_its_line",),
    ),
)

GATES: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="late-load-accepted",
        what="a load that ran late is held",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/live_load.py",
                old="MAX_LATENESS_P99_S = 0.050\n",
                new="MAX_LATENESS_P99_S = 0.500\n",
            ),
        ),
        tests=("test_gates.py::TestLoadOnTime::test_a_load_beyond_a_bound_is_not_held",),
    ),
    InstrumentDefect(
        name="thin-load-accepted",
        what="a load that sent nine tenths of its schedule is held",
        patches=(
            Patch(file="pytest_llmchaos/lab/live_load.py", old="MIN_ACHIEVED = 0.98\n", new="MIN_ACHIEVED = 0.90\n"),
        ),
        tests=("test_gates.py::TestLoadOnTime::test_a_load_beyond_a_bound_is_not_held",),
    ),
    InstrumentDefect(
        name="unsent-requests-accepted",
        what="a load is held of which some requests were not sent",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/live_load.py",
                old="        if summary.shed:\n",
                new="        if summary.shed > 1:\n",
            ),
        ),
        tests=("test_gates.py::TestLoadOnTime::test_a_load_beyond_a_bound_is_not_held",),
    ),
    InstrumentDefect(
        name="hanging-requests-are-steady",
        what="a service is steady of which an answer hangs",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/live_load.py",
                old="        return self._overdue()\n",
                new="        return None\n",
            ),
        ),
        tests=(
            "test_gates.py::TestSteadyState::test_the_steady_state_is_not_there_while_a_request_waits_for_longer_than_a_good_one_does",
        ),
    ),
    InstrumentDefect(
        name="load-beside-an-open-fault",
        what="a load begins though an earlier fault of the run is not reverted",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/gates.py",
                old="    if left.undos or left.unreadable:\n",
                new="    if left.unreadable:\n",
            ),
        ),
        tests=("test_lab_load.py::TestEntry::test_a_load_is_refused_while_a_fault_of_this_run_is_open",),
    ),
    InstrumentDefect(
        name="coverage-gate-off",
        what="holes in the scrapes are not looked for",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/agreement.py",
                old="    if not lab.subject.scrape_jobs:\n        return\n    steady",
                new="    if lab.subject.scrape_jobs or not lab.subject.scrape_jobs:\n        return\n    steady",
            ),
        ),
        tests=(
            "test_gates.py::TestScrapes::test_scrapes_missing_for_a_service_that_was_no_victim_are_partial",
            "test_lab_load.py::TestEvidence::test_a_load_with_holes_in_the_scrapes_is_refused_even_without_a_steady_phase",
        ),
    ),
    InstrumentDefect(
        name="coverage-excuses-every-target",
        what="a failed scrape is excused for every service that could have been hit",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/agreement.py",
                old="allow_down=may_be_down)",
                new="allow_down=lab.subject.targets)",
            ),
        ),
        tests=("test_gates.py::TestScrapes::test_scrapes_that_failed_on_a_service_that_was_not_hit_are_partial",),
    ),
    InstrumentDefect(
        name="disagreement-of-clients-only-a-finding",
        what="that clients and Prometheus disagree is only a finding",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/agreement.py",
                old=(
                    "        raise TruthsDisagree(\n"
                    '            f"availability of the whole trial: clients counted {whole.availability:.4f}, Prometheus {theirs:.4f}"\n'
                    "        )\n"
                ),
                new=(
                    "        record.finding(\n"
                    '            f"availability of the whole trial: clients counted {whole.availability:.4f}, Prometheus {theirs:.4f}"\n'
                    "        )\n"
                ),
            ),
        ),
        tests=("test_gates.py::TestTwoTruths::test_truths_whose_shares_differ_disagree",),
    ),
    InstrumentDefect(
        name="disagreement-only-a-finding",
        what="that the truths of an SLO disagree is only a finding",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/comparison.py",
                old="                raise TruthsDisagree(odd)\n",
                new="                self.record.finding(odd)\n",
            ),
        ),
        tests=("test_comparison.py::TestServiceLevel::test_an_slo_that_divides_by_successes_is_odd",),
    ),
    InstrumentDefect(
        name="lab-load-without-gates",
        what="what a load outside a trial left passes no gate",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/lab.py",
                old="                record.outcome = self._judge(self, record, running, merged(self._injected))\n",
                new="                record.outcome = record.seen()\n",
            ),
        ),
        tests=("test_lab_load.py::TestEnd::test_a_load_is_an_error_if_a_gate_refuses_it",),
    ),
    InstrumentDefect(
        name="slow-answers-are-steady",
        what="a service is steady whose answers come too late",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/live_load.py",
                old="        bad = window.offered - int(window.good)\n",
                new="        bad = window.offered - int(window.ok)\n",
            ),
        ),
        tests=("test_gates.py::TestSteadyState::test_the_steady_state_is_absent_with_a_reason",),
    ),
    InstrumentDefect(
        name="steady-while-alerts-fire",
        what="the steady phase ends while an alert fires",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/lab.py",
                old="                    reason = f\"alerts fire: {', '.join(alerts)}\" if alerts else None\n",
                new="                    reason = None\n",
            ),
        ),
        tests=("test_gates.py::TestSteadyState::test_the_steady_state_is_not_there_while_an_alert_fires",),
    ),
    InstrumentDefect(
        name="seeds-depend-on-order",
        what="what lab draws depends on the tests before it",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/current_test.py",
                old=(
                    "        self._numbers[self.name, what] += 1\n        return self._numbers[self.name, what] - 1\n"
                ),
                new=('        self._numbers["lab", what] += 1\n        return self._numbers["lab", what] - 1\n'),
            ),
        ),
        tests=("test_plugin.py::test_what_lab_draws_depends_on_neither_order_nor_selection",),
    ),
    InstrumentDefect(
        name="control-arm-has-another-load",
        what="a control arm gets another load than the arm with the fault",
        patches=(
            Patch(
                file="pytest_llmchaos/plan/schedule.py",
                old='    rng = rng_for(plan.seed, plan.scenario, "load", plan.repeat)\n',
                new='    rng = rng_for(plan.seed, plan.scenario, f"load {plan.fault}", plan.repeat)\n',
            ),
        ),
        tests=("test_plan.py::test_a_control_arm_gets_the_same_load_as_the_experiment",),
    ),
    InstrumentDefect(
        name="steady-phase-skipped",
        what="a fault strikes before the service was seen to be steady",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/perform.py",
                old="            lab.hold_steady(experiment.steady_s)\n",
                new="            lab.hold(experiment.steady_s)\n",
            ),
        ),
        tests=("test_lab_inject.py::test_a_trial_follows_its_experiment_and_its_plan",),
    ),
    InstrumentDefect(
        name="remediator-stays-on",
        what="an experiment without the remediator is performed with it",
        patches=(Patch(file="pytest_llmchaos/trial/perform.py", old="        remediator=plan.remediator,\n", new=""),),
        tests=("test_lab_inject.py::test_a_trial_follows_its_experiment_and_its_plan",),
    ),
    InstrumentDefect(
        name="arrivals-of-the-plan-dropped",
        what="a trial sends other requests than its plan has",
        patches=(Patch(file="pytest_llmchaos/trial/perform.py", old="        arrivals=arrivals_of(plan),\n", new=""),),
        tests=("test_lab_inject.py::test_a_trial_follows_its_experiment_and_its_plan",),
    ),
    InstrumentDefect(
        name="stack-not-looked-over",
        what="a load begins on a stack that was not looked over",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/lab.py",
                old="            self.require_clean()\n            self._wiring.arm(requests.wire, requests.read)\n",
                new="            self._wiring.arm(requests.wire, requests.read)\n",
            ),
        ),
        tests=("test_lab_load.py::TestEntry::test_a_load_is_checked_and_gets_the_remediator_that_it_names",),
    ),
    InstrumentDefect(
        name="dead-load-waited-for",
        what="a load generator that died is taken for a quiet service",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/lab.py",
                old="            load.check_alive()\n",
                new="            load.status()\n",
            ),
        ),
        tests=("test_gates.py::TestSteadyState::test_the_steady_state_of_a_dead_load_is_not_awaited",),
    ),
    InstrumentDefect(
        name="last-push-not-awaited",
        what="the SLO is read before all of the clients' counts have arrived",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="        if seen == expected:\n",
                new='        if seen != "nothing":\n',
            ),
        ),
        tests=("test_gates.py::TestTwoTruths::test_truths_whose_counts_never_meet_raise_no_data",),
    ),
    InstrumentDefect(
        name="last-scrape-not-awaited",
        what="the service's counters are read before their last scrape",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="            return await_scrapes(lab, ended_unix_s)\n",
                new="            return ended_unix_s\n",
            ),
        ),
        tests=("test_gates.py::TestScrapes::test_scrapes_of_the_last_counts_are_waited_for",),
    ),
    InstrumentDefect(
        name="failures-excused-as-unseen",
        what="failures of the service itself are excused as failures that it cannot see",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/truths.py",
                old='("refused", "timeout", "corrupted")',
                new='("refused", "timeout", "corrupted", "http_5xx")',
            ),
        ),
        tests=("test_truths.py::TestSeen::test_the_clients_count_holds_a_service_to_what_it_can_count",),
    ),
    InstrumentDefect(
        name="slack-of-a-fifth",
        what="the truths agree though a fifth of the requests is apart",
        patches=(Patch(file="pytest_llmchaos/trial/truths.py", old="SLACK_SHARE = 0.02\n", new="SLACK_SHARE = 0.2\n"),),
        tests=("test_comparison.py::TestService::test_a_service_that_omits_its_failures_is_odd",),
    ),
    InstrumentDefect(
        name="dead-time-without-end",
        what="a service that was dead for a moment is excused until the trial's end",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/comparison.py",
                old="                spells.append((since_s - BLIND_EDGE_S, at_s + BLIND_EDGE_S))\n",
                new="                spells.append((since_s - BLIND_EDGE_S, math.inf))\n",
            ),
        ),
        tests=("test_truths.py::TestBlindness::test_blindness_lasts_from_each_death_to_the_next_start",),
    ),
    InstrumentDefect(
        name="repeats-draw-the-same",
        what="every repeat of a trial has the same requests",
        patches=(
            Patch(
                file="pytest_llmchaos/plan/schedule.py",
                old='    rng = rng_for(plan.seed, plan.scenario, "load", plan.repeat)\n',
                new='    rng = rng_for(plan.seed, plan.scenario, "load", 0)\n',
            ),
        ),
        tests=("test_plan.py::test_each_repeat_of_a_trial_has_requests_of_its_own_and_the_same_in_every_run",),
    ),
    InstrumentDefect(
        name="thin-load-planned",
        what="a load is planned whose requests are too few to see a recovery",
        patches=(
            Patch(
                file="pytest_llmchaos/plan/schedule.py",
                old="    if longest_s > within_s:\n",
                new="    if longest_s > 10 * within_s:\n",
            ),
        ),
        tests=("test_plan.py::test_a_load_too_thin_to_judge_by_is_refused_with_what_to_change",),
    ),
    InstrumentDefect(
        name="dead-generator-is-quiet",
        what="a load whose generator died is held",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/live_load.py",
                old="        if not self._process.has_all_summaries:\n",
                new="        if not self._process.has_all_summaries and self._process.alive:\n",
            ),
        ),
        tests=("test_gates.py::TestLoadOnTime::test_a_load_without_a_summary_of_the_generator_is_not_held",),
    ),
)

CLIENTS: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="abort-is-ok",
        what="an answer that the server gave up is ok",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/classify.py", old='    "abort": "truncated",', new='    "abort": "ok",'
            ),
        ),
        tests=("test_event_streams.py::test_a_stream_gets_the_verdict_that_its_server_meant",),
    ),
    InstrumentDefect(
        name="done-without-finish-is-ok",
        what="a stream that ends without a finish reason is ok",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/classify.py",
                old="    if not (is_done and finished):\n",
                new="    if not is_done:\n",
            ),
        ),
        tests=("test_event_streams.py::test_a_stream_gets_the_verdict_that_its_server_meant",),
    ),
    InstrumentDefect(
        name="finish-without-done-is-ok",
        what="a stream that breaks off after its finish reason is ok",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/classify.py",
                old="    if not (is_done and finished):\n",
                new="    if not finished:\n",
            ),
        ),
        tests=("test_event_streams.py::test_a_stream_gets_the_verdict_that_its_server_meant",),
    ),
    InstrumentDefect(
        name="role-is-a-token",
        what="the first token is taken from a chunk that only names the role",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/classify.py",
                old="    return any(delta.content or (any_channel and delta.is_in_other_channel) for delta in deltas)\n",
                new="    return any(delta.content is not None or (any_channel and delta.is_in_other_channel) for delta in deltas)\n",
            ),
        ),
        tests=("test_event_streams.py::test_the_first_token_is_the_first_of_any_channel_or_of_content_only",),
    ),
    InstrumentDefect(
        name="comment-is-a-sign-of-life",
        what="a keep-alive comment ends a gap between tokens",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/wire.py",
                old="        for event in self._reader.feed(bytes(body[seen:])):\n",
                new=(
                    "        if self.first_s is not None:\n"
                    "            self._note_event(now_s)\n"
                    "        for event in self._reader.feed(bytes(body[seen:])):\n"
                ),
            ),
        ),
        tests=("test_event_streams.py::test_a_comment_is_no_progress_and_an_event_in_pieces_counts_when_complete",),
    ),
    InstrumentDefect(
        name="lost-request-sent-again",
        what="a request that the service lost is sent again, which hides the failure",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/wire.py",
                old='        if answer.ended == "refused" and time.monotonic() - sent_s <= RACE_S:\n',
                new='        if answer.ended in ("refused", "cut"):\n',
            ),
        ),
        tests=("processes/test_loadgen.py::test_a_request_that_was_lost_otherwise_is_not_sent_again",),
    ),
    InstrumentDefect(
        name="second-send-counts-twice",
        what="a request that is sent again on a fresh connection counts twice",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/driver.py",
                old='            "sent": self._sent,\n',
                new='            "sent": self._sent + self._client.wire.reconnected,\n',
            ),
        ),
        tests=(
            "processes/test_loadgen.py::test_a_request_that_met_a_closing_idle_connection_is_sent_again_once_and_counted",
        ),
    ),
    InstrumentDefect(
        name="redirect-is-an-answer",
        what="a redirect is judged as if it were an answer",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/classify.py",
                old='_BY_CLASS: tuple[tuple[int, Outcome], ...] = ((500, "http_5xx"), (400, "http_4xx"), (300, "http_3xx"))\n',
                new='_BY_CLASS: tuple[tuple[int, Outcome], ...] = ((500, "http_5xx"), (400, "http_4xx"))\n',
            ),
        ),
        tests=("test_loadgen_parts.py::test_a_status_names_the_outcome_and_a_redirect_is_one_of_its_own",),
    ),
    InstrumentDefect(
        name="late-request-not-counted",
        what="requests that left late count as sent in time",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/driver.py",
                old="        self._lateness.add(max(0.0, sample.sent_s - sample.due_s))\n",
                new="        self._lateness.add(max(0.0, sample.due_s - sample.sent_s))\n",
            ),
        ),
        tests=("processes/test_loadgen.py::test_the_summary_counts_all_requests",),
    ),
    InstrumentDefect(
        name="late-leaver-is-no-failure",
        what="a client who left after a good answer would have come counts nowhere",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/client.py",
                old="        return first_s - due_s >= self._plan.good_ttft_s or answer.end_s - due_s >= self._plan.good_e2e_s\n",
                new="        return answer.end_s - due_s >= self._plan.timeout_s\n",
            ),
        ),
        tests=(
            "processes/test_loadgen.py::test_a_client_who_waited_for_longer_than_a_good_answer_takes_saw_a_failure",
        ),
    ),
    InstrumentDefect(
        name="swapped-answers-are-ok",
        what="the answer to another request is ok",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/classify.py",
                old="    return len(ids) > 1 or not models <= {expected.model} or any(m.is_in_other_channel for m in messages)\n",
                new="    return not models <= {expected.model} or any(m.is_in_other_channel for m in messages)\n",
            ),
        ),
        tests=("test_event_streams.py::test_a_known_answer_must_be_one_answer_of_the_requested_model",),
    ),
    InstrumentDefect(
        name="missing-tokens-are-ok",
        what="an answer that ends early and cleanly is ok",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/classify.py",
                old='    return "truncated" if expected.text.startswith(text) else "corrupted"\n',
                new='    return "ok" if text and expected.text.startswith(text) else "corrupted"\n',
            ),
        ),
        tests=("test_event_streams.py::test_a_known_answer_allows_no_other_text_in_any_channel",),
    ),
    InstrumentDefect(
        name="error-event-is-ok",
        what="an error event of the server among good chunks is passed over",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/classify.py",
                old='            wrong.add("inband_error" if event.is_error else "corrupted")\n',
                new=('            if not event.is_error:\n                wrong.add("corrupted")\n'),
            ),
        ),
        tests=("test_loadgen_parts.py::test_a_stream_is_complete_only_with_a_finish_and_an_end_and_no_error",),
    ),
    InstrumentDefect(
        name="status-before-its-samples",
        what="the load's status names samples that no reader can see yet",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/recorder.py",
                old=("        self.flush()\n        self._status.write("),
                new="        self._status.write(",
            ),
        ),
        tests=("test_loadgen_parts.py::test_a_status_comes_after_the_samples_that_it_counts",),
    ),
    InstrumentDefect(
        name="waiting-request-is-settled",
        what="a request that should have left and has not is taken for one that has ended",
        patches=(
            Patch(
                file="pytest_llmchaos/loadgen/driver.py",
                old="        unsent_s = [round(at_s, 6), *(arrival.due_s for _, arrival in self._numbered[dispatched : dispatched + 1])]\n",
                new="        unsent_s = [round(at_s, 6)]\n",
            ),
        ),
        tests=("test_loadgen_parts.py::test_a_request_that_is_due_and_has_not_left_is_not_settled",),
    ),
)

EVIDENCE: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="held-without-a-passed-claim",
        what="a trial holds of which no claim passed",
        patches=(
            Patch(
                file="pytest_llmchaos/errors.py",
                old='    return otherwise or ("held" if "passed" in seen else "invalid")\n',
                new='    return otherwise or "held"\n',
            ),
        ),
        tests=("test_campaign.py::test_a_trial_of_which_no_claim_passed_did_not_hold",),
    ),
    InstrumentDefect(
        name="claim-that-reads-nothing-holds",
        what="a claim holds that reads nothing of its trial",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/hooks.py",
                old="        asked.read = trial.note_reads()\n",
                new="",
            ),
        ),
        tests=("test_claims.py::test_a_claim_that_reads_nothing_of_its_trial_proves_nothing",),
    ),
    InstrumentDefect(
        name="comparison-thrown-away",
        what="a comparison without `assert` passes",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/claims.py",
                old="    return value if value is not None and _is_answer(value) else None\n",
                new="    return None\n",
            ),
        ),
        tests=("test_claims.py::test_a_comparison_that_is_thrown_away_is_an_error_with_its_line",),
    ),
    InstrumentDefect(
        name="any-error-refutes",
        what="a claim that broke off refutes its trial",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/claims.py",
                old="    return isinstance(raised, AssertionError | pytest.fail.Exception)\n",
                new="    return isinstance(raised, Exception | pytest.fail.Exception)\n",
            ),
        ),
        tests=("test_claims.py::test_another_exception_in_a_claim_is_an_error_and_not_a_refutation",),
    ),
    InstrumentDefect(
        name="headline-forgets-the-exit-status",
        what="the headline reports that all held although other tests of the run failed",
        patches=(
            Patch(
                file="pytest_llmchaos/report/summary.py",
                old='    if run.exit_status == 0:\n        return ""\n',
                new='    if run.exit_status is not None:\n        return ""\n',
            ),
        ),
        tests=("test_report_summary.py::test_the_headline_of_a_run_that_did_not_pass_has_a_reservation",),
    ),
    InstrumentDefect(
        name="last-worker-speaks-for-all",
        what="a run passed because the last of its workers did",
        patches=(
            Patch(
                file="pytest_llmchaos/report/fold.py",
                old="    return next((line.exit_status for line in reversed(ended) if line.exit_status), 0)\n",
                new="    return ended[-1].exit_status\n",
            ),
        ),
        tests=("test_report_folding.py::test_a_run_of_several_workers_passed_if_each_of_them_did",),
    ),
    InstrumentDefect(
        name="latest-is-the-run-before",
        what="`latest` names the run before one that was killed",
        patches=(
            Patch(
                file="pytest_llmchaos/session/run.py",
                old="            if is_first:\n",
                new="            if is_first and self.opened is None:\n",
            ),
        ),
        tests=("test_session_run.py::test_a_run_that_is_killed_is_the_latest_and_its_report_can_be_built",),
    ),
    InstrumentDefect(
        name="report-holds-without-a-claim",
        what="the report lets a trial hold that has no claim",
        patches=(
            Patch(
                file="pytest_llmchaos/report/fold.py",
                old="claims, doubt if claims else doubt or UNCLAIMED\n",
                new="claims, doubt\n",
            ),
        ),
        tests=("test_report_unread.py::test_a_judged_trial_without_a_claim_did_not_hold_however_its_run_ended",),
    ),
    InstrumentDefect(
        name="skipped-claim-holds",
        what="a trial holds of which a claim was skipped",
        patches=(
            Patch(
                file="pytest_llmchaos/errors.py",
                old='{"failed": "refuted", "error": "invalid", "skipped": "invalid"}',
                new='{"failed": "refuted", "error": "invalid"}',
            ),
        ),
        tests=("test_campaign.py::test_the_ledger_has_the_verdict_after_the_last_claim",),
    ),
    InstrumentDefect(
        name="xfail-counts-as-passed",
        what="a claim that is expected to fail counts as one that passed",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/claim_reports.py",
                old='        outcome: ClaimOutcome = "error" if found.when == "setup" and found.failed else found.outcome\n',
                new=(
                    '        outcome: ClaimOutcome = "error" if found.when == "setup" and found.failed else found.outcome\n'
                    '        outcome = "passed" if hasattr(found, "wasxfail") else outcome\n'
                ),
            ),
        ),
        tests=("test_plugin.py::test_a_claim_that_is_expected_to_fail_lets_nothing_hold",),
    ),
    InstrumentDefect(
        name="known-refutation-forgives-a-failed-revert",
        what="a known refutation is expected although a fault could not be reverted",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/claim_reports.py",
                old=" and claims.refutes(raised) and not lost\n",
                new=" and claims.refutes(raised)\n",
            ),
        ),
        tests=("test_known_refutations.py::test_a_refutation_after_a_failed_revert_is_not_forgiven",),
    ),
    InstrumentDefect(
        name="vanished-refutation-passes",
        what="a claim that holds passes although it is listed as refuted",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/known_refutations.py",
                old='        elif outcome == "passed" and claim not in self._refuted and not self._left[claim]:\n',
                new='        elif outcome == "vanished":\n',
            ),
        ),
        tests=("test_known_refutations.py::test_a_refutation_that_has_vanished_fails_and_its_trial_held",),
    ),
    InstrumentDefect(
        name="misspelt-known-refutation-sleeps",
        what="a known refutation is listed for a test that does not exist",
        patches=(
            Patch(
                file="pytest_llmchaos/plugin.py",
                old=" or wrongly_listed(collector, report.result)\n",
                new="\n",
            ),
        ),
        tests=("test_known_refutations.py::test_an_entry_without_its_test_ends_the_collection",),
    ),
    InstrumentDefect(
        name="torn-line-ends-the-report",
        what="a line that cannot be read ends the reading of the journal",
        patches=(
            Patch(
                file="pytest_llmchaos/evidence/journal.py",
                old="                yield Unread(number=number, why=why, value=value or _head_of(raw))\n",
                new=(
                    "                yield Unread(number=number, why=why, value=value or _head_of(raw))\n"
                    "                return\n"
                ),
            ),
        ),
        tests=("test_report_unread.py::test_a_failed_claim_refutes_despite_an_unreadable_one",),
    ),
    InstrumentDefect(
        name="journal-not-synced",
        what="a line of the journal is not on disk when its act begins",
        patches=(
            Patch(
                file="pytest_llmchaos/evidence/journal.py",
                old=("        data = data[os.write(fd, data) :]\n    os.fsync(fd)\n"),
                new="        data = data[os.write(fd, data) :]\n",
            ),
        ),
        tests=("test_journal.py::test_every_line_is_synced_before_write_returns",),
    ),
    InstrumentDefect(
        name="secrets-in-evidence",
        what="secrets in messages of others are written into the journal",
        patches=(
            Patch(
                file="pytest_llmchaos/evidence/journal.py",
                old='"images", "message", "reason"',
                new='"images", "reason"',
            ),
        ),
        tests=("test_journal.py::test_secrets_in_foreign_text_are_not_written_and_what_an_undo_needs_stays",),
    ),
    InstrumentDefect(
        name="secrets-in-logs",
        what="secrets in the logs of local services are kept with them",
        patches=(
            Patch(
                file="pytest_llmchaos/runtime/local/cleanup.py",
                old="                written.write(redact_bytes(line))\n",
                new="                written.write(line)\n",
            ),
        ),
        tests=("processes/test_local_supervisor.py::test_logs_are_kept_without_their_secrets",),
    ),
    InstrumentDefect(
        name="workers-problems-lost",
        what="what an xdist worker could not clean up is not reported",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/hooks.py",
                old='            self.config.workeroutput["llmchaos_problems"] = self._problems  # type: ignore[attr-defined] # xdist\'s\n',
                new='            self.config.workeroutput["llmchaos_problems"] = []  # type: ignore[attr-defined] # xdist\'s\n',
            ),
        ),
        tests=("test_xdist_workers.py::test_a_stack_that_a_worker_could_not_remove_is_printed_and_fails_the_session",),
    ),
    InstrumentDefect(
        name="workers-problems-pass",
        what="a session passes though an xdist worker could not clean up",
        patches=(
            Patch(
                file="pytest_llmchaos/xdist.py",
                old=(
                    "        if self._problems:\n"
                    "            session.exitstatus = exitstatus or pytest.ExitCode.INTERNAL_ERROR\n"
                    "\n"
                    "    @property\n"
                    "    def _directory"
                ),
                new=("\n    @property\n    def _directory"),
            ),
        ),
        tests=("test_xdist_workers.py::test_a_stack_that_a_worker_could_not_remove_is_printed_and_fails_the_session",),
    ),
    InstrumentDefect(
        name="claims-not-performed-forgotten",
        what="a claim that the session never came to is not written down",
        patches=(
            Patch(
                file="pytest_llmchaos/session/campaign.py",
                old="            for nodeid in left if whole_files else ():\n",
                new="            for nodeid in () if whole_files else left:\n",
            ),
        ),
        tests=(
            "test_campaign.py::test_claims_that_the_session_never_came_to_are_written_down_and_the_trial_did_not_hold",
        ),
    ),
    InstrumentDefect(
        name="doubt-lets-a-trial-hold",
        what="a trial holds though a line about it cannot be read",
        patches=(
            Patch(
                file="pytest_llmchaos/report/fold.py", old=('    if doubt:\n        return "invalid", doubt\n'), new=""
            ),
        ),
        tests=("test_report_unread.py::test_one_unreadable_claim_is_enough",),
    ),
    InstrumentDefect(
        name="failed-heal-goes-on",
        what="the session goes on after a revert that failed",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/claim_reports.py",
                old='            session.shouldfail = f"heal_failed: {error}"\n',
                new="",
            ),
        ),
        tests=("test_plugin.py::test_a_failed_revert_stops_the_session",),
    ),
    InstrumentDefect(
        name="no-evidence-is-a-skip",
        what="a trial that proves nothing is a skip",
        patches=(
            Patch(
                file="pytest_llmchaos/chaos_session/claim_reports.py",
                old="        if isinstance(raised, Unsupported) and found.failed:\n",
                new="        if isinstance(raised, Unsupported | ProvesNothing) and found.failed:\n",
            ),
        ),
        tests=("test_plugin.py::test_a_trial_that_proves_nothing_is_an_error_for_every_claim_and_never_a_pass",),
    ),
    InstrumentDefect(
        name="torn-audit-line-ignored",
        what="a line of the remediator's audit log that cannot be read is passed over",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old=("    if torn is not None:\n        raise Inconclusive("),
                new=("    if torn is not None and gaps:\n        raise Inconclusive("),
            ),
        ),
        tests=("test_attribution.py::test_missing_events_are_inconclusive_and_name_the_gap",),
    ),
    InstrumentDefect(
        name="lost-journal-not-reported",
        what="a session passes though lines of its journal are lost",
        patches=(
            Patch(
                file="pytest_llmchaos/session/run.py",
                old="        if self._journal.lost is not None:\n",
                new="        if self._journal.lost is not None and exit_status:\n",
            ),
        ),
        tests=("test_session_run.py::test_a_session_that_lost_evidence_does_not_pass",),
    ),
    InstrumentDefect(
        name="replay-of-a-part-passes",
        what="a replay passes that leaves recorded trials out",
        patches=(
            Patch(
                file="pytest_llmchaos/session/replay.py", old="    if left_out:\n", new="    if left_out and not now:\n"
            ),
        ),
        tests=("test_plugin.py::test_a_recorded_trial_that_is_not_selected_is_refused",),
    ),
    InstrumentDefect(
        name="headline-forgets-the-invalid",
        what="the headline reports that all held although one trial proves nothing",
        patches=(
            Patch(
                file="pytest_llmchaos/report/summary.py",
                old="    counts = {verdict: n for verdict, n in run.counts.by_verdict().items() if n}\n",
                new='    counts = {verdict: n for verdict, n in run.counts.by_verdict().items() if n and verdict != "invalid"}\n',
            ),
        ),
        tests=("test_report_summary.py::test_the_headline_names_what_held_and_what_did_not",),
    ),
    InstrumentDefect(
        name="verdict-of-a-broken-trial-lost",
        what="a trial that breaks off leaves no verdict in the journal",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/perform.py",
                old=(
                    "            with contextlib.suppress(EvidenceLost):\n"
                    "                record.judge(result)\n"
                    "            if not"
                ),
                new="            if not",
            ),
        ),
        tests=("test_lab_inject.py::test_however_a_trial_ends_its_verdict_is_in_the_journal",),
    ),
)

SILENCE: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="clients-who-all-left-know-all",
        what="a service that hangs for clients who all leave has no failure",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/windows.py",
                old="    unknown += sum(compress(judged.mute, inside))\n",
                new="",
            ),
        ),
        tests=("test_history.py::TestClientsWhoAllLeave::test_prove_nothing_of_a_service_that_showed_them_no_token",),
    ),
    InstrumentDefect(
        name="first-good-look-is-a-return",
        what="a victim is back at the first look that has not noticed yet that it is gone",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/recovery.py",
                old="    from_s = bad_s[-1] if bad_s else since_s\n",
                new="    from_s = since_s\n",
            ),
        ),
        tests=(
            "test_recovery.py::TestVictims::test_a_gateway_that_had_not_noticed_yet_that_it_was_gone_has_not_seen_it_back",
        ),
    ),
    InstrumentDefect(
        name="hang-that-we-ended-is-nobodys",
        what="of two replicas that hang, the one that only our revert ended leaves all credit to the remediator",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old="            names |= _ended_in_place(injected, victim, events)\n",
                new="            continue\n",
            ),
        ),
        tests=("test_attribution.py::test_a_hang_that_only_our_revert_ended_was_repaired_by_the_instrument",),
    ),
    InstrumentDefect(
        name="silence-of-no-rules",
        what="no alert fired, where Prometheus has no alert rules or cannot evaluate one",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="        could_not_fire=blind or no_rules or silence.of_alerts(rules, record.unix_s(fault_s)),\n",
                new="        could_not_fire=None,\n",
            ),
        ),
        tests=("test_judge.py::TestSilence::test_silence_of_a_prometheus_without_alert_rules_proves_nothing",),
    ),
    InstrumentDefect(
        name="gap-excused-without-a-fault-on-prometheus",
        what="scrapes may be missing in every trial, not only where the fault hit Prometheus",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="        if lab.subject.prometheus not in injected.victims:\n            raise\n",
                new="",
            ),
        ),
        tests=("test_judge.py::TestAFaultOnPrometheus::test_a_gap_in_any_other_trial_proves_nothing",),
    ),
    InstrumentDefect(
        name="objectives-of-a-blind-prometheus",
        what="objectives are judged across the time in which the fault kept Prometheus from counting",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="load_s=whole.to_s - fault_s, blind=blind)",
                new="load_s=whole.to_s - fault_s, blind=None)",
            ),
        ),
        tests=("test_judge.py::TestAFaultOnPrometheus::test_what_it_alone_records_is_inconclusive",),
    ),
    InstrumentDefect(
        name="alert-of-a-blind-prometheus-is-on-time",
        what="the time of an alert is exact, although Prometheus saw nothing for a while before it",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/trial.py",
                old='after_s=Seconds(one.after_s, blind=self.blind if one.kind == "alert" else None),',
                new="after_s=Seconds(one.after_s),",
            ),
        ),
        tests=("test_trial.py::test_an_alert_of_a_blind_prometheus_fired_by_its_first_sample_at_the_latest",),
    ),
    InstrumentDefect(
        name="alert-by-the-revert-of-a-blind-prometheus",
        what="after a fault on Prometheus, alerts about any service count after our own revert",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/attribution.py",
                old='is_late_report = blinded is not None and one.kind == "alert" and one.service == blinded',
                new='is_late_report = blinded is not None and one.kind == "alert"',
            ),
        ),
        tests=("test_attribution.py::test_an_alert_about_a_blinded_prometheus_counts_after_the_revert",),
    ),
    InstrumentDefect(
        name="silence-of-a-dead-remediator",
        what="no action was taken, where the remediator does not run",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="acted=actions_of(record, audit) or unheard or (),",
                new="acted=actions_of(record, audit),",
            ),
        ),
        tests=("test_judge.py::TestSilence::test_silence_of_a_remediator_that_could_not_act_proves_nothing",),
    ),
    InstrumentDefect(
        name="incident-judged-too-early",
        what="an incident is open, where its end is written a moment after the load",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="if not is_open or time.monotonic() >= deadline or not lab.remediator.running:",
                new="if is_open or time.monotonic() >= deadline or not lab.remediator.running:",
            ),
        ),
        tests=("test_judge.py::TestSilence::test_silence_of_an_end_that_is_about_to_be_written_is_waited_for",),
    ),
    InstrumentDefect(
        name="open-incident-of-a-dead-remediator",
        what="an incident is open, where the remediator could not have written its end",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="return incidents if unheard is None or (incidents and all(one.ended for one in incidents)) else unheard",
                new="return incidents or unheard or ()",
            ),
        ),
        tests=(
            "test_judge.py::TestSilence::test_silence_of_a_remediator_that_could_not_write_an_end_does_not_show_the_end",
        ),
    ),
    InstrumentDefect(
        name="silence-of-a-missing-log",
        what="no action was taken, where the remediator's audit log is not there",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="has_log=log is not None)",
                new="has_log=True)",
            ),
        ),
        tests=("test_judge.py::TestSilence::test_silence_of_a_remediator_without_a_log_proves_nothing",),
    ),
    InstrumentDefect(
        name="control-arm-held-by-silence",
        what="an arm without a fault is held where the remediator was paused",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="            raise unheard  # a control arm proves only that the remediator did nothing\n",
                new="            pass\n",
            ),
        ),
        tests=("test_unprovoked.py::test_a_remediator_that_could_not_act_refutes_nothing[paused]",),
    ),
    InstrumentDefect(
        name="neighbours-alert-detects",
        what="an alert that is expected of the victim detects the fault where it is about a neighbour",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="for one in expected if one is not None for name in one.elsewhere}",
                new="for one in expected if one is not None for name in (*one.alerts, *one.rules, *one.elsewhere)}",
            ),
        ),
        tests=("test_judge.py::TestSignals::test_signals_that_the_subject_expects_elsewhere_detect_a_fault",),
    ),
    InstrumentDefect(
        name="signal-of-anybody",
        what="a signal that a claim reads is that of any service",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/signals.py",
                old="    if service is None and victims and found:\n",
                new="    if service is None and not victims and found:\n",
            ),
        ),
        tests=("test_trial.py::test_a_signal_without_a_named_service_is_about_a_victim_or_clients",),
    ),
    InstrumentDefect(
        name="slow-clock-was-set",
        what="a slow answer of a clock on a busy machine is one that was set",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/agreement.py",
                old="        if offset_s is None or time.monotonic() - begun_s <= CLOCK_ANSWER_S:\n",
                new="        if offset_s is None or begun_s <= time.monotonic():\n",
            ),
        ),
        tests=("test_gates.py::TestClocks::test_clocks_that_answer_slowly_were_not_set",),
    ),
    InstrumentDefect(
        name="rotation-that-names-nobody",
        what="a replica that the rotation does not name is in it",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/replicas.py",
                old="    if lab.subject.rotation_query is not None and (routed is None or name not in routed):\n",
                new="    if lab.subject.rotation_query is not None and routed is None:\n",
            ),
        ),
        tests=("test_replicas.py::test_a_replica_that_the_rotation_does_not_name_is_unknown",),
    ),
    InstrumentDefect(
        name="live-window-without-the-hung",
        what="in a live window, requests that hang are left out",
        patches=(
            Patch(
                file="pytest_llmchaos/lab/live_load.py",
                old="            if request_id not in known\n",
                new="            if request_id in known\n",
            ),
        ),
        tests=(
            "test_live_load.py::TestOpenRequests::test_a_live_window_counts_a_request_that_is_open_and_too_old_as_failed",
        ),
    ),
    InstrumentDefect(
        name="per-cent-are-plain",
        what="a number of a window in per cent compares as a plain one",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/bounded.py",
                old="        if math.isnan(least) or math.isnan(most):\n            return value\n",
                new="        if least <= most:\n            return value\n",
            ),
        ),
        tests=("test_bounded.py::test_what_too_few_events_cannot_hold_they_cannot_hold_in_per_cent",),
    ),
    InstrumentDefect(
        name="silent-stream-of-events",
        what="a stream of events that has gone silent is one of a system that did nothing",
        patches=(
            Patch(
                file="pytest_llmchaos/trial/judge.py",
                old="    require_heard(record, lab.runtime.events(record.anchor_unix_s, time.time()), states, time.time())\n",
                new="",
            ),
        ),
        tests=("test_judge.py::test_a_start_that_the_runtime_did_not_report_is_inconclusive",),
    ),
)

INSTRUMENT_DEFECTS = (
    *FAULTS,
    *CLEANUP,
    *CAUSES,
    *NUMBERS,
    *GATES,
    *CLIENTS,
    *EVIDENCE,
    *SILENCE,
)
