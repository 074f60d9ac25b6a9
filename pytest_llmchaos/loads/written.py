"""Loads as text and as lengths, for the command line: `poisson(rate_rps=8)`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from pytest_llmchaos import loads
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads import traces
from pytest_llmchaos.loads.arrivals import Load
from pytest_llmchaos.loads.prompts import BUILT_IN

# Tasks of agents are calls of an agent, which has no length in tokens.
_KINDS: Mapping[str, Callable[..., Load]] = {
    "burst": loads.burst,
    "open_loop": loads.open_loop,
    "poisson": loads.poisson,
    "ramp": loads.ramp,
    "sine": loads.sine,
    "trace": loads.trace,
}
MAX_SHOWN = 100  # characters of a text in an error
_FILES = ("path", "prompts")


def load_of(text: str, folder: Path) -> Load:
    """Return the load that a text names.

    Args:
        text: A call as in a scenario, such as `loads.ramp(from_rps=1, to_rps=20,
            over_s=300)`, or the path of a trace.
        folder: Folder that paths are relative to.

    Raises:
        BadScenario: It is neither, or an argument is invalid. Nothing in the text is
            executed: arguments are numbers, texts, lists and tables.
    """
    called = text.strip().removeprefix("loads.")
    # Browsers name a second download `trace(1).csv`.
    if "(" not in called or not called.endswith(")"):
        return loads.trace(folder / text.strip())
    name, named, given = _call(text, called)
    if name == "trace" and len(given) == 1 and isinstance(given[0], str):
        named, given = {"path": given[0], **named}, []
    arguments = {key: _placed(folder, key, value) for key, value in named.items()}
    if given:
        raise BadScenario(
            f"load {_short(text)}: expected named arguments, got {given[0]!r}: write {name}(NAME={given[0]!r})"
        )
    try:
        return _KINDS[name](**arguments)
    except TypeError as error:
        raise BadScenario(f"load {_short(text)}: {error}: see `loads.{name}` in the reference") from error


def requests_of(load: Load, rng: Random, duration_s: float) -> tuple[traces.Row, ...]:
    """Return the requests of the first `duration_s` seconds by their lengths.

    A recorded request has its recorded lengths. Another one has as many tokens as its
    prompt has words, since one common English word is close to one token.

    Args:
        load: The load.
        rng: Source of the random draws.
        duration_s: Seconds from the load's start.

    Raises:
        BadScenario: That is no request, more than 2 million, or more than a cut trace
            has.
    """
    if not isinstance(load.shape, traces.Trace):
        drawn = load.schedule(rng, duration_s)
        return tuple(traces.Row(one.due_s, max(1, len(one.prompt.split())), one.max_tokens) for one in drawn)
    rows = ((round(row.at_s / load.speed, 6), row) for row in load.shape.rows)
    found = tuple(
        traces.Row(at_s, max(1, row.prompt_tokens), load.max_tokens or max(1, row.answer_tokens))
        for at_s, row in rows
        if at_s < duration_s
    )
    if load.shape.cut and len(found) == len(load.shape.rows):
        raise BadScenario(
            f"{load}: only the first {len(load.shape.rows):,} requests were read, which end at {found[-1].at_s:g} s, "
            f"{duration_s:g} s are needed: cut the file to the part you need, or give a shorter duration (--until-s)"
        )
    if not found:
        raise BadScenario(f"{load} sends no request in {duration_s:g} s: raise the duration")
    return found


def _call(text: str, called: str) -> tuple[str, dict[str, object], list[object]]:
    """Return the name of the function, and its named and further arguments."""
    try:
        call = ast.parse(called, mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _KINDS:
            named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords if one.arg}
            if len(named) == len(call.keywords):
                return call.func.id, named, [ast.literal_eval(one) for one in call.args]
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadScenario(f"load {_short(text)} cannot be read ({error}): {_expected()}") from error
    raise BadScenario(f"load {_short(text)} is unknown: {_expected()}")


def _short(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")


def _expected() -> str:
    return f"expected the path of a trace, or a call such as poisson(rate_rps=8) of {', '.join(_KINDS)}"


def _placed(folder: Path, key: str, value: object) -> object:
    """Return the argument, a file's path relative to the folder."""
    is_file = key in _FILES and isinstance(value, str) and value not in BUILT_IN
    return folder / str(value) if is_file else value
