"""Recorded schedules, read and compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.plan import schedule as planning
from pytest_llmchaos.plan.schedule import ScheduleEntry
from pytest_llmchaos.plan.seeds import MAX_SEED


def require_same(now: Sequence[ScheduleEntry], recorded: Sequence[Mapping[str, object]]) -> None:
    """Raises BadScenario if any trial of now is not among the recorded ones, byte for byte."""
    known = {planning.schedule_bytes([entry]) for entry in recorded}
    for entry in now:
        if planning.schedule_bytes([entry]) not in known:
            raise BadScenario(
                f"--chaos-replay: trial {entry.scenario!r} with {entry.fault!r} differs from the recorded schedule: "
                f"{_difference(entry, recorded)}; check out the commit of that run and select the same tests"
            )


def _difference(entry: ScheduleEntry, recorded: Iterable[Mapping[str, object]]) -> str:
    plain = json.loads(json.dumps(msgspec.to_builtins(entry)))
    for other in recorded:
        if all(other.get(key) == plain[key] for key in ("scenario", "fault", "repeat")):
            for key, value in plain.items():
                if other.get(key) != value:
                    return f"{key} is {value!r}, was {other.get(key)!r}"
    return f"it has no repeat {entry.repeat} of that"


def read_replay(path: Path) -> tuple[int, list[dict[str, object]]]:
    """(seed, schedule) of an earlier run's run.json. Raises BadScenario for anything that is not one."""
    try:
        run = json.loads(path.read_text())
    except OSError as error:
        raise BadScenario(
            f"--chaos-replay: cannot read {path}: {error.strerror}; give the run.json of an earlier run"
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadScenario(
            f"--chaos-replay: {path} is not JSON ({error}); give the run.json of an earlier run"
        ) from None
    if not isinstance(run, dict) or run.get("schema") != "llmchaos-run/1":
        seen = run.get("schema") if isinstance(run, dict) else type(run).__name__
        raise BadScenario(
            f"--chaos-replay: {path} has schema {seen!r}, expected 'llmchaos-run/1': give the run.json of a run"
        )
    schedule, seed = run.get("schedule"), run.get("seed")
    if (
        type(seed) is not int
        or not 0 <= seed <= MAX_SEED
        or not isinstance(schedule, list)
        or not all(isinstance(entry, dict) for entry in schedule)
    ):
        raise BadScenario(f"--chaos-replay: {path} has no seed or schedule: it was not written by a run of this plugin")
    return seed, schedule
