"""Process identity, ports and the measurement lock of one machine."""

import errno
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import identity, measurement_lock, ports, state_dirs
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.settings import Settings, make_runtime

HOLD = """
import subprocess, sys, time
from pytest_llmchaos.host import measurement_lock
with measurement_lock.measuring(sys.argv[1]):
    child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=sys.stdout)
    time.sleep(60)
"""
FORKS = """
import os, sys, time
from pytest_llmchaos.host import measurement_lock
with measurement_lock.measuring(sys.argv[1]):
    if os.fork() == 0:
        print(flush=True)
    time.sleep(60)
"""
AGAIN_AND_AGAIN = """
import random, sys, time
from pytest_llmchaos.host import measurement_lock
while True:
    with measurement_lock.measuring(sys.argv[1]):
        print(flush=True)
        time.sleep(random.uniform(0.1, 0.2))  # or releases and looks could keep step
"""
DEADLINE_S = 20.0


@pytest.fixture
def slot():
    """The name of a slot for this test only."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    for file in (name, f"{name}-queue"):
        measurement_lock.slot_file(file).unlink(missing_ok=True)


@contextmanager
def held(slot, how=HOLD, **env):
    """The slot held by another process, which has a child unless `how` is a program."""
    process = subprocess.Popen(
        [sys.executable, "-c", how, slot], stdout=subprocess.PIPE, env={**os.environ, **env}, start_new_session=True
    )
    try:
        assert process.stdout.readline() == b"\n"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def holder(slot):
    """The pid in the slot's file."""
    return int(measurement_lock.slot_file(slot).read_text())


def test_the_slot_has_one_holder_and_the_waiting_process_names_it(slot):
    heard = []
    with (
        held(slot) as other,
        pytest.raises(NotReady) as refused,
        measurement_lock.measuring(slot, 0.3, lambda *a, **b: heard.append((a, b))),
    ):
        pytest.fail("two trials measured at once")

    user = pwd.getpwuid(os.geteuid()).pw_name
    who = rf"the trial of process {other.pid} \(python[\d.]* of user {user}, since \d\d:\d\d:\d\d\)"
    held_for = rf"has held this machine's measurement slot \(/tmp/pytest-llmchaos-{slot}.lock\) for 0.3 s"
    assert re.fullmatch(f"{who} {held_for}: wait for it to end, or stop it", str(refused.value))
    (what,), deadline = heard[0]
    assert re.fullmatch(f"waiting for {who}", what)
    assert 0 < deadline["deadline_s"] <= 0.3


def test_the_slot_is_free_once_its_holder_is_killed_even_if_its_children_live(slot):
    with held(slot) as other:
        with pytest.raises(NotReady), measurement_lock.measuring(slot, 0.0):
            pass
        other.kill()
        other.wait()

        begin = time.monotonic()
        with measurement_lock.measuring(slot, DEADLINE_S):
            assert time.monotonic() - begin < 5


def test_a_foreign_holder_of_the_slot_is_named_by_the_kernel(slot):
    """Any user may lock the file without writing a pid into it."""
    with measurement_lock.measuring(slot, 0.0):
        pass
    path = measurement_lock.slot_file(slot)
    with subprocess.Popen(["flock", path, "--command", "echo; exec sleep 60"], stdout=subprocess.PIPE) as squatter:
        try:
            squatter.stdout.readline()
            with (
                pytest.raises(NotReady, match=rf"^process {squatter.pid} \(flock of user \w+\) has held"),
                measurement_lock.measuring(slot, 0.1),
            ):
                pytest.fail("two processes held the slot")
        finally:
            subprocess.run(["pkill", "--parent", str(squatter.pid)], check=True)
            squatter.kill()


def test_a_child_made_by_fork_does_not_keep_the_slot(slot):
    with held(slot, FORKS) as other:
        other.kill()
        other.wait()

        with measurement_lock.measuring(slot, 5.0):
            assert holder(slot) == os.getpid()


def test_a_waiting_trial_continues_when_the_other_ends(slot):
    with held(slot) as other:
        killed = []

        def say(what, deadline_s):
            if not killed:
                killed.append(what)
                other.kill()

        with measurement_lock.measuring(slot, DEADLINE_S, say):
            assert killed


def test_a_waiting_trial_is_next_even_if_the_other_session_has_many_more(slot):
    with held(slot, AGAIN_AND_AGAIN), measurement_lock.measuring(slot, 2.0):
        assert holder(slot) == os.getpid()


QUEUES = """
import os, sys
from pytest_llmchaos.host import measurement_lock
slot, mine, served = sys.argv[1:4]
if len(sys.argv) > 4:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
heard = []
def waits(what, deadline_s):
    if not heard:
        heard.append(what)
        print(flush=True)
with measurement_lock.measuring(slot, 60.0, waits):
    with open(served, "a") as file:
        file.write(mine + "\\n")
"""


class Queue:
    """Processes that wait for the slot. Each begins when the one before is in line."""

    def __init__(self, slot, served):
        self.slot, self.served, self.processes = slot, served, []
        served.touch(0o666)
        served.chmod(0o666)

    def join(self, *how, other_user=False):
        mine = str(len(self.processes))
        command = [*how, sys.executable, "-c", QUEUES, self.slot, mine, str(self.served), *["x"] * other_user]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True))
        assert self.processes[-1].stdout.readline() == b"\n"

    def order(self):
        for process in self.processes:
            process.wait(DEADLINE_S)
        return self.served.read_text().split()


@pytest.fixture
def queue(slot, tmp_path_factory):
    made = Queue(slot, tmp_path_factory.mktemp("queue") / "served")
    yield made
    for process in made.processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_the_slot_is_served_in_order_of_arrival_though_processes_of_the_queue_are_killed(slot, queue):
    with held(slot):
        for _ in range(6):
            queue.join()
        for gone in (0, 3):
            queue.processes[gone].kill()
            queue.processes[gone].wait()
        queue.join()

    assert queue.order() == ["1", "2", "4", "5", "6"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_other_users_and_other_pid_namespaces_have_their_place_in_the_queue(slot, queue):
    elsewhere = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*elsewhere, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine makes no pid namespaces")
    queue.served.parent.chmod(0o755)
    with held(slot):
        queue.join()
        queue.join(*elsewhere)
        queue.join(*elsewhere)
        queue.join()
        os.killpg(queue.processes[1].pid, signal.SIGKILL)

    assert queue.order() == ["0", "2", "3"]


def test_a_queue_whose_file_is_emptied_meanwhile_still_lets_one_measure_at_a_time(slot, queue):
    with held(slot):
        queue.join()
        measurement_lock.slot_file(f"{slot}-queue").write_text("")
        queue.join()

    assert sorted(queue.order()) == ["0", "1"]


def test_numbers_of_the_queue_begin_anew_when_it_is_empty(slot):
    for _ in range(3):
        with measurement_lock.measuring(slot):
            pass

    assert measurement_lock.slot_file(f"{slot}-queue").stat().st_size == 1


def test_a_kernel_without_locks_for_the_queue_is_named_and_leaves_no_ticket(slot, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(measurement_lock.os, "ftruncate", full)
        with (
            pytest.raises(NotReady, match=r"cannot lock the queue of all trials on this machine: .*No locks available"),
            measurement_lock.measuring(slot),
        ):
            pytest.fail("a place in the queue without a lock")

    with measurement_lock.measuring(slot, 0.0):
        pass


def test_a_process_that_stops_in_the_queue_is_found_by_the_message(slot, queue):
    with held(slot) as first:
        queue.join()
        queue.processes[0].send_signal(signal.SIGSTOP)
        first.kill()
        with (
            pytest.raises(NotReady, match=rf"a trial that waits before this one \(`fuser .*{slot}-queue\.lock` lists"),
            measurement_lock.measuring(slot, 0.5),
        ):
            pytest.fail("the queue has an order")


def test_the_deadline_begins_anew_with_each_holder(slot):
    """A long queue is no error: each of its trials ends."""
    left = []
    with held(slot, AGAIN_AND_AGAIN), held(slot, AGAIN_AND_AGAIN):

        def say(what, deadline_s):
            left.append(deadline_s)
            assert deadline_s <= 1.0

        with measurement_lock.measuring(slot, 1.0, say):
            assert left


SMALL_TMP = """
import subprocess, sys
from pathlib import Path
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import measurement_lock
subprocess.run(["mount", "-t", "tmpfs", "-o", sys.argv[1], "none", "/tmp"], check=True)
try:
    Path("/tmp/filler").write_bytes(bytes(10_000_000))
except OSError:
    pass
for _ in range(2):
    try:
        with measurement_lock.measuring("x"):
            print("measured")
    except NotReady as error:
        print(error)
"""
CANNOT_OPEN = "cannot open /tmp/pytest-llmchaos-x.lock, the lock file of all trials on this machine"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting /tmp needs root and unshare")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("size=64k", "measured"),
        ("ro", f"{CANNOT_OPEN}: Read-only file system; mount its folder writable"),
        ("size=64k,nr_inodes=2", f"{CANNOT_OPEN}: No space left on device; make room"),
    ],
)
def test_a_full_tmp_serves_if_it_can_and_is_refused_in_one_line_otherwise(options, told):
    command = ["unshare", "--mount", sys.executable, "-c", SMALL_TMP, options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if "mount" in done.stderr:
        pytest.skip(f"this machine lets no process mount /tmp: {done.stderr[-200:]}")

    assert (done.stdout.splitlines(), done.stderr) == ([told] * 2, "")


def test_the_slot_is_the_same_for_jobs_with_their_own_folders(slot, tmp_path):
    with (
        held(slot, XDG_RUNTIME_DIR=str(tmp_path), TMPDIR=str(tmp_path)),
        pytest.raises(NotReady),
        measurement_lock.measuring(slot, 0.0),
    ):
        pytest.fail("two trials measured at once")


def test_the_slot_can_be_taken_again_and_belongs_to_every_user(slot):
    for _ in range(2):
        with measurement_lock.measuring(slot, 0.0):
            path = measurement_lock.slot_file(slot)
            assert path.read_text() == str(os.getpid())
            assert path.stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("written", ["", "\x1b[2Jhello", "-1", "99999999999999999999999"])
def test_text_of_other_users_in_the_slot_is_not_repeated(slot, written):
    path = measurement_lock.slot_file(slot)
    with held(slot):
        path.write_text(written)
        with (
            pytest.raises(NotReady, match=r"^process \d+ \([\w.-]+ of user \w+\) has held"),
            measurement_lock.measuring(slot, 0.0),
        ):
            pass


def test_a_symlink_in_the_slots_place_is_not_followed(slot, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    measurement_lock.slot_file(slot).symlink_to(victim)

    with (
        pytest.raises(NotReady, match=r"cannot open .*-test-.*\.lock, the lock file of all trials on this machine"),
        measurement_lock.measuring(slot),
    ):
        pass

    assert victim.read_text() == "untouched"


HERE = identity.pid_namespace()


def gone_pid():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("label", "here", "elsewhere"),
    [
        ("{me}", "alive", "alive"),
        ("{gone}:5:{boot}:{ns}", "dead", "dead"),
        ("{gone}:5:{boot}", "unknown", "unknown"),  # without a pid namespace
        ("{gone}:5:{boot}:", "unknown", "unknown"),
        ("{pid}::{boot}:{ns}", "unknown", "unknown"),  # of a process that could not read its own start time
        ("{gone}::{boot}:{ns}", "dead", "dead"),
        ("9999999999:5:{boot}:{ns}", "unknown", "unknown"),  # above the highest pid
        ("{pid}:1:{boot}:{ns}", "dead", "dead"),
        ("{gone}:5:{boot}:1", "unknown", "unknown"),
        ("{pid}:{started}:{boot}:1", "unknown", "unknown"),
        ("{gone}:5:another:{ns}", "dead", "unknown"),
        ("{gone}:5:another", "dead", "unknown"),
        ("{gone}:5:unknown:", "unknown", "unknown"),
        ("", "unknown", "unknown"),
        ("x:5:{boot}", "unknown", "unknown"),
        ("9" * 5000 + ":5:{boot}", "unknown", "unknown"),
        ("1:2:3:4:5", "unknown", "unknown"),
    ],
)
def test_an_owner_is_dead_only_on_proof(label, here, elsewhere):
    who = label.format(
        me=identity.owner_label(),
        pid=os.getpid(),
        started=identity.process_started(os.getpid()),
        gone=gone_pid(),
        boot=identity.boot_id(),
        ns=HERE,
    )

    assert identity.liveness(who) == here
    assert identity.liveness(who, same_kernel=False) == elsewhere


def test_a_zombie_is_dead():
    with subprocess.Popen(["sleep", "60"]) as process:
        who = identity.owner_label(process.pid)
        assert identity.liveness(who) == "alive"

        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert identity.liveness(who) == "dead"


@pytest.mark.parametrize(
    ("answer", "life"), [(None, "unknown"), (PermissionError, "unknown"), (ProcessLookupError, "dead")]
)
def test_a_hidden_process_is_dead_only_if_the_kernel_lacks_it(monkeypatch, answer, life):
    def kill(*_):
        if answer:
            raise answer

    who = identity.owner_label()
    monkeypatch.setattr(identity, "_start_of", lambda _: None)
    monkeypatch.setattr(identity.os, "kill", kill)

    assert identity.liveness(who) == life


HIDDEN = """
import os, subprocess, sys
from pytest_llmchaos.host import identity
subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
os.setgroups([]), os.setgid(65534), os.setuid(65534)
print([identity.liveness(who) for who in sys.argv[1:]])
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting /proc needs root and unshare")
def test_a_live_process_that_proc_hides_from_this_user_is_not_dead():
    owners = [identity.owner_label(), f"{gone_pid()}:5:{identity.boot_id()}:{HERE}"]
    command = ["unshare", "--mount", sys.executable, "-c", HIDDEN, *owners]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount" in done.stderr:
        pytest.skip(f"this machine lets no process mount /proc: {done.stderr[-200:]}")

    assert (done.stdout, done.stderr) == ("['unknown', 'dead']\n", "")


def test_a_label_contains_the_pid_namespace(monkeypatch):
    assert HERE.isdecimal()
    assert identity.owner_label().split(":") == [
        str(os.getpid()), identity.process_started(os.getpid()), identity.boot_id(), HERE
    ]  # fmt: skip

    monkeypatch.setattr(identity, "pid_namespace", lambda: "1")

    assert identity.liveness(f"{os.getpid()}:1:{identity.boot_id()}:{HERE}") == "unknown"


def test_processes_with_one_pid_in_two_namespaces_have_different_stacks(monkeypatch):
    names = {identity.project_name(7), identity.project_name(7, "gw0"), identity.project_name(8)}
    monkeypatch.setattr(identity, "pid_namespace", lambda: "1")
    names |= {identity.project_name(7), identity.project_name(7, "gw0")}

    assert len(names) == 5
    assert all(identity.is_project_name(name) for name in names)
    assert not any(map(identity.is_project_name, ["", "etc", "llmchaos-7", "llmchaos-7-abcd/..", "llmchaos-7-abcd\n"]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of another user's")
def test_another_users_symlink_is_not_our_folder(tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir(mode=0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    link = tmp_path / f"pytest-llmchaos-{os.getuid()}"
    link.symlink_to(tmp_path / "ours")
    os.chown(link, 65533, 65533, follow_symlinks=False)

    with pytest.raises(NotReady, match="belongs to another user"):
        state_dirs.state_dir()

    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o755


def test_ports_of_two_runs_never_meet():
    one, other = ports.Ports(), ports.Ports()
    try:
        taken = [one.reserve(), other.reserve(), one.reserve(), other.reserve()]
        assert len(set(taken)) == 4
    finally:
        one.close()
        other.close()


def test_the_terminal_names_the_trial_that_is_waited_for():
    written = []
    progress = Progress(lambda text, _: written.append(text), tty=False)
    lab = SimpleNamespace(record=None, running_load=None)

    progress(lab, "waiting for the trial of process 7", 1799.6)

    assert written == ["waiting for the trial of process 7 (1800 s left)"]


@pytest.mark.parametrize("runtime", ["compose", "local"])
def test_the_stacks_of_workers_share_no_folder(tmp_path, runtime):
    def folder_of(worker):
        common = {"run": "r", "seed": 1, "runtime": runtime, "backend": "sim", "repeat": 1, "replay_line": "pytest"}
        settings = Settings(**common, reports=tmp_path, worker=worker)
        made = make_runtime(settings, settings.subject, project=f"p-{worker}", owner_id=f"owner-{worker}")
        assert made._directory == settings.stack_directory
        return made._directory

    one, other, alone = folder_of("gw0"), folder_of("gw1"), folder_of("")

    assert alone == tmp_path / "r"
    assert {one, other} == {alone / "gw0", alone / "gw1"}
