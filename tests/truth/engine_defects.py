"""Defects of the simulated engine and of its supervisor proxy."""

from __future__ import annotations

from truth.defects import Patch, SubjectDefect

ENGINE_ROOM = "stack/services/lab_engine"


def _defect(
    name: str,
    what: str,
    scenario: str,
    caught_by: str,
    *changes: tuple[str, str, str],
    only: str = "",
    room: str = ENGINE_ROOM,
) -> SubjectDefect:
    """A defect of the engine. Each change is (file, old text, new text)."""
    return SubjectDefect(
        name=name,
        part="engine",
        what=what,
        patches=tuple(Patch(file=f"{room}/{file}", old=old, new=new) for file, old, new in changes),
        scenario=scenario,
        caught_by=caught_by,
        only=only or caught_by.removeprefix("test_"),
    )


_LEAVING = "test_the_engines_do_not_work_for_clients_who_left"
_FULL = "test_a_full_cache_makes_clients_wait_and_loses_no_answer"

_CLIENTS_WHO_LEFT = (
    _defect(
        "left-clients-are-generated-for",
        "of the requests whose clients left, only those that still wait are ended",
        "impatient_clients",
        _LEAVING,
        (
            "engine.py",
            "        if self.scheduler.abort(sequence):\n",
            '        if sequence.state != "running" and self.scheduler.abort(sequence):\n',
        ),
    ),
    _defect(
        "running-gauge-forgets-aborts",
        "the gauge of running requests is what came minus what was answered: who left is counted for ever",
        "impatient_clients",
        _LEAVING,
        (
            "engine.py",
            (
                "        running = len(scheduler.running)\n        return Gauges(\n"
                "            running=running, waiting=scheduler.unfinished - running,"
            ),
            (
                '        answered = scheduler.stats.finished["stop"] + scheduler.stats.finished["length"]\n'
                "        return Gauges(\n"
                "            running=self._arrivals - answered, waiting=scheduler.unfinished - len(scheduler.running),"
            ),
        ),
    ),
    _defect(
        "left-clients-keep-their-blocks",
        "a request whose client left gives its slot back, and not its KV blocks",
        "impatient_clients",
        _LEAVING,
        (
            "scheduler.py",
            "        place.remove(sequence)\n        self._release(sequence)\n",
            "        place.remove(sequence)\n",
        ),
    ),
    _defect(
        "answered-keep-their-last-block",
        "an answer that is whole gives all of its KV blocks back but the last one",
        "impatient_clients",
        _LEAVING,
        (
            "scheduler.py",
            "        self.pool.release(sequence.blocks)\n        sequence.blocks = []\n",
            "        self.pool.release(sequence.blocks[:-1])\n        sequence.blocks = []\n",
        ),
    ),
    _defect(
        "the-youngest-is-ended",
        "where a client leaves, the youngest request of the batch is taken out in place of its own",
        "impatient_clients",
        "NotSteady",
        ("scheduler.py", "        place.remove(sequence)\n", "        place.pop()\n"),
        only="who_stay",
    ),
)

_TOKENS = (
    _defect(
        "token-doubled-at-preemption",
        "a request that was preempted sends its last token once more",
        "gpu_exhaustion",
        _FULL,
        (
            "scheduler.py",
            "        sequence.computed = sequence.published = 0\n",
            (
                "        sequence.computed = sequence.published = 0\n"
                "        sequence.generated = max(0, sequence.generated - 1)\n"
            ),
        ),
    ),
    _defect(
        "token-lost-at-preemption",
        "a request that was preempted ends a token early, and reports it as whole",
        "gpu_exhaustion",
        "TruthsDisagree",
        (
            "scheduler.py",
            "        sequence.computed = sequence.published = 0\n",
            (
                "        sequence.computed = sequence.published = 0\n"
                "        sequence.answer_tokens = max(sequence.generated + 1, sequence.answer_tokens - 1)\n"
            ),
        ),
        only=_FULL.removeprefix("test_"),
    ),
    _defect(
        "answer-of-another-prompt",
        "prompts of one length are taken for one prompt: all get the answer of the first",
        "kill_model",
        "NotSteady",
        (
            "engine.py",
            "text=request.text)",
            "text=self._texts.setdefault(request.prompt_tokens, request.text))",
        ),
        (
            "engine.py",
            "        self._arrivals = 0\n",
            "        self._arrivals = 0\n        self._texts: dict[int, object] = {}\n",
        ),
        only="without_a_fault",
    ),
    _defect(
        "no-end-mark",
        "a stream ends with its last token and without [DONE]",
        "kill_model",
        "NotSteady",
        ("streams.py", "        self._write(data + replies.DONE)\n", "        self._write(data)\n"),
        only="without_a_fault",
    ),
)

_PROGRESS = (
    _defect(
        "steps-counted-while-hung",
        "a hung engine counts the rounds of its loop as steps: it looks busy",
        "hung_model",
        "test_a_hung_replica_that_nothing_repairs_pages",
        (
            "engine.py",
            "                while self._stuck():\n                    await self._until_change()\n",
            (
                "                while self._stuck():\n                    await self._until_change(0.1)\n"
                "                    scheduler.stats.step_tokens.observe(0)\n"
            ),
        ),
    ),
    _defect(
        "slow-steps-not-counted",
        "a step of more than a second is taken for an outlier and not counted: a busy engine looks hung",
        "busy_model",
        "test_a_busy_engine_is_not_restarted",
        (
            "scheduler.py",
            "        stats.step_tokens.observe(prompt_tokens + len(emitted))\n",
            (
                "        if step.end_s - step.start_s <= 1:\n"
                "            stats.step_tokens.observe(prompt_tokens + len(emitted))\n"
            ),
        ),
    ),
)

_FAULTS = (
    _defect(
        "hang-that-does-nothing",
        "the engine lists the hang as in force and goes on",
        "hung_model",
        "FaultNotObserved",
        ("faults/hang.py", "        return replace(others, hung=True)\n", "        return replace(others)\n"),
        only="is_detected",
    ),
    _defect(
        "gauge-without-what-a-fault-took",
        "the KV cache's gauge leaves out the blocks that a fault has taken away",
        "gpu_exhaustion",
        "FaultNotObserved",
        (
            "blocks.py",
            "        return 1 - self.free / self.count\n",
            "        return 1 - len(self._free) / self.count\n",
        ),
        only=_FULL.removeprefix("test_"),
    ),
    _defect(
        "out-of-memory-ends-well",
        "an engine that ran out of memory exits with status 0",
        "gpu_exhaustion",
        "FaultNotObserved",
        ("chaos.py", "            self.exit_status.set_result(1)\n", "            self.exit_status.set_result(0)\n"),
        only="out_of_memory_is_detected",
    ),
    _defect(
        "a-lease-of-ten-seconds",
        "the engine ends every fault after 10 s, whatever lease was given",
        "busy_model",
        "FaultNotObserved",
        ("chaos.py", "call_later(lease_s, self.end,", "call_later(min(lease_s, 10), self.end,"),
        only="busy_engine_is_detected",
    ),
)

_PROCESS = (
    _defect(
        "sigterm-cuts",
        "SIGTERM fails what is under way at once",
        "graceful_stop",
        "test_a_stopped_replica_lets_its_streams_end_and_new_ones_go_elsewhere",
        ("__main__.py", "call_later(chosen.drain_s, engine.fail_in_flight)", "call_soon(engine.fail_in_flight)"),
    ),
)

ENGINE: tuple[SubjectDefect, ...] = (*_CLIENTS_WHO_LEFT, *_TOKENS, *_PROGRESS, *_FAULTS, *_PROCESS)
