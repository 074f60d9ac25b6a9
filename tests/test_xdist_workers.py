"""Problems of xdist workers, as the controller shows them."""

import pytest
from support.plugin_double import SCENARIO

from pytest_llmchaos.report.journal_reader import logs

# In a worker's own process, in place of a stack.
CONFTEST = """
import os, signal
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.cleanup import sweep
from pytest_llmchaos.errors import Unsupported
from pytest_llmchaos.trial.perform import Performed

Campaign.preflight = lambda self: self.settings.directory.mkdir(parents=True, exist_ok=True)
Campaign._perform = lambda self, plan: {perform}
Campaign.close = lambda self, status, **_: {problems}
sweep.in_docker = lambda: sweep.InDocker()
sweep.sweep_dead_runs = lambda *_, **__: sweep.Swept(failed=("llmchaos-1: busy",))
"""
ON_API = SCENARIO.format(fault='faults.kill("api")')
SKIPS = 'Performed(name="001", error=Unsupported("nothing is performed here"))'
DIES = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def workers(pytester, monkeypatch):
    """A session with one worker."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(*args, perform=SKIPS, problems="[]", text=ON_API):
        pytester.makeconftest(CONFTEST.format(perform=perform, problems=problems))
        pytester.makepyfile(test_scenario=text)
        plugins = ("-p", "pytest_llmchaos.plugin", "-p", "xdist", "-p", "no:cacheprovider")
        return pytester.runpytest_subprocess(*plugins, "-n", "1", "--chaos-runtime=local", *args)

    return run


def test_a_stack_that_a_worker_could_not_remove_is_printed_and_fails_the_session(workers):
    result = workers(problems="['the stack is not removed yet']")

    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*llmchaos: worker gw0: the stack is not removed yet"])
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR


def test_a_session_whose_workers_end_well_ends_well(workers):
    assert workers().ret == 0


def test_orphans_of_a_crashed_worker_are_removed_and_failures_printed(workers):
    result = workers("--max-worker-restart=0", perform=DIES)

    result.stdout.fnmatch_lines(
        ["*an orphan of a crashed worker was not removed: llmchaos-1: busy; run `llmchaos heal`"]
    )
    assert result.ret != 0


def test_nothing_is_swept_where_no_worker_has_opened_a_run(workers):
    dies = f"import os, signal\n\ndef test_unit():\n    {DIES}\n"

    result = workers("--max-worker-restart=0", text=dies)

    assert "crashed worker left" not in result.stdout.str()


def test_logs_of_every_workers_stack_are_in_the_report(tmp_path):
    for folder in ("logs", "gw0/logs", "gw1/logs", "trials/001/logs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "api.txt").write_text(folder)

    assert logs(tmp_path) == {
        f"{folder}/api.txt": folder for folder in ("logs", "gw0/logs", "gw1/logs", "trials/001/logs")
    }
