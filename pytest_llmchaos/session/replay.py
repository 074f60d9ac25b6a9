"""Recorded schedules of `--chaos-replay`, read and compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.plan import schedule as planning
from pytest_llmchaos.plan.schedule import ScheduleEntry
from pytest_llmchaos.plan.seeds import MAX_SEED


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The parts of an earlier run that a replay must repeat.

    Attributes:
        seed: the run's seed.
        runtime: the run's runtime, or None if the file lacks it.
        backend: the run's backend, or None if the file lacks it.
        schedule: one mapping for each trial.
    """

    seed: int
    runtime: str | None
    backend: str | None
    schedule: tuple[Mapping[str, object], ...]


def require_same(now: Sequence[ScheduleEntry], recorded: Recorded, *, runtime: str, backend: str) -> None:
    """Raises BadScenario if runtime, backend or a trial differs from the recorded."""
    for option, value, was in (("runtime", runtime, recorded.runtime), ("backend", backend, recorded.backend)):
        if was not in (None, value):
            how = f"give --chaos-{option}={was}" if "own" not in (value, was) else "use that run's ini file"
            raise BadScenario(f"--chaos-replay: the {option} is {value}, but the recorded run had {was}: {how}")
    known = {planning.schedule_bytes([entry]): entry for entry in recorded.schedule}
    for entry in now:
        if planning.schedule_bytes([entry]) not in known:
            raise BadScenario(
                f"--chaos-replay: trial {entry.scenario!r} with {_shown(_plain(entry))} differs from the recorded schedule: "
                f"{_difference(entry, recorded.schedule)}; check out the commit of that run and select the same tests"
            )
    left_out = [known[key] for key in known.keys() - {planning.schedule_bytes([entry]) for entry in now}]
    if left_out:
        names = sorted(f"{one.get('scenario')!r} with {_shown(one)}" for one in left_out)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise BadScenario(
            f"--chaos-replay: {len(left_out)} of the {len(known)} recorded trials would not be performed, "
            f"{', '.join(names[:3])}{more}: select the same tests; to repeat a single trial, use the command "
            "that the report shows for it"
        )


def _shown(entry: Mapping[str, object]) -> str:
    """Return a trial's fault and arm for a message."""
    arm = entry.get("arm")
    return repr(entry.get("fault")) + (f" in arm {arm!r}" if arm else "")


def _plain(entry: ScheduleEntry) -> dict[str, object]:
    """Return an entry as `run.json` has it."""
    found: dict[str, object] = json.loads(json.dumps(msgspec.to_builtins(entry)))
    return found


def _difference(entry: ScheduleEntry, recorded: Iterable[Mapping[str, object]]) -> str:
    plain = _plain(entry)
    for other in recorded:
        if all(other.get(key) == plain.get(key) for key in ("scenario", "fault", "repeat", "arm")):
            for key in dict.fromkeys([*plain, *other]):
                if other.get(key) != plain.get(key):
                    return f"{key} is {plain.get(key)!r}, was {other.get(key)!r}"
    return f"it has no repeat {entry.repeat} of this trial"


def read_replay(path: Path) -> Recorded:
    """Read a run.json. Raises BadScenario for an invalid file."""
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
        raise BadScenario(f"--chaos-replay: {path} has no seed or schedule: give the run.json of a run of this plugin")
    runtime, backend = (value if isinstance(value, str) else None for value in map(run.get, ("runtime", "backend")))
    return Recorded(seed=seed, runtime=runtime, backend=backend, schedule=tuple(schedule))
