"""Bodies of requests, from a user's template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.subject.requests import Dialect, Requests

# Stands in a template for the prompt.
PLACE = "$PROMPT"
# Marks that no text has, and how JSON writes them.
_PROMPT, _COUNT = "\x02prompt\x02", "\x02count\x02"
_PROMPT_JSON, _COUNT_JSON = json.dumps(_PROMPT)[1:-1], json.dumps(_COUNT)
# The field that holds the prompt, the object with the number of tokens, its field.
_SHAPES: Mapping[Dialect, tuple[str, str, str]] = {
    "chat": ("messages", "", "max_tokens"),
    "completions": ("prompt", "", "max_tokens"),
    "ollama": ("messages", "options", "num_predict"),
    "ollama-generate": ("prompt", "options", "num_predict"),
    "tgi": ("inputs", "parameters", "max_new_tokens"),
}
# Another spelling of the same field. A template that has it gets no `max_tokens`.
OTHER_COUNT = "max_completion_tokens"

Fields = dict[str, object]


class Body:
    """The body of each request. The template is encoded once.

    Args:
        requests: Dialect and template.
        model: The name of the model.
        stream: True for a stream.
    """

    def __init__(self, requests: Requests, model: str, *, stream: bool = True) -> None:
        self._text = json.dumps(fields_of(requests, model, stream=stream), separators=(",", ":"))

    def of(self, prompt: str, max_tokens: int) -> bytes:
        """Return the body with a prompt and the largest number of tokens."""
        text = self._text.replace(_COUNT_JSON, str(max_tokens))
        return text.replace(_PROMPT_JSON, json.dumps(prompt)[1:-1]).encode()


def fields_of(requests: Requests, model: str, *, stream: bool = True) -> Fields:
    """Return the fields of a body, with marks for prompt and number of tokens.

    Args:
        requests: Dialect and template.
        model: The name of the model.
        stream: True for a stream.

    Raises:
        BadScenario: The template cannot become a request.
    """
    template = {} if requests.template is None else read_template(requests.template)
    return _fields(requests.dialect, template, model, stream=stream)


def limits_answers(requests: Requests, fields: Fields) -> bool:
    """Return True if a body limits its one answer to the load's number of tokens.

    False if the template leaves the limit out, or requests several answers or the
    prompt before the answer.

    Args:
        requests: Its dialect.
        fields: Fields of the body.
    """
    _, inside, count = _SHAPES[requests.dialect]
    holder = fields.get(inside) if inside else fields
    has_limit = isinstance(holder, dict) and _COUNT in (holder.get(count), holder.get(OTHER_COUNT))
    return has_limit and fields.get("n", 1) == 1 and not fields.get("echo")


def read_template(path: Path) -> Fields:
    """Read a template. Raises BadScenario unless it is one JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BadScenario(f"llmchaos_request: {path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadScenario(f"llmchaos_request: {path} must be one JSON object: {error}") from None
    if not isinstance(value, dict):
        raise BadScenario(f"llmchaos_request: {path} must be one JSON object, got {type(value).__name__}")
    return value


def model_of(path: Path) -> str:
    """Return the model that a template names, or "". Raises BadScenario."""
    name = read_template(path).get("model") or ""
    if not isinstance(name, str):
        raise BadScenario(f"llmchaos_request: {path}: model must be a string, got {name!r}")
    return name


def _fields(dialect: Dialect, template: Fields, model: str, *, stream: bool) -> Fields:
    """The fields of a body, with marks for the prompt and the number of tokens.

    A field of the template replaces the default. One that is null is left out.
    """
    place, inside, count = _SHAPES[dialect]
    if template.get("stream", True) is not True:
        raise BadScenario(
            f"llmchaos_request: stream must be true, because a load measures streams, got {template['stream']!r}: drop it"
        )
    is_placed = PLACE in json.dumps(template)
    own = {name: _marked(value) for name, value in template.items()}
    defaults: Fields = {} if dialect == "tgi" else {"model": model, "stream": stream}
    if stream and dialect in ("chat", "completions"):
        # A stream has the number of its prompt's tokens nowhere else.
        defaults["stream_options"] = {"include_usage": True}
    # Temperature 0: an answer must not depend on anything that is not recorded. TGI
    # refuses 0 and is greedy without it. Its details have the finish reason.
    settings: Fields = {"details": True} if dialect == "tgi" else {"temperature": 0}
    if inside:
        more = own.pop(inside, None)
        more = {} if more is None else more
        if not isinstance(more, dict):
            raise BadScenario(f"llmchaos_request: {inside} must be an object, got {more!r}")
        fields = {**defaults, **own, inside: _counted({**settings, **more}, count)}
    else:
        fields = _counted({**defaults, **settings, **own}, OTHER_COUNT if OTHER_COUNT in own else count)
    if not is_placed:
        fields[place] = _with_prompt(place, template.get(place))
    return {name: value for name, value in fields.items() if value is not None}


def _counted(fields: Fields, count: str) -> Fields:
    """Put the mark of the number of tokens in, unless the template leaves it out."""
    is_wanted = fields.get(count, 0) is not None
    kept = {name: value for name, value in fields.items() if name not in (count, "max_tokens") and value is not None}
    return {**kept, count: _COUNT} if is_wanted else kept


def _with_prompt(place: str, given: object) -> object:
    """The value of the prompt's field, for a template without `$PROMPT`."""
    if place != "messages":
        if given is not None:
            raise BadScenario(f"llmchaos_request: {place} must contain {PLACE}, where the prompt is put, got {given!r}")
        return _PROMPT
    before = [] if given is None else given
    if not isinstance(before, list) or not all(isinstance(one, dict) for one in before):
        raise BadScenario(f"llmchaos_request: messages must be a list of objects, got {before!r}")
    return [*before, {"role": "user", "content": _PROMPT}]


def _marked(value: object) -> object:
    """The value with the prompt's mark for each `$PROMPT` in its texts."""
    if isinstance(value, str):
        return value.replace(PLACE, _PROMPT)
    if isinstance(value, dict):
        return {name: _marked(one) for name, one in value.items()}
    return [_marked(one) for one in value] if isinstance(value, list) else value
